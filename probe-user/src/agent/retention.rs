//! Ends the series of owners that are long gone.

use std::time::{Duration, Instant};

use crate::config::MIN_RETENTION;
use crate::identity::{Census, Owner};
use crate::ledger::{Ledger, SlotSource};

/// By then the slots of a removed cgroup have been carried over.
const SETTLED: Duration = MIN_RETENTION;
/// Pods that are gone and still have series, at most.
const DEAD_KEPT: usize = 1_000;

/// Forgets owners that have been gone for `retention`, and at once those that never had any series.
pub(super) fn forget<S: SlotSource>(census: &Census, ledger: &Ledger<S>, retention: Duration, now: Instant) {
    census.forget_gone(now, SETTLED, &ledger.cgroups());
    let mut gone = census.expired(now, SETTLED, DEAD_KEPT);
    if gone.is_empty() {
        return;
    }
    let due = census.expired(now, retention, DEAD_KEPT);
    let counted = census.with_registry(|registry| ledger.owners(registry));
    // A pod has series from its first moment, whether or not it has sent anything.
    let has_series = |owner: &Owner| matches!(owner, Owner::Pod { .. }) || counted.contains(owner);
    gone.retain(|owner| due.contains(owner) || !has_series(owner));
    // Before the books are locked: whoever makes a page locks the census first and the books second.
    let heir = |owner: &Owner| (owner.clone(), census.successor(owner, &gone));
    ledger.forget_owners(&gone.iter().map(heir).collect());
    census.forget(&gone);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell as StdCell;
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, mpsc};
    use std::thread;

    use probe_common::peer::PeerClass;
    use probe_common::tcp::TcpCell;
    use probe_common::traffic::{Cell, Protocol, SLOTS_RESERVED, SlotKey};

    use super::*;
    use crate::identity::{PodName, PodNames, PodSource};
    use crate::ledger::{Holder, Part, SlotControl};

    const PODS: u32 = 300;

    fn uid(slot: u32) -> String {
        format!("f49bc5ea-916a-4212-99f5-faa04700{slot:04x}")
    }

    /// Each pod has a name of its own.
    struct Names;

    impl PodSource for Names {
        fn read(&mut self) -> io::Result<Vec<(String, PodName)>> {
            let name = |slot| PodName { namespace: "shop".to_owned(), pod: format!("web-{slot}") };
            Ok((SLOTS_RESERVED..SLOTS_RESERVED + PODS).map(|slot| (uid(slot), name(slot))).collect())
        }
    }

    /// A slot with one packet for each pod, until it is cleared.
    struct OneEach(Mutex<Vec<bool>>);

    impl SlotSource for OneEach {
        fn slots(&self) -> u32 {
            SLOTS_RESERVED + PODS
        }
        fn key(&self, slot: u32) -> Option<SlotKey> {
            let is_used = self.0.lock().unwrap()[slot as usize];
            is_used.then(|| SlotKey::new(u64::from(slot), PeerClass::Node.number(), Protocol::Udp.number()))
        }
        fn cell(&self, slot: u32) -> Cell {
            Cell { receive_packets: u64::from(self.0.lock().unwrap()[slot as usize]), ..Cell::default() }
        }
        fn tcp(&self, _slot: u32) -> TcpCell {
            TcpCell::default()
        }
        fn clear(&self, slot: u32) {
            self.0.lock().unwrap()[slot as usize] = false;
        }
    }

    /// Does everything at once.
    #[derive(Default)]
    struct Obedient(StdCell<u64>);

    impl SlotControl for Obedient {
        fn retire(&self, _keys: Vec<SlotKey>) -> u64 {
            self.0.set(self.0.get() + 1);
            self.0.get()
        }
        fn retired(&self) -> u64 {
            self.0.get()
        }
        fn release(&self, _slots: Vec<u32>) {}
    }

    /// Pods that are gone, with their counts carried.
    fn all_gone(start: Instant) -> (Census, Ledger<OneEach>) {
        let used = (0..SLOTS_RESERVED + PODS).map(|slot| slot >= SLOTS_RESERVED).collect();
        let census = Census::new(PodNames::new(vec![Box::new(Names)]));
        let ledger = Ledger::new(OneEach(Mutex::new(used)));
        for slot in SLOTS_RESERVED..SLOTS_RESERVED + PODS {
            let path = format!("kubepods/pod{}", uid(slot));
            census.insert(slot.into(), &path, start);
            census.remove(slot.into(), start);
        }
        census.find_names(start);
        let control = Obedient::default();
        for second in 0..10 {
            let now = start + Duration::from_secs(second);
            census.with_registry(|registry| ledger.reconcile(registry, &control, now));
        }
        (census, ledger)
    }

    /// Packets of pods and of all.
    fn totals(census: &Census, ledger: &Ledger<OneEach>) -> (u64, u64) {
        let (mut of_pods, mut all) = (0, 0);
        census.with_registry(|registry| {
            ledger.read(registry).visit(Part::Traffic, |account, counts| {
                all += counts.traffic.receive_packets;
                if matches!(account.holder, Holder::Owner(Owner::Pod { .. })) {
                    of_pods += counts.traffic.receive_packets;
                }
            });
        });
        (of_pods, all)
    }

    #[test]
    fn series_end_with_the_retention_and_totals_go_on() {
        let start = Instant::now();
        let (census, ledger) = all_gone(start);
        let (retention, all) = (Duration::from_secs(30), PODS.into());
        forget(&census, &ledger, retention, start + Duration::from_secs(29));
        assert_eq!(totals(&census, &ledger), (all, all));
        forget(&census, &ledger, retention, start + retention);
        assert_eq!(totals(&census, &ledger), (0, all));
    }

    #[test]
    fn pages_are_made_while_series_end() {
        let (done, finished) = mpsc::channel();
        thread::spawn(move || {
            let start = Instant::now();
            let (census, ledger) = all_gone(start);
            let (shared, is_over) = (Arc::new((census, ledger)), Arc::new(AtomicBool::new(false)));
            let (begun, first) = mpsc::channel();
            let pages = {
                let (shared, is_over) = (Arc::clone(&shared), Arc::clone(&is_over));
                thread::spawn(move || {
                    while !is_over.load(Ordering::Acquire) {
                        assert_eq!(totals(&shared.0, &shared.1).1, u64::from(PODS));
                        begun.send(()).unwrap_or_default();
                    }
                })
            };
            first.recv().unwrap();
            forget(&shared.0, &shared.1, MIN_RETENTION, start + MIN_RETENTION);
            is_over.store(true, Ordering::Release);
            done.send(pages.join().is_ok()).unwrap();
        });
        // Two locks taken in two orders would hold each other for good.
        assert_eq!(finished.recv_timeout(Duration::from_secs(20)), Ok(true));
    }
}
