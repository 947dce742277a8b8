//! What the probes of each path have told. Pure: what was sent and heard with its times in, changes out.
//!
//! Times of two nodes are never subtracted from each other, but for jitter, where only their change counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::flight::{Answer, Direction, Discard, Flight, Number};
use super::plan::PathKey;
use crate::collector::rtt::RoundTrips;
use crate::collector::vip::happening::Nanos;

/// Round trips of which the median is told.
const RECENT: usize = 64;
/// Round trips that wait for the reflector's word when its answer really left.
const HELD_MAX: usize = 4;
/// So many probes in a row that are not answered are no accident.
const SILENT: u32 = 3;
/// By how much the clocks of two nodes may drift apart between two probes.
const DRIFT: i64 = 1_000_000;

/// An answer of a reflector, with the times of RFC 8762 in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Our number.
    pub sequence: u32,
    /// The reflector's number.
    pub reflector: u32,
    /// Whether the reflector shows that it counts what it answers: another one repeats our number.
    pub is_counted: bool,
    /// When the probe came there, by its clock.
    pub received: u64,
    /// When the answer was made there, by its clock.
    pub sent: u64,
    /// When the answer came here.
    pub arrived: u64,
    /// The reflector's number of an earlier answer, and when that really left.
    pub follow_up: Option<(u32, u64)>,
}

/// Why an answer is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Its code is missing or wrong.
    Unauthenticated,
    /// It is no packet of STAMP.
    Malformed,
    /// Nothing was asked there, or it comes after its loss was told.
    Unexpected,
}

impl Ignored {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Unauthenticated, Self::Malformed, Self::Unexpected];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Malformed => "malformed",
            Self::Unexpected => "unexpected",
        }
    }
}

/// A path that was lost, or is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: PathKey,
    /// When the first probe was sent that was not answered; none once one is.
    pub lost_at: Option<Nanos>,
    /// How long it had been lost.
    pub lasted: Option<Nanos>,
}

/// The four times of a probe: left, received, sent, arrived.
#[derive(Clone, Copy, Debug)]
struct Round {
    reflector: u32,
    left: u64,
    received: u64,
    sent: u64,
    arrived: u64,
}

impl Round {
    /// The time on the wire; none where a clock was set in between.
    fn rtt(&self) -> Option<u64> {
        let residence = self.sent.checked_sub(self.received)?;
        self.arrived.checked_sub(self.left)?.checked_sub(residence)
    }

    /// The way there and the way back, each wrong by what the clocks differ.
    fn transits(&self) -> [i64; 2] {
        [(self.received, self.left), (self.arrived, self.sent)]
            .map(|(to, from)| to.wrapping_sub(from).cast_signed())
    }
}

/// Smoothed change of the time of transit (RFC 3550, 6.4.1), on the way there and on the way back.
#[derive(Clone, Copy, Debug, Default)]
struct Jitter {
    seconds: Option<[f64; 2]>,
    last: Option<([i64; 2], i64)>,
}

impl Jitter {
    fn observe(&mut self, transits: [i64; 2], rtt: u64) {
        let rtt = i64::try_from(rtt).unwrap_or(i64::MAX);
        let Some((before, rtt_before)) = self.last.replace((transits, rtt)) else { return };
        let changes = [0, 1].map(|way: usize| transits[way].abs_diff(before[way]));
        // Neither way can have changed by more than both take: somebody has set a clock.
        let most = rtt.max(rtt_before).saturating_add(DRIFT).unsigned_abs();
        if changes.iter().any(|change| *change > most) {
            return;
        }
        let old = self.seconds.unwrap_or_default();
        let smoothed = |way: usize| old[way] + (seconds(changes[way]) - old[way]) / 16.0;
        self.seconds = Some([smoothed(0), smoothed(1)]);
    }
}

