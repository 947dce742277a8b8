//! Paths that let packets of some sizes pass, by a clock of their own.

use super::*;
use crate::collector::path::plan::Layer;

const SECOND: Nanos = 1_000_000_000;
const STEP: Nanos = SECOND / 4;

fn mtus() -> Mtus {
    Mtus::new(Duration::from_secs(1))
}

fn key() -> PathKey {
    PathKey { peer: "node2".into(), layer: Layer::Underlay }
}

/// A path, and what the search says of it.
struct Path {
    mtus: Mtus,
    now: Nanos,
    sequence: u32,
    promise: Promise,
    /// Each size that was sent.
    sizes: Vec<u32>,
    changes: Vec<HoleChange>,
}

impl Path {
    fn promised(size: u32) -> Self {
        Self {
            mtus: mtus(),
            now: SECOND,
            sequence: 0,
            promise: Promise { size, is_reachable: true },
            sizes: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Goes on for so many seconds while packets pass of which this is true: of their size and number.
    fn run(&mut self, seconds: u64, passes: impl Fn(u32, u32) -> bool) {
        let end = self.now + seconds * SECOND;
        while self.now < end {
            self.mtus.follow(&BTreeMap::from([(key(), self.promise)]), self.now, |_| 0);
            let (due, changes) = self.mtus.due(self.now);
            self.changes.extend(changes.into_iter().map(|(_, change)| change));
            for Due { path, size } in due {
                self.sequence += 1;
                self.sizes.push(size);
                self.mtus.sent(&path, self.sequence, self.now);
                if passes(size, self.sequence) {
                    self.changes.extend(self.mtus.hear(&path, self.sequence, self.now + 1));
                }
            }
            self.now += STEP;
        }
    }

    fn sizes(&self) -> Sizes {
        self.mtus.iter().next().unwrap().1
    }
}

#[test]
fn a_path_that_keeps_its_promise_costs_a_packet_a_minute() {
    let mut path = Path::promised(1_500);
    path.run(600, |_, _| true);
    assert_eq!(path.sizes, [1_500; 10]);
    assert_eq!(path.sizes(), Sizes { promised: 1_500, passes: Some(1_500), is_hole: Some(false) });
    assert_eq!(path.changes, []);
}

#[test]
fn a_hole_is_found_to_the_byte_and_told_once() {
    for limit in [SMALLEST, 1_279, 1_280, 1_400, 1_499] {
        let mut path = Path::promised(1_500);
        path.run(300, |size, _| size <= limit);
        assert_eq!(path.sizes(), Sizes { promised: 1_500, passes: Some(limit), is_hole: Some(true) });
        assert_eq!(path.changes, [HoleChange { is_open: true, promised: 1_500, passes: limit }]);
    }
}

#[test]
fn a_hole_is_found_within_half_a_minute_and_with_few_packets() {
    let mut path = Path::promised(1_500);
    path.run(30, |size, _| size <= 1_400);
    assert_eq!(path.changes.len(), 1);
    assert!(path.sizes.len() < 40, "{}", path.sizes.len());
}

#[test]
fn a_hole_that_closes_is_told() {
    let mut path = Path::promised(1_500);
    path.run(60, |size, _| size <= 1_400);
    path.run(120, |_, _| true);
    let closed = HoleChange { is_open: false, promised: 1_500, passes: 1_500 };
    assert_eq!(path.changes.last(), Some(&closed));
    assert_eq!(path.sizes().is_hole, Some(false));
}

/// The kernel knows of it after so many seconds: the second search would be at its end by then.
#[test]
fn what_a_router_tells_is_no_hole() {
    for (limit, known_after) in [(1_400, 5), (1_499, 12)] {
        let mut path = Path::promised(1_500);
        path.run(known_after, |size, _| size <= limit);
        path.promise.size = limit;
        path.run(120, |size, _| size <= limit);
        let sizes = Sizes { promised: limit, passes: Some(limit), is_hole: Some(false) };
        assert_eq!((path.sizes(), &path.changes[..]), (sizes, &[][..]), "{limit}");
    }
}

#[test]
fn losses_at_random_are_no_hole() {
    let mut path = Path::promised(1_500);
    path.run(3_600, |_, number| number % 3 == 0);
    assert_eq!((path.sizes().is_hole, path.changes.len()), (Some(false), 0));
}

#[test]
fn nothing_is_asked_of_a_path_without_answers() {
    let mut path = Path::promised(1_500);
    path.promise.is_reachable = false;
    path.run(300, |_, _| false);
    assert_eq!((path.sizes.len(), path.sizes().passes), (0, None));
    // One that is lost in the middle of a search has no hole by that.
    path.promise.is_reachable = true;
    path.run(4, |_, _| false);
    path.promise.is_reachable = false;
    path.run(60, |_, _| false);
    path.promise.is_reachable = true;
    path.run(60, |_, _| true);
    assert_eq!((path.sizes().passes, path.changes.len()), (Some(1_500), 0));
}

#[test]
fn an_answer_that_comes_too_late_says_nothing() {
    let mut mtus = mtus();
    let promise = Promise { size: 1_500, is_reachable: true };
    mtus.follow(&BTreeMap::from([(key(), promise)]), 0, |_| 0);
    assert_eq!(mtus.due(0).0, [Due { path: key(), size: 1_500 }]);
    mtus.sent(&key(), 1, 0);
    assert_eq!(mtus.due(TIMEOUT).0, [Due { path: key(), size: 1_500 }]);
    mtus.sent(&key(), 2, TIMEOUT);
    assert_eq!(mtus.hear(&key(), 1, TIMEOUT + 1), None);
    assert_eq!(mtus.iter().next().unwrap().1.passes, None);
}

#[test]
fn first_checks_are_spread() {
    let mut mtus = mtus();
    let promise = Promise { size: 1_500, is_reachable: true };
    mtus.follow(&BTreeMap::from([(key(), promise)]), 0, |_| 5 * SECOND);
    assert_eq!(mtus.due(4 * SECOND).0, []);
    assert_eq!(mtus.due(5 * SECOND).0, [Due { path: key(), size: 1_500 }]);
    mtus.follow(&BTreeMap::new(), 5 * SECOND, |_| 0);
    assert_eq!(mtus.iter().count(), 0);
}

#[test]
fn large_packets_are_as_rare_as_small_ones_are_quick() {
    let every = |interval| Mtus::new(Duration::from_millis(interval)).every;
    assert_eq!([1_000, 60_000, 10].map(every), [60 * SECOND, 3_600 * SECOND, SHORTEST]);
}
