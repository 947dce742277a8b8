//! Which packets really pass a path. The kernel promises a size: the MTU of the device, or what a router has told of the
//! path. A packet of that size is sent now and then, which nobody may fragment; where it is never answered although small
//! ones are, the largest one that is answered is searched for. Pure: times and answers in, sizes to send and changes out.
//!
//! A path that loses packets at random must not look like one that loses large ones: a size has failed after
//! three of it are lost, and none counts while small ones are lost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::PathKey;
use crate::collector::vip::happening::Nanos;

/// The largest packet that is tried: a jumbo frame's.
pub const LARGEST: u32 = 9_216;
/// Smaller than any path's MTU, and larger than a probe without padding in either mode.
pub const SMALLEST: u32 = 256;
/// Packets of one size that are lost before it has failed.
const TRIES: u8 = 3;
/// After so long a packet is lost; an answer that comes later says nothing.
const TIMEOUT: Nanos = 1_000_000_000;
/// Between two checks of a path with a hole at most: whoever mends it wants to see that.
const EAGER: Nanos = 10_000_000_000;
/// Between two checks at least.
const SHORTEST: Nanos = 5_000_000_000;
/// Small probes for each large one.
const SHARE: u64 = 60;
/// A path without answers is looked at again after this.
const SOON: Nanos = 2_000_000_000;
/// Since the first loss, before a hole is told: the kernel's promise may come down by what a router tells, and is looked
/// up every ten seconds.
const PATIENCE: Nanos = 12_000_000_000;

/// What is known of a path otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The largest packet that the kernel would send there.
    pub size: u32,
    /// Whether small probes are answered.
    pub is_reachable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The promised size is tried.
    Check,
    /// The largest size that passes is between these: the first one does.
    Search { passes: u32, fails: u32 },
    /// The promised size is tried once more, when it may have come down.
    Confirm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    sequence: u32,
    size: u32,
    sent: Nanos,
}

/// The hole of a path was found, or is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoleChange {
    /// Whether it is there now.
    pub is_open: bool,
    /// What the kernel promises.
    pub promised: u32,
    /// What passes.
    pub passes: u32,
}

/// What is known of the sizes that pass one path.
#[derive(Clone, Debug)]
struct Search {
    /// Between two checks.
    every: Nanos,
    promised: u32,
    phase: Phase,
    lost: u8,
    /// When the promised size was first lost in this round.
    failed_at: Nanos,
    waiting: Option<Probe>,
    due: Nanos,
    /// The largest packet that passes; none before that is known.
    passes: Option<u32>,
    is_hole: Option<bool>,
}

impl Search {
    const fn new(promised: u32, every: Nanos, now: Nanos) -> Self {
        Self {
            every,
            promised,
            phase: Phase::Check,
            lost: 0,
            failed_at: 0,
            waiting: None,
            due: now,
            passes: None,
            is_hole: None,
        }
    }

    const fn begin(&mut self, phase: Phase, due: Nanos) {
        (self.phase, self.lost, self.waiting, self.due) = (phase, 0, None, due);
    }

    /// Another promise makes a new question, and leaves the last answer until that is answered.
    const fn promise(&mut self, promise: Promise, now: Nanos) {
        if promise.size != self.promised {
            self.promised = promise.size;
            self.begin(Phase::Check, now);
        }
        if !promise.is_reachable {
            self.begin(Phase::Check, now + SOON);
        }
    }

    const fn size(&self) -> u32 {
        match self.phase {
            Phase::Check | Phase::Confirm => self.promised,
            Phase::Search { passes, fails } => passes.midpoint(fails),
        }
    }

    /// Whether something is to be sent; what was waited for too long is lost.
    fn is_due(&mut self, now: Nanos) -> (bool, Option<HoleChange>) {
        let change = match self.waiting {
            Some(probe) if now.saturating_sub(probe.sent) < TIMEOUT => return (false, None),
            Some(_) => self.lose(now),
            None => None,
        };
        (self.waiting.is_none() && now >= self.due, change)
    }

