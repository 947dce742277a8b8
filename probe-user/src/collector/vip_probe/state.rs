//! What became of the probes of each service, and what changed for good. Pure: outcomes with their times in, changes
//! out.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::plan::{Plan, Target};
use crate::collector::vip::happening::Nanos;
use crate::config::ProbeKind;
use crate::source::vip_probe::{Outcome, Verdict};

/// Upper bounds of the phases of a probe in seconds. A handshake whose first packet was lost takes one more than usual.
pub(super) const PHASE_BOUNDS: [f64; 7] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.0];

/// Times of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Phase {
    /// Not cumulative, the last for everything above.
    pub(super) buckets: [u64; PHASE_BOUNDS.len() + 1],
    /// Sum in seconds.
    pub(super) sum: f64,
}

impl Phase {
    fn observe(&mut self, time: Option<Duration>) {
        let Some(seconds) = time.map(|time| time.as_secs_f64()) else { return };
        let bucket = PHASE_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(PHASE_BOUNDS.len());
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
    }
}

/// What changed, once two probes in a row had said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// When the first of the two began.
    pub at: Nanos,
    /// What the second one found.
    pub verdict: Verdict,
    /// How long what is over now had lasted.
    pub lasted: Option<Nanos>,
}

/// What can change about a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It does not answer this node any more.
    Unreachable,
    /// It answers again.
    Reachable,
    /// This node has its address, and it does not answer.
    Unserved,
    /// It answers again, on this node.
    Served,
}

/// A trouble that two probes in a row open, and two close: a single lost packet is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trouble {
    since: Option<Nanos>,
    /// The first probe that said otherwise.
    doubt: Option<Nanos>,
}

/// A trouble that was opened, or closed after so long.
type Turn = (Nanos, Option<Nanos>);

impl Trouble {
    fn observe(&mut self, is_bad: bool, now: Nanos) -> Option<Turn> {
        if is_bad == self.since.is_some() {
            self.doubt = None;
            return None;
        }
        let Some(first) = self.doubt.take() else {
            self.doubt = Some(now);
            return None;
        };
        let before = std::mem::replace(&mut self.since, is_bad.then_some(first));
        Some((first, before.map(|since| first.saturating_sub(since))))
    }
}

/// A service, as it was probed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probed {
    target: Target,
    /// It has accepted a connection of this node once.
    has_accepted: bool,
    /// Probes in a row, before it ever did.
    failures: u32,
    /// Probes by verdict, in the order of [`Verdict::ALL`].
    pub(super) counts: [u64; Verdict::ALL.len()],
    phases: [Phase; 3],
    /// Whether the last probe found it as it must be; none if that probe says nothing about it.
    pub(super) is_reachable: Option<bool>,
    /// Of the last handshake.
    pub(super) not_after: Option<u64>,
    /// Whether it did not serve a probe during which this node had its address.
    pub(super) is_unserved: Option<bool>,
    unreachable: Trouble,
    unserved: Trouble,
}

impl Probed {
    fn new(target: Target) -> Self {
        Self {
            target,
            has_accepted: false,
            failures: 0,
            counts: Default::default(),
            phases: Default::default(),
            is_reachable: None,
            not_after: None,
            is_unserved: None,
            unreachable: Trouble::default(),
            unserved: Trouble::default(),
        }
    }

    /// Whether there is a service to speak of.
    pub(super) const fn is_known(&self) -> bool {
        self.target.is_listed || self.has_accepted
    }