/// One path, as it was probed.
#[derive(Debug)]
pub(super) struct Path {
    address: IpAddr,
    flight: Flight,
    held: VecDeque<Round>,
    recent: VecDeque<u64>,
    jitter: Jitter,
    /// Probes in a row that were not answered, and when the first of them was sent.
    silent: u32,
    silent_since: Option<Nanos>,
    /// Since when the path is lost, once that was told.
    lost_since: Option<Nanos>,
    /// Probes sent.
    pub(super) sent: u64,
    /// In the order of [`Direction::ALL`].
    pub(super) lost: [u64; Direction::ALL.len()],
    /// In the order of [`Discard::ALL`].
    pub(super) discarded: [u64; Discard::ALL.len()],
    /// Answers that came after that to a later probe.
    pub(super) reordered: u64,
    /// Further answers to one probe.
    pub(super) duplicates: u64,
    /// Round trips.
    pub(super) rtt: RoundTrips,
    /// Whether the last answer shows that the reflector counts, without which no loss has a direction.
    pub(super) is_counted: bool,
    /// Whether the last probes were answered; none before the first of them are decided.
    pub(super) is_reachable: Option<bool>,
}

impl Path {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            flight: Flight::default(),
            held: VecDeque::new(),
            recent: VecDeque::new(),
            jitter: Jitter::default(),
            silent: 0,
            silent_since: None,
            lost_since: None,
            sent: 0,
            lost: Default::default(),
            discarded: Default::default(),
            reordered: 0,
            duplicates: 0,
            rtt: RoundTrips::default(),
            is_counted: false,
            is_reachable: None,
        }
    }

    /// The median of the last round trips in seconds.
    pub(super) fn median(&self) -> Option<f64> {
        let mut sorted: Vec<u64> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).map(|median| seconds(*median))
    }

    /// Jitter there and back in seconds.
    pub(super) const fn jitter(&self) -> Option<[f64; 2]> {
        self.jitter.seconds
    }

    /// Answers whether the path is back, and since when it had been lost.
    fn hear(&mut self, heard: &Heard, now: Nanos) -> Result<Option<Nanos>, Ignored> {
        let number = Number { value: heard.reflector, is_counted: heard.is_counted };
        match self.flight.answer(heard.sequence, number) {
            Answer::Stray => return Err(Ignored::Unexpected),
            Answer::Duplicate => {
                self.duplicates += 1;
                return Ok(None);
            }
            Answer::First { sent, left, has_stepped, is_reordered } => {
                self.reordered += u64::from(is_reordered);
                self.is_counted = heard.is_counted;
                self.follow_up(heard.follow_up);
                // A clock may be set after the last question whether it was, and before the answer came.
                let is_longer = heard.arrived.saturating_sub(left) > now.saturating_sub(sent);
                if has_stepped || is_longer {
                    self.discard_step();
                } else {
                    let Heard { reflector, received, sent, arrived, .. } = *heard;
                    self.held.push_back(Round { reflector, left, received, sent, arrived });
                }
                if self.held.len() > HELD_MAX {
                    self.finish(1);
                }
            }
        }
        (self.silent, self.silent_since, self.is_reachable) = (0, None, Some(true));
        Ok(self.lost_since.take())
    }

    /// The reflector says when an answer really left: that, and those before, are complete.
    fn follow_up(&mut self, follow_up: Option<(u32, u64)>) {
        let Some((reflector, at)) = follow_up else { return };
        let Some(place) = self.held.iter().position(|round| round.reflector == reflector) else { return };
        if let Some(round) = self.held.get_mut(place) {
            round.sent = round.sent.max(at);
        }
        self.finish(place + 1);
    }

    fn finish(&mut self, count: usize) {
        for _ in 0..count {
            let Some(round) = self.held.pop_front() else { return };
            let Some(rtt) = round.rtt() else {
                self.discard_step();
                continue;
            };
            self.rtt.observe(seconds(rtt));
            self.jitter.observe(round.transits(), rtt);
            self.recent.push_back(rtt);
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
    }

    fn discard_step(&mut self) {
        let [_, steps] = &mut self.discarded;
        *steps += 1;
    }

    /// Answers since when the path is lost, if it is lost from now on.
    fn settle(&mut self, now: Nanos) -> Option<Nanos> {
        let settled = self.flight.settle(now);
        add(&mut self.lost, settled.lost);
        add(&mut self.discarded, settled.discarded);
        if settled.missed == 0 {
            return None;
        }
        self.silent = self.silent.saturating_add(settled.missed);
        self.silent_since = self.silent_since.or(settled.missed_since);
        if self.silent < SILENT {
            return None;
        }
        // Nothing may follow up what is held.
        self.finish(HELD_MAX);
        // Of a peer that has never answered nothing is lost.
        if self.is_reachable.replace(false) == Some(true) {
            self.lost_since = self.silent_since;
            return self.lost_since;
        }
        None
    }
}

