//! Probes under way, and in which direction those were lost that did not come back.
//!
//! The reflector numbers what it answers. Between two answers its numbers say how many probes it got, and the sender's how
//! many there were: what it did not get was lost on the way there, what it got and is not here on the way back. So a
//! loss is told once a later probe was answered, and without one after [`HOLD`], as one of unknown direction. So is every
//! loss where the reflector is stateless: it repeats the sender's numbers (RFC 8762, 4.3.1), which say nothing.

use std::collections::VecDeque;

use crate::collector::vip::happening::Nanos;

/// A probe that is not answered by then is missed. Its answer may still come until the loss is told.
pub(super) const TIMEOUT: Nanos = 2_000_000_000;
/// How long it is waited for an answer that tells the direction, or for one of a reflector that has slept.
pub(super) const HOLD: Nanos = 10_000_000_000;
/// Probes under way at most: more than HOLD takes at the fastest pace.
const PROBES_MAX: usize = 8_192;

/// Where a probe was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// On the way to the peer.
    Forward,
    /// On the way back.
    Reverse,
    /// On one of both.
    Unknown,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Reverse, Self::Unknown];

    /// The value of the label `direction`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a probe says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// The agent itself did not run while it was under way, and no answer to it was found.
    Pause,
    /// Somebody set a clock while it was under way.
    ClockStep,
}

impl Discard {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Pause, Self::ClockStep];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::ClockStep => "clock_step",
        }
    }
}

/// A number of the reflector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: u32,
    /// Whether the answer shows that the reflector counts.
    pub(super) is_counted: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Waiting,
    Answered(Number),
    Missed,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    sent: Nanos,
    /// When it left, by the wall clock.
    left: u64,
    excuse: Option<Discard>,
    fate: Fate,
}

/// What an answer is to its probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The first one. A probe that was sent later may have been answered before.
    First { sent: Nanos, left: u64, has_stepped: bool, is_reordered: bool },
    /// One more.
    Duplicate,
    /// To no probe that is still waited for.
    Stray,
}

/// What was decided since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// In the order of [`Direction::ALL`].
    pub(super) lost: [u64; Direction::ALL.len()],
    /// In the order of [`Discard::ALL`].
    pub(super) discarded: [u64; Discard::ALL.len()],
    /// Probes that are missed now, without an excuse and without an answer to a later one.
    pub(super) missed: u32,
    /// When the first of them was sent.
    pub(super) missed_since: Option<Nanos>,
}

/// The probes of one path that are under way, or of which it is not known yet where they were lost.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// The number of the first of them.
    first: u32,
    probes: VecDeque<Probe>,
    /// How many of them, from the front, are older than [`TIMEOUT`].
    aged: usize,
    /// The reflector's number of the last answer before them.
    anchor: Option<u32>,
    /// The greatest number that was answered.
    newest: Option<u32>,
}

impl Flight {
    /// A probe is sent; answers with its number.
    pub(super) fn send(&mut self, now: Nanos, left: u64) -> u32 {
        let probe = Probe { sent: now, left, excuse: None, fate: Fate::Waiting };
        self.probes.push_back(probe);
        self.first.wrapping_add(u32::try_from(self.probes.len() - 1).unwrap_or(u32::MAX))
    }

    /// The kernel says when it really left.
    pub(super) fn transmitted(&mut self, sequence: u32, at: u64) {
        // One from before the probe itself is that of another probe with the same number of the kernel.
        if let Some(probe) = self.probe(sequence).filter(|probe| at >= probe.left) {
            probe.left = at;
        }
    }

    fn probe(&mut self, sequence: u32) -> Option<&mut Probe> {
        self.probes.get_mut(usize::try_from(sequence.wrapping_sub(self.first)).ok()?)
    }

    pub(super) fn answer(&mut self, sequence: u32, reflector: Number) -> Answer {
        let newest = self.newest;
        let Some(probe) = self.probe(sequence) else { return Answer::Stray };
        if matches!(probe.fate, Fate::Answered(_)) {
            return Answer::Duplicate;
        }
        probe.fate = Fate::Answered(reflector);
        let (sent, left) = (probe.sent, probe.left);
        let has_stepped = probe.excuse == Some(Discard::ClockStep);
        let is_reordered = newest.is_some_and(|newest| is_before(sequence, newest));
        if !is_reordered {
            self.newest = Some(sequence);
        }
        Answer::First { sent, left, has_stepped, is_reordered }
    }