    /// The phases that its probes have.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, &Phase)> {
        let count = match self.target.kind {
            ProbeKind::Tcp => 1,
            ProbeKind::Tls => 2,
            ProbeKind::Https => 3,
        };
        ["connect", "tls", "http"].into_iter().zip(&self.phases).take(count)
    }

    fn record(&mut self, outcome: &Outcome, is_held: Option<bool>, begun: Nanos) -> Vec<Change> {
        for (verdict, count) in Verdict::ALL.iter().zip(&mut self.counts) {
            *count += u64::from(*verdict == outcome.verdict);
        }
        for (phase, time) in self.phases.iter_mut().zip([outcome.connect, outcome.tls, outcome.http]) {
            phase.observe(time);
        }
        self.has_accepted |= outcome.connect.is_some();
        self.failures = if self.is_known() { 0 } else { self.failures.saturating_add(1) };
        self.not_after = outcome.not_after.or(self.not_after);
        self.is_reachable = outcome.verdict.is_served();
        self.is_unserved = self.is_reachable.filter(|_| is_held == Some(true)).map(|is_served| !is_served);
        if is_held != Some(true) {
            self.unserved = Trouble::default();
        }
        if self.is_known() { self.changes(outcome.verdict, begun) } else { Vec::new() }
    }

    fn changes(&mut self, verdict: Verdict, begun: Nanos) -> Vec<Change> {
        let change = |kinds: [ChangeKind; 2], turn: Option<Turn>| {
            turn.map(|(at, lasted)| {
                let [opened, closed] = kinds;
                Change { kind: if lasted.is_some() { closed } else { opened }, at, verdict, lasted }
            })
        };
        let unreachable =
            self.is_reachable.and_then(|is_reachable| self.unreachable.observe(!is_reachable, begun));
        let unserved = self.is_unserved.and_then(|is_unserved| self.unserved.observe(is_unserved, begun));
        let unreachable = change([ChangeKind::Unreachable, ChangeKind::Reachable], unreachable);
        let unserved = change([ChangeKind::Unserved, ChangeKind::Served], unserved);
        unreachable.into_iter().chain(unserved).collect()
    }
}

/// All that was probed by this node.
#[derive(Debug, Default)]
pub struct State {
    probed: BTreeMap<SocketAddr, Probed>,
    /// Services that any node probes, and how many more are left out.
    planned: usize,
    ignored: usize,
}

impl State {
    /// What is probed now, and which of it by this node. What is not probed any more is forgotten.
    pub fn follow(&mut self, plan: &Plan, is_ours: impl Fn(&SocketAddr) -> bool) {
        (self.planned, self.ignored) = (plan.targets.len(), plan.ignored);
        self.probed.retain(|place, _| plan.targets.contains_key(place) && is_ours(place));
        for (place, target) in plan.targets.iter().filter(|(place, _)| is_ours(place)) {
            self.probed.entry(*place).or_insert_with(|| Probed::new(*target));
        }
    }

    /// What a probe has brought that began then. `is_held` says whether this node had the address all the while; none if
    /// that is not known. A service that is not probed any more has no outcomes.
    pub fn record(
        &mut self,
        place: &SocketAddr,
        outcome: &Outcome,
        is_held: Option<bool>,
        begun: Nanos,
    ) -> Vec<Change> {
        self.probed.get_mut(place).map(|probed| probed.record(outcome, is_held, begun)).unwrap_or_default()
    }

    /// Whether there is a service to speak of.
    #[must_use]
    pub fn is_known(&self, place: &SocketAddr) -> bool {
        self.probed.get(place).is_some_and(Probed::is_known)
    }

    /// The services of an address that there are to speak of.
    #[must_use]
    pub fn services(&self, address: IpAddr) -> Vec<SocketAddr> {
        let known = self.probed.iter().filter(|(place, probed)| place.ip() == address && probed.is_known());
        known.map(|(place, _)| *place).collect()
    }

    /// Probes in a row of a port that never accepted a connection.
    #[must_use]
    pub fn failures(&self, place: &SocketAddr) -> u32 {
        self.probed.get(place).map_or(0, |probed| probed.failures)
    }

    /// The services of which there is something to say.
    pub(super) fn known(&self) -> impl Iterator<Item = (&SocketAddr, &Probed)> + Clone {
        self.probed.iter().filter(|(_, probed)| probed.is_known())
    }

    /// How many services are probed by any node, by this one, and left out by all.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.planned, self.probed.len(), self.ignored)
    }
}
