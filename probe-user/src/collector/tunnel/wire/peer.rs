//! What is counted of a peer, over all its addresses.

use crate::collector::rtt::RoundTrips;
use crate::collector::vip::happening::Nanos;
use crate::event::Timestamp;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::collector::tunnel) struct Totals {
    /// Round trips of pings.
    pub(in crate::collector::tunnel) rtt: RoundTrips,
    /// Pings that were answered.
    pub(in crate::collector::tunnel) answered: u64,
    /// Pings that were not, to addresses that had answered before.
    pub(in crate::collector::tunnel) unanswered: u64,
    /// The last round trip of a handshake.
    pub(in crate::collector::tunnel) handshake_rtt: Option<Nanos>,
    /// When the last handshake was complete.
    pub(in crate::collector::tunnel) handshake: Option<Timestamp>,
}

impl Totals {
    /// Adds what was counted later.
    pub(super) fn add(&mut self, more: &Self) {
        self.rtt.add(&more.rtt);
        self.answered += more.answered;
        self.unanswered += more.unanswered;
        self.handshake_rtt = more.handshake_rtt.or(self.handshake_rtt);
        self.handshake = more.handshake.max(self.handshake);
    }
}
