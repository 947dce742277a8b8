//! One router that advertises a virtual router, by its own address.

use std::net::IpAddr;
use std::time::Duration;

use super::happening::Nanos;
use crate::wire::MacAddress;

/// Upper bounds of the ratio of a gap to the interval. A backup takes over at a little more than 3.
pub const GAP_BOUNDS: [f64; 8] = [1.05, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 10.0];

/// Gaps between advertisements over the interval, by bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gaps {
    /// Not cumulative, the last for everything above.
    pub buckets: [u64; GAP_BOUNDS.len() + 1],
    /// Sum of the ratios.
    pub sum: f64,
}

impl Gaps {
    fn observe(&mut self, ratio: f64) {
        let bucket = GAP_BOUNDS.iter().position(|bound| ratio <= *bound).unwrap_or(GAP_BOUNDS.len());
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum += ratio;
    }
}

/// One advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// When it passed the tap.
    pub time: Nanos,
    /// Who advertises.
    pub source: IpAddr,
    /// To whom: the group, or a unicast peer.
    pub destination: IpAddr,
    /// The frame's source.
    pub mac: Option<MacAddress>,
    /// 0 is a goodbye.
    pub priority: u8,
    /// As advertised; absent in packets of version 2 with an interval of 0.
    pub interval: Option<Duration>,
    /// The virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Sent by this node.
    pub local: bool,
}

/// What is known of a router.
#[derive(Clone, Debug)]
pub struct Router {
    mac: Option<MacAddress>,
    /// The last one that was no goodbye.
    priority: Option<u8>,
    interval: Duration,
    addresses: Vec<IpAddr>,
    last: Nanos,
    destination: IpAddr,
    resigned: bool,
    local: bool,
    advertisements: u64,
    gaps: Gaps,
}

/// The interval of RFC 3768 and RFC 9568 where none was said.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

impl Router {
    /// A router that is not known yet.
    #[must_use]
    pub fn new(advert: &Advert) -> Self {
        Self {
            mac: advert.mac,
            priority: None,
            interval: advert.interval.unwrap_or(DEFAULT_INTERVAL),
            addresses: advert.addresses.clone(),
            last: advert.time,
            destination: advert.destination,
            resigned: false,
            local: advert.local,
            advertisements: 0,
            gaps: Gaps::default(),
        }
    }

    /// Whether this is the last advertisement once more, for another unicast peer: a router sends one to each, and who is
    /// the router sees them all.
    pub(super) fn is_copy(&self, advert: &Advert) -> bool {
        self.destination != advert.destination
            && self.resigned == (advert.priority == 0)
            && ratio(advert.time.saturating_sub(self.last), self.interval) < 0.5
    }

    /// Takes in an advertisement. Only the gaps of a router that is active are late advertisements: a backup is silent.
    pub(super) fn advertised(&mut self, advert: &Advert, is_active: bool) {
        if is_active && !self.resigned && self.advertisements > 0 && advert.priority != 0 {
            self.gaps.observe(ratio(advert.time.saturating_sub(self.last), self.interval));
        }
        self.advertisements += 1;
        self.last = advert.time;
        self.destination = advert.destination;
        self.mac = advert.mac;
        self.local = advert.local;
        self.resigned = advert.priority == 0;
        self.interval = advert.interval.unwrap_or(self.interval);
        if !self.resigned {
            self.priority = Some(advert.priority);
            self.addresses.clone_from(&advert.addresses);
        }
    }

    /// When it last advertised.
    #[must_use]
    pub const fn last(&self) -> Nanos {
        self.last
    }

    /// Whether its last word was a goodbye.
    #[must_use]
    pub const fn has_resigned(&self) -> bool {
        self.resigned
    }

    /// Whether it is this node.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.local
    }

    /// Where its frames come from, as far as that is known.
    #[must_use]
    pub const fn mac(&self) -> Option<MacAddress> {
        self.mac
    }

    /// Whether its frames come from this hardware address.
    #[must_use]
    pub fn has_mac(&self, mac: MacAddress) -> bool {
        self.mac == Some(mac)
    }

    /// The last priority that was no goodbye.
    #[must_use]
    pub const fn priority(&self) -> Option<u8> {
        self.priority
    }

    /// The interval that it advertises.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// The addresses that it advertises.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Advertisements so far.
    #[must_use]
    pub const fn advertisements(&self) -> u64 {
        self.advertisements
    }

    /// Gaps between them while it was active.
    #[must_use]
    pub const fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// Whether two advertisements are missing: no backup takes over before the third is, and jitter is never that
    /// large.
    #[must_use]
    pub fn is_silent(&self, now: Nanos) -> bool {
        self.resigned || ratio(now.saturating_sub(self.last), self.interval) > 2.5
    }

    /// Whether it said anything within four intervals, be it a goodbye.
    #[must_use]
    pub fn was_heard(&self, now: Nanos) -> bool {
        ratio(now.saturating_sub(self.last), self.interval) < 4.0
    }

    /// Whether it counts as the owner to its backups (RFC 9568, 6.1: three intervals and a skew of less than one).
    #[must_use]
    pub fn is_announcing(&self, now: Nanos) -> bool {
        !self.resigned && self.was_heard(now)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
fn ratio(gap: Nanos, interval: Duration) -> f64 {
    gap as f64 / interval.as_nanos().max(1) as f64
}
