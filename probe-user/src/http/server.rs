//! Connections: who is let in, how long a client may take, and how everything ends.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    Content, Limits,
    body::{Deadline, Payload},
    route::{Route, Router},
};
use crate::collector::agent_self::DropReason;

/// Size of a request head; a scraper's is below 1 KiB.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Pause after a failed accept: out of descriptors, the next try would fail at once and burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
struct Shared {
    router: Router,
    places: Arc<Semaphore>,
    /// Rung when a connection waits for a place: idle ones then leave.
    crowded: Notify,
}

/// Accepts until `shutdown`, then waits for the connections that are left, up to the limit.
pub(super) async fn run(
    listener: TcpListener,
    content: Content,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Semaphore::new(limits.connections));
    let router = Router::new(content, limits, stopping);
    let shared = Arc::new(Shared { router, places, crowded: Notify::new() });
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            admitted = admit(&listener, &shared) => {
                if let Some((stream, place)) = admitted {
                    connections.spawn(attend(stream, place, shared.clone()));
                }
            }
        }
        // Not a branch above: it would cancel the wait of a connection that is already accepted.
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    stop.send_replace(true);
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.stop, finish).await.is_err() {
        tracing::warn!(connections = connections.len(), "Connections were cut at shutdown.");
    }
    connections.shutdown().await;
}

/// Accepts a connection and finds it a place; `None` when it was turned away. Only one connection waits here, the
/// others stay in the kernel's queue and cost nothing.
async fn admit(listener: &TcpListener, shared: &Shared) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let metrics = &shared.router.content.metrics;
    let stream = match listener.accept().await {
        Ok((stream, _peer)) => stream,
        Err(error) => {
            metrics.http_dropped(DropReason::Accept).inc();
            tracing::debug!(err = %error, "Accepting a connection failed.");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return None;
        }
    };
    if let Some(place) = find_place(shared).await {
        return Some((stream, place));
    }
    metrics.http_dropped(DropReason::Limit).inc();
    None
}

async fn find_place(shared: &Shared) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = shared.places.clone().try_acquire_owned() {
        return Some(place);
    }
    shared.crowded.notify_waiters();
    timeout(shared.router.limits.queue, shared.places.clone().acquire_owned()).await.ok()?.ok()
}

/// Serves one connection to its end.
async fn attend(stream: TcpStream, place: OwnedSemaphorePermit, shared: Arc<Shared>) {
    let metrics = &shared.router.content.metrics;
    metrics.http_connections().inc();
    if serve_connection(stream, &shared).await == Ending::TimedOut {
        metrics.http_dropped(DropReason::Timeout).inc();
    }
    metrics.http_connections().dec();
    drop(place);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Closed,
    TimedOut,
}

async fn serve_connection(stream: TcpStream, shared: &Arc<Shared>) -> Ending {
    let deadline = Arc::new(Deadline::default());
    let service = service_fn(|request| respond(request, shared.clone(), deadline.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.router.limits.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut stopping = shared.router.stopping.clone();
    let mut stopped = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => return ending(&result, &deadline),
            () = deadline.passed() => return Ending::TimedOut,
            () = shared.crowded.notified() => {
                // Before its first request a connection would be reset with that request in the air.
                if deadline.had_request() {
                    connection.as_mut().graceful_shutdown();
                }
            }
            _ = stopping.wait_for(|stopping| *stopping), if !stopped => {
                stopped = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A client that goes away is not worth a word, nor is the end of one that has been served and now is silent; one that
/// was cut for being slow is counted.
fn ending(result: &hyper::Result<()>, deadline: &Deadline) -> Ending {
    match result {
        Err(error) if error.is_timeout() && !deadline.had_request() => Ending::TimedOut,
        _ => Ending::Closed,
    }
}

async fn respond(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    deadline: Arc<Deadline>,
) -> Result<Response<Payload>, Infallible> {
    let started = Instant::now();
    let router = &shared.router;
    let (head, _ignored_body) = request.into_parts();
    let route = Route::of(head.uri.path());
    deadline.begin(started + router.limits.request + route.extra_time(&router.limits));
    let mut reply = router.answer(route, &head.method, &head.uri, &head.headers).await;
    if shared.places.available_permits() == 0 {
        reply = reply.closing();
    }
    let metrics = &router.content.metrics;
    metrics.http_request(route.label(), reply.status.as_u16(), started.elapsed().as_secs_f64());
    let response = reply.into_response();
    Ok(response.map(|bytes| Payload::new(bytes, metrics.http_bytes(route.label()), deadline)))
}