    fn lose(&mut self, now: Nanos) -> Option<HoleChange> {
        let size = self.size();
        self.waiting = None;
        self.lost += 1;
        if self.lost < TRIES {
            return None;
        }
        match self.phase {
            Phase::Check => {
                self.failed_at = now;
                self.search(SMALLEST, size, now)
            }
            Phase::Search { passes, .. } => self.search(passes, size, now),
            Phase::Confirm => self.settle(true, now),
        }
    }

    /// An answer to a packet of that number.
    fn hear(&mut self, sequence: u32, now: Nanos) -> Option<HoleChange> {
        let probe = self.waiting.filter(|probe| probe.sequence == sequence)?;
        match self.phase {
            Phase::Check | Phase::Confirm => {
                self.passes = Some(probe.size);
                self.settle(false, now)
            }
            Phase::Search { fails, .. } => self.search(probe.size, fails, now),
        }
    }

    /// Goes on between these, until the largest size that passes is known.
    fn search(&mut self, passes: u32, fails: u32, now: Nanos) -> Option<HoleChange> {
        if passes + 1 < fails {
            self.begin(Phase::Search { passes, fails }, now);
        } else {
            self.passes = Some(passes);
            self.begin(Phase::Confirm, now.max(self.failed_at + PATIENCE));
        }
        None
    }

    fn settle(&mut self, is_hole: bool, now: Nanos) -> Option<HoleChange> {
        let pause = if is_hole { self.every.min(EAGER) } else { self.every };
        self.begin(Phase::Check, now + pause);
        let was_hole = self.is_hole.replace(is_hole).unwrap_or(false);
        let passes = self.passes?;
        (was_hole != is_hole).then_some(HoleChange { is_open: is_hole, promised: self.promised, passes })
    }
}

/// A packet that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Where to.
    pub path: PathKey,
    /// Its bytes, the header of IP included.
    pub size: u32,
}

/// What a path's packets may be as large as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// What the kernel promises.
    pub(super) promised: u32,
    /// The largest packet that passes both ways.
    pub(super) passes: Option<u32>,
    /// Whether more is promised than passes.
    pub(super) is_hole: Option<bool>,
}

/// The searches of all paths.
#[derive(Debug)]
pub struct Mtus {
    every: Nanos,
    searches: BTreeMap<PathKey, Search>,
}

impl Mtus {
    /// No path yet, of which each is probed with small packets at that interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(Nanos::MAX);
        Self { every: interval.saturating_mul(SHARE).max(SHORTEST), searches: BTreeMap::new() }
    }

    /// The promises of now. A path of which there is none is forgotten. The first checks are spread by `spread`, from a
    /// path to a time.
    pub fn follow(
        &mut self,
        promises: &BTreeMap<PathKey, Promise>,
        now: Nanos,
        spread: impl Fn(&PathKey) -> Nanos,
    ) {
        self.searches.retain(|path, _| promises.contains_key(path));
        for (path, promise) in promises {
            let new = || Search::new(promise.size, self.every, now + spread(path));
            self.searches.entry(path.clone()).or_insert_with(new).promise(*promise, now);
        }
    }

    /// What is to be sent now.
    pub fn due(&mut self, now: Nanos) -> (Vec<Due>, Vec<(PathKey, HoleChange)>) {
        let (mut due, mut changes) = (Vec::new(), Vec::new());
        for (path, search) in &mut self.searches {
            let (is_due, change) = search.is_due(now);
            due.extend(is_due.then(|| Due { path: path.clone(), size: search.size() }));
            changes.extend(change.map(|change| (path.clone(), change)));
        }
        (due, changes)
    }

    /// A packet of that number was sent.
    pub fn sent(&mut self, path: &PathKey, sequence: u32, now: Nanos) {
        if let Some(search) = self.searches.get_mut(path) {
            search.waiting = Some(Probe { sequence, size: search.size(), sent: now });
        }
    }

    /// It was answered.
    pub fn hear(&mut self, path: &PathKey, sequence: u32, now: Nanos) -> Option<HoleChange> {
        self.searches.get_mut(path)?.hear(sequence, now)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PathKey, Sizes)> {
        self.searches.iter().map(|(path, search)| {
            let Search { promised, passes, is_hole, .. } = *search;
            (path, Sizes { promised, passes, is_hole })
        })
    }
}

#[cfg(test)]
mod tests;