    /// Whatever is under way now says nothing if it does not come back; after a clock step also if it does.
    pub(super) fn excuse(&mut self, reason: Discard) {
        for probe in self.probes.iter_mut().filter(|probe| matches!(probe.fate, Fate::Waiting)) {
            probe.excuse = probe.excuse.filter(|excuse| *excuse == Discard::ClockStep).or(Some(reason));
        }
    }

    /// Decides what can be decided at that time.
    pub(super) fn settle(&mut self, now: Nanos) -> Settled {
        let mut settled = Settled::default();
        self.age(now, &mut settled);
        while let Some((run, reflector)) = self.run() {
            self.conclude(run, reflector, &mut settled);
        }
        while self.probes.front().is_some_and(|probe| probe.sent + HOLD <= now) && self.aged > 0
            || self.probes.len() > PROBES_MAX
        {
            self.give_up(&mut settled);
        }
        settled
    }

    fn age(&mut self, now: Nanos, settled: &mut Settled) {
        while let Some(probe) = self.probes.get_mut(self.aged).filter(|probe| probe.sent + TIMEOUT <= now) {
            let number = self.first.wrapping_add(u32::try_from(self.aged).unwrap_or(u32::MAX));
            self.aged += 1;
            if matches!(probe.fate, Fate::Waiting) {
                probe.fate = Fate::Missed;
                // Who has answered a later one is not silent.
                let is_outlived = self.newest.is_some_and(|newest| is_before(number, newest));
                if probe.excuse.is_none() && !is_outlived {
                    settled.missed += 1;
                    settled.missed_since = settled.missed_since.or(Some(probe.sent));
                }
            }
        }
    }

    /// How many missed ones there are before the first answered one that is old enough, and the number of that.
    fn run(&self) -> Option<(usize, Number)> {
        self.probes.iter().take(self.aged).enumerate().find_map(|(place, probe)| match probe.fate {
            Fate::Answered(reflector) => Some((place, reflector)),
            Fate::Waiting | Fate::Missed => None,
        })
    }

    fn conclude(&mut self, run: usize, reflector: Number, settled: &mut Settled) {
        let (mut lost, all) = (0, i64::try_from(run).unwrap_or(i64::MAX));
        for probe in self.probes.drain(..=run).take(run) {
            lost += count(&probe, settled);
        }
        self.step(run + 1);
        let anchor = self.anchor.replace(reflector.value).filter(|_| reflector.is_counted);
        let arrived = anchor.map(|anchor| distance(anchor, reflector.value) - 1);
        let [forward, reverse, unknown] = &mut settled.lost;
        match arrived {
            // With discarded ones among them the number speaks of those as well.
            Some(0) => *forward += lost,
            Some(arrived) if arrived == all => *reverse += lost,
            Some(arrived @ 0..) if arrived < all && lost == run as u64 => {
                let arrived = arrived.unsigned_abs();
                *reverse += arrived;
                *forward += lost - arrived;
            }
            // The first answer of all, one out of its order, or a reflector that began anew or does not count.
            _ => *unknown += lost,
        }
    }

    /// The first one was lost somewhere; what the reflector says later cannot be compared any more.
    fn give_up(&mut self, settled: &mut Settled) {
        if let Some(probe) = self.probes.pop_front() {
            let is_answered = matches!(probe.fate, Fate::Answered(_));
            let lost = if is_answered { 0 } else { count(&probe, settled) };
            let [_, _, unknown] = &mut settled.lost;
            *unknown += lost;
            self.step(1);
            self.anchor = None;
        }
    }

    fn step(&mut self, by: usize) {
        self.aged = self.aged.saturating_sub(by);
        self.first = self.first.wrapping_add(u32::try_from(by).unwrap_or(u32::MAX));
    }
}

/// 1 for a probe that is lost; one with an excuse is discarded instead.
fn count(probe: &Probe, settled: &mut Settled) -> u64 {
    let Some(excuse) = probe.excuse else { return 1 };
    for (reason, count) in Discard::ALL.iter().zip(&mut settled.discarded) {
        *count += u64::from(*reason == excuse);
    }
    0
}

/// From one number to another; numbers begin again after the last.
fn distance(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from).cast_signed())
}

fn is_before(a: u32, b: u32) -> bool {
    distance(a, b) > 0
}