/// All paths of this node.
#[derive(Debug, Default)]
pub struct State {
    paths: BTreeMap<PathKey, Path>,
    /// Answers that were not used, in the order of [`Ignored::ALL`].
    pub(super) ignored: [u64; Ignored::ALL.len()],
    /// Whether there are other nodes, of which this one may probe none.
    pub(super) has_nodes: bool,
}

impl State {
    /// What is probed now; what is not probed any more is forgotten. Another address begins numbers anew.
    pub fn follow(&mut self, paths: &BTreeMap<PathKey, IpAddr>, has_nodes: bool) {
        self.has_nodes = has_nodes;
        self.paths.retain(|key, _| paths.contains_key(key));
        for (key, address) in paths {
            let path = self.paths.entry(key.clone()).or_insert_with(|| Path::new(*address));
            if path.address != *address {
                path.address = *address;
                (path.flight, path.held) = Default::default();
            }
        }
    }

    /// A probe is about to be sent, at that time of both clocks; answers with its number.
    pub fn send(&mut self, key: &PathKey, now: Nanos, left: u64) -> Option<u32> {
        let path = self.paths.get_mut(key)?;
        path.sent += 1;
        Some(path.flight.send(now, left))
    }

    /// The kernel says when a probe left.
    pub fn transmitted(&mut self, key: &PathKey, sequence: u32, at: u64) {
        if let Some(path) = self.paths.get_mut(key) {
            path.flight.transmitted(sequence, at);
        }
    }

    /// An answer came.
    pub fn hear(&mut self, key: &PathKey, heard: &Heard, now: Nanos) -> Option<Change> {
        let Some(path) = self.paths.get_mut(key) else {
            self.ignore(Ignored::Unexpected);
            return None;
        };
        match path.hear(heard, now) {
            Ok(since) => {
                let lasted = now.saturating_sub(since?);
                Some(Change { path: key.clone(), lost_at: None, lasted: Some(lasted) })
            }
            Err(ignored) => {
                self.ignore(ignored);
                None
            }
        }
    }

    /// An answer was not used.
    pub fn ignore(&mut self, ignored: Ignored) {
        for (reason, count) in Ignored::ALL.iter().zip(&mut self.ignored) {
            *count += u64::from(*reason == ignored);
        }
    }

    /// What is under way may be wrong by no fault of the network.
    pub fn excuse(&mut self, reason: Discard) {
        for path in self.paths.values_mut() {
            path.flight.excuse(reason);
        }
    }

    /// Time has passed.
    pub fn settle(&mut self, now: Nanos) -> Vec<Change> {
        let lost = self.paths.iter_mut().filter_map(|(key, path)| {
            path.settle(now).map(|at| Change { path: key.clone(), lost_at: Some(at), lasted: None })
        });
        lost.collect()
    }

    /// The paths whose probes are answered.
    #[must_use]
    pub fn reachable(&self) -> BTreeSet<PathKey> {
        let answered = self.paths.iter().filter(|(_, path)| path.is_reachable == Some(true));
        answered.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn paths(&self) -> impl ExactSizeIterator<Item = (&PathKey, &Path)> + Clone {
        self.paths.iter()
    }
}

fn add<const N: usize>(into: &mut [u64; N], more: [u64; N]) {
    for (sum, more) in into.iter_mut().zip(more) {
        *sum += more;
    }
}

#[expect(clippy::cast_precision_loss, reason = "round trips have far fewer than 2^52 nanoseconds")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
