//! What has become of one virtual address: failovers with their phases, conflicts, duplicates.

use std::sync::Arc;
use std::time::Duration;

use super::happening::{Announcer, Cause, Failover, Happening, Nanos, Service};
use crate::wire::MacAddress;

/// Upper bounds of the phases of a failover in seconds.
pub(super) const PHASE_BOUNDS: [f64; 13] =
    [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 30.0];
/// A node with two links hears one failover twice.
const ONE_FAILOVER: Nanos = 1_000_000_000;
/// How long a duplicate is taken to be there after it was heard: nobody says that it is gone.
const DUPLICATE: Nanos = 60_000_000_000;

/// Times of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// Not cumulative, the last for everything above.
    pub(super) buckets: [u64; PHASE_BOUNDS.len() + 1],
    /// Sum in seconds.
    pub(super) sum: f64,
    /// The last one.
    pub(super) last: Option<f64>,
}

impl Phase {
    /// A phase of which one end is not known is not observed, and the last one is not that of an earlier failover.
    fn observe(&mut self, from: Option<Nanos>, to: Option<Nanos>) {
        self.last = None;
        let (Some(from), Some(to)) = (from, to) else { return };
        let seconds = Duration::from_nanos(to.saturating_sub(from)).as_secs_f64();
        let bucket = PHASE_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(PHASE_BOUNDS.len());
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
        self.last = Some(seconds);
    }
}

/// The last failover that was counted.
#[derive(Clone, Debug, PartialEq)]
struct Counted {
    interface: Arc<str>,
    to: Announcer,
    first: Nanos,
}

/// The history of one address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Failovers by cause, in the order of [`Cause::ALL`].
    pub(super) failovers: [u64; Cause::ALL.len()],
    /// From the old owner's last advertisement to the new owner's first.
    pub(super) detect: Phase,
    /// From there to the new owner's first announcement to its neighbours.
    pub(super) announce: Phase,
    /// From there to the first packet that the new owner served.
    pub(super) converge: Phase,
    /// From the last sign of the old owner to that packet.
    pub(super) total: Phase,
    /// Two routers that insisted.
    pub(super) conflicts: u64,
    /// Seconds that closed conflicts have lasted.
    pub(super) conflict_seconds: f64,
    /// Two routers of which one gave way at once.
    pub(super) brief: u64,
    /// Questions that this node asked while the address moved.
    pub(super) asked: u64,
    /// Times that a station that is no announcer said it has the address.
    pub(super) duplicates: u64,
    duplicate: Option<(MacAddress, Nanos)>,
    counted: Option<Counted>,
    /// When the address was last advertised.
    pub(super) advertised: Nanos,
}

impl History {
    /// The history of an address that was advertised now.
    pub(super) fn new(advertised: Nanos) -> Self {
        Self { advertised, ..Self::default() }
    }

    /// Writes down what happened on a link.
    pub(super) fn note(&mut self, interface: &Arc<str>, happening: &Happening) {
        match happening {
            Happening::Moved(failover) => self.moved(interface, failover),
            Happening::ConflictOpened(_) => self.conflicts += 1,
            Happening::ConflictClosed(conflict, until) => {
                let lasted = Duration::from_nanos(until.saturating_sub(conflict.since));
                self.conflict_seconds += lasted.as_secs_f64();
            }
            Happening::BriefDouble { .. } => self.brief += 1,
            Happening::Served(service) => self.served(service),
            Happening::Owned { .. }
            | Happening::Suspected
            | Happening::Lost { .. }
            | Happening::Returned { .. }
            | Happening::Foreign { .. }
            | Happening::Duplicated { .. } => {}
        }
    }

    fn moved(&mut self, interface: &Arc<str>, failover: &Failover) {
        let is_heard_again = self.counted.as_ref().is_some_and(|counted| {
            counted.interface != *interface
                && counted.to == failover.to
                && counted.first.abs_diff(failover.first) < ONE_FAILOVER
        });
        if is_heard_again {
            return;
        }
        self.counted =
            Some(Counted { interface: Arc::clone(interface), to: failover.to, first: failover.first });
        for (cause, count) in Cause::ALL.iter().zip(&mut self.failovers) {
            *count += u64::from(*cause == failover.cause);
        }
        self.detect.observe(failover.last, Some(failover.first));
        self.announce.observe(Some(failover.first), failover.announced);
        // Those of an earlier failover until the new owner serves.
        (self.converge.last, self.total.last) = (None, None);
    }

    fn served(&mut self, service: &Service) {
        self.converge.observe(service.announced, Some(service.first));
        self.total.observe(service.last, Some(service.first));
    }

    /// A station that is no announcer says that it has the address. Whether that is news.
    pub(super) fn duplicated(&mut self, station: MacAddress, time: Nanos) -> bool {
        let is_known = self.is_duplicated(time) && self.duplicate.is_some_and(|(known, _)| known == station);
        self.duplicates += 1;
        self.duplicate = Some((station, time));
        !is_known
    }

    /// Whether such a station was heard lately.
    #[must_use]
    pub fn is_duplicated(&self, now: Nanos) -> bool {
        self.duplicate.is_some_and(|(_, time)| now.saturating_sub(time) < DUPLICATE)
    }
}
