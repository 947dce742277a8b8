//! The HTTP surface: GET and HEAD only, bounded in connections, head size and time. The only place that names hyper.
//!
//! | path | what |
//! |---|---|
//! | `/` | a page for people |
//! | `/metrics` | Prometheus text 0.0.4 or OpenMetrics 1.0, by `Accept`; zstd or gzip, by `Accept-Encoding` |
//! | `/healthz` | 200 while the process answers; touches nothing else |
//! | `/readyz` | 200 once everything the agent waits for is there, else 503 naming what is missing |
//! | `/api/v1/events` | the timeline as JSON; `since`, `limit`, `follow` |

mod body;
mod compress;
mod events;
mod flight;
mod landing;
mod negotiate;
mod page;
mod readiness;
mod reply;
mod route;
mod server;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

pub use readiness::{Latch, Readiness};
use tokio::task::JoinHandle;

use crate::{
    collector::{agent_self::SelfMetrics, runner::Runner},
    event::Timeline,
};

/// What the server serves.
#[derive(Clone)]
pub struct Content {
    /// Where pages come from.
    pub runner: Arc<Runner>,
    /// Where events come from.
    pub timeline: Arc<Timeline>,
    /// Whether the agent is ready.
    pub readiness: Readiness,
    /// Where requests are counted.
    pub metrics: SelfMetrics,
    /// Version shown to people.
    pub version: &'static str,
}

/// Bounds of what clients can make the server do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at once; more wait in the kernel's queue.
    pub connections: usize,
    /// How long the oldest waiting connection may wait for a free place before it is closed.
    pub queue: Duration,
    /// Time for the head of a request, and for the next one on a connection that is kept alive.
    pub head: Duration,
    /// Time from the head of a request to the last byte of its response.
    pub request: Duration,
    /// How long a follower of events waits for the next one.
    pub follow: Duration,
    /// Time that requests in progress get when the agent stops.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            // Longer than `head`: sixty-four silent connections must not cost a scraper its turn.
            queue: Duration::from_secs(6),
            head: Duration::from_secs(5),
            request: Duration::from_secs(10),
            follow: Duration::from_secs(30),
            // A page takes milliseconds: who is not done by then is stuck, and a stop must not wait for it.
            stop: Duration::from_secs(1),
        }
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address could not be bound.
    #[error("cannot listen on {address}; {fix}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        fix: &'static str,
    },
    /// The listener could not be handed to the runtime.
    #[error("cannot serve on the listening socket: {0}")]
    Register(#[from] io::Error),
}

/// Binds the address of the server.
///
/// # Errors
/// When the address is taken, not of this host, or not allowed; the message says which, and what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).map_err(|source| HttpError::Bind {
        address,
        fix: decide_fix(source.kind()),
        source,
    })
}

fn decide_fix(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            "another process, perhaps another agent, listens there: stop it or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this host has that address: choose one it has, or 0.0.0.0 or [::]"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need more privilege than the agent has: choose a higher one"
        }
        _ => "choose another address or port",
    }
}

/// Serves until `shutdown` completes, then gives requests in progress a moment to finish. Must be called within a
/// runtime; the handle completes when the last connection is gone.
///
/// # Errors
/// When the runtime cannot take the listener.
pub fn serve(
    listener: TcpListener,
    content: Content,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>, HttpError> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(tokio::spawn(server::run(listener, content, limits, shutdown)))
}

#[cfg(test)]
mod tests;
