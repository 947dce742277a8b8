//! A response body that is handed out in pieces, so that the deadline of a request covers the transfer: hyper asks for
//! the next piece only when the last one is nearly on the wire, and drops the body when it has all of it.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use prometheus::IntCounter;
use tokio::{sync::Notify, time::Instant};

const PIECE: usize = 64 * 1024;

/// When the request in progress on a connection must be over.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    phase: Mutex<Phase>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    /// No request yet.
    #[default]
    Fresh,
    Busy(Instant),
    /// The last response is gone; hyper's own timer watches for the next head.
    Idle,
}

impl Deadline {
    /// A request has begun.
    pub(super) fn begin(&self, at: Instant) {
        self.set(Phase::Busy(at));
    }

    /// The response is out of our hands.
    fn end(&self) {
        self.set(Phase::Idle);
    }

    /// Whether there has been a request on this connection.
    pub(super) fn had_request(&self) -> bool {
        !matches!(self.get(), Phase::Fresh)
    }

    /// Completes when a request is over time.
    pub(super) async fn passed(&self) {
        loop {
            let changed = self.changed.notified();
            match self.get() {
                Phase::Fresh | Phase::Idle => changed.await,
                Phase::Busy(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => return,
                },
            }
        }
    }

    fn get(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        // Keeps a permit when nobody listens, so that no change is missed between two waits.
        self.changed.notify_one();
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct Payload {
    rest: Bytes,
    sent: IntCounter,
    deadline: Arc<Deadline>,
}

impl Payload {
    pub(super) fn new(bytes: Bytes, sent: IntCounter, deadline: Arc<Deadline>) -> Self {
        Self { rest: bytes, sent, deadline }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.rest.len().min(PIECE);
        self.sent.inc_by(u64::try_from(size).unwrap_or(u64::MAX));
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.deadline.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn pieces_add_up_and_are_counted() {
        let sent = IntCounter::new("sent", "sent").unwrap();
        let bytes = Bytes::from((0..200_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<u8>>());
        let body = Payload::new(bytes.clone(), sent.clone(), Arc::default());
        assert_eq!(body.size_hint().exact(), Some(800_000));
        assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
        assert_eq!(sent.get(), 800_000);
    }

    #[tokio::test]
    async fn a_deadline_passes_only_while_a_request_runs() {
        let deadline = Arc::new(Deadline::default());
        let soon = Duration::from_millis(10);
        deadline.begin(Instant::now() + soon);
        drop(Payload::new(Bytes::new(), IntCounter::new("sent", "sent").unwrap(), deadline.clone()));
        assert!(deadline.had_request());
        assert!(tokio::time::timeout(5 * soon, deadline.passed()).await.is_err());
        deadline.begin(Instant::now() + soon);
        tokio::time::timeout(Duration::from_secs(5), deadline.passed()).await.unwrap();
    }
}
