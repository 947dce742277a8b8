//! What is known of the network and whether it is kept current, shared by the feed that fills it and all who read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::NetworkFacts;

/// The snapshot outlives the feed that made it: after a failure it stands, marked as no longer current, until the next
/// feed replaces it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct NetworkState {
    facts: watch::Sender<Arc<NetworkFacts>>,
    current: watch::Sender<bool>,
    resyncs: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
}

impl NetworkState {
    /// The snapshot, now and whenever it changes.
    #[must_use]
    pub fn facts(&self) -> watch::Receiver<Arc<NetworkFacts>> {
        self.facts.subscribe()
    }

    /// Whether the snapshot is kept current. Marked as changed by every failure, also by one that follows another.
    #[must_use]
    pub fn current(&self) -> watch::Receiver<bool> {
        self.current.subscribe()
    }

    /// How often notifications were lost (`ENOBUFS`) and every table was read again.
    #[must_use]
    pub fn resyncs(&self) -> u64 {
        self.resyncs.load(Ordering::Relaxed)
    }

    /// How often a feed broke or could not be opened.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The snapshot of this moment, to be changed and published.
    pub(super) fn copy(&self) -> NetworkFacts {
        NetworkFacts::clone(&self.facts.borrow())
    }

    pub(super) fn publish(&self, facts: NetworkFacts) {
        self.facts.send_if_modified(|known| {
            let changed = **known != facts;
            if changed {
                *known = Arc::new(facts);
            }
            changed
        });
    }

    pub(super) fn resynced(&self) {
        self.resyncs.fetch_add(1, Ordering::Relaxed);
    }

    /// A feed is open: what was published last is current from here on.
    pub(super) fn followed(&self) {
        self.current.send_replace(true);
    }

    /// No feed is open.
    pub(super) fn lost(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.current.send_replace(false);
    }
}
