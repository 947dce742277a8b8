//! The books over counters and a kernel side that are plain memory.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::HashMap;
use std::sync::Mutex as StdMutex;

use super::*;

const POD: &str = "kubepods/burstable/podf49bc5ea-916a-4212-99f5-faa047ac2f8b/c1";

#[derive(Default)]
struct FakeSlots {
    slots: StdMutex<HashMap<u32, (SlotKey, Counts)>>,
}

impl FakeSlots {
    fn set(&self, slot: u32, cgroup: u64, packets: u64) {
        let key = SlotKey::new(cgroup, PeerClass::PodRemote.number(), Protocol::Tcp.number());
        let mut counts = Counts::default();
        counts.traffic.receive_packets = packets;
        self.slots.lock().unwrap().insert(slot, (key, counts));
    }
}

impl SlotSource for &FakeSlots {
    fn slots(&self) -> u32 {
        32
    }
    fn key(&self, slot: u32) -> Option<SlotKey> {
        self.slots.lock().unwrap().get(&slot).map(|(key, _)| *key)
    }
    fn cell(&self, slot: u32) -> Cell {
        let slots = self.slots.lock().unwrap();
        let Some((_, Counts { traffic, .. })) = slots.get(&slot) else { return Cell::default() };
        Cell {
            receive_packets: traffic.receive_packets,
            receive_bytes: traffic.receive_bytes,
            transmit_packets: traffic.transmit_packets,
            transmit_bytes: traffic.transmit_bytes,
            ..Cell::default()
        }
    }
    fn tcp(&self, slot: u32) -> TcpCell {
        self.slots.lock().unwrap().get(&slot).map(|(_, counts)| counts.tcp).unwrap_or_default()
    }
    fn clear(&self, slot: u32) {
        self.slots.lock().unwrap().remove(&slot);
    }
}

#[derive(Default)]
struct FakeControl {
    batches: StdCell<u64>,
    done: StdCell<u64>,
    retired: RefCell<Vec<SlotKey>>,
    released: RefCell<Vec<u32>>,
}

impl SlotControl for FakeControl {
    fn retire(&self, keys: Vec<SlotKey>) -> u64 {
        self.batches.set(self.batches.get() + 1);
        self.retired.borrow_mut().extend(keys);
        self.batches.get()
    }
    fn retired(&self) -> u64 {
        self.done.get()
    }
    fn release(&self, slots: Vec<u32>) {
        self.released.borrow_mut().extend(slots);
    }
}

fn received(ledger: &Ledger<&FakeSlots>, registry: &CgroupRegistry) -> u64 {
    ledger.totals(registry).values().map(|counts| counts.traffic.receive_packets).sum()
}

fn pod_received(ledger: &Ledger<&FakeSlots>, registry: &CgroupRegistry) -> u64 {
    let of_pods = ledger.totals(registry).into_iter();
    of_pods
        .filter(|(account, _)| matches!(account.holder, Holder::Owner(Owner::Pod { .. })))
        .map(|(_, counts)| counts.traffic.receive_packets)
        .sum()
}

#[test]
fn totals_stay_through_the_whole_life_of_a_slot() {
    let slots = FakeSlots::default();
    let (ledger, control) = (Ledger::new(&slots), FakeControl::default());
    let mut registry = CgroupRegistry::default();
    let start = Instant::now();
    registry.insert(70, POD, start);
    slots.set(20, 70, 11);
    assert_eq!(pod_received(&ledger, &registry), 11);
    registry.remove(70, start);
    for second in 0..30 {
        ledger.reconcile(&registry, &control, start + Duration::from_secs(second));
        control.done.set(control.batches.get());
        assert_eq!(pod_received(&ledger, &registry), 11, "after {second} s");
    }
    assert_eq!(*control.released.borrow(), vec![20]);
    assert!(slots.slots.lock().unwrap().is_empty());
}

#[test]
fn a_slot_is_not_freed_before_the_kernel_side_has_retired_it() {
    let slots = FakeSlots::default();
    let (ledger, control) = (Ledger::new(&slots), FakeControl::default());
    let mut registry = CgroupRegistry::default();
    let start = Instant::now();
    registry.insert(70, POD, start);
    slots.set(20, 70, 11);
    registry.remove(70, start);
    for second in 0..60 {
        ledger.reconcile(&registry, &control, start + Duration::from_secs(second));
    }
    assert_eq!(control.retired.borrow().len(), 1);
    assert!(control.released.borrow().is_empty());
}

#[test]
fn a_live_cgroup_keeps_its_slot() {
    let slots = FakeSlots::default();
    let (ledger, control) = (Ledger::new(&slots), FakeControl::default());
    let mut registry = CgroupRegistry::default();
    let start = Instant::now();
    registry.insert(70, POD, start);
    slots.set(20, 70, 11);
    for second in 0..60 {
        let unknown = ledger.reconcile(&registry, &control, start + Duration::from_secs(second));
        assert!(!unknown);
    }
    assert!(control.retired.borrow().is_empty());
}

#[test]
fn an_unknown_cgroup_is_counted_asked_for_and_at_last_departed() {
    let slots = FakeSlots::default();
    let (ledger, control) = (Ledger::new(&slots), FakeControl::default());
    let registry = CgroupRegistry::default();
    let start = Instant::now();
    slots.set(20, 99, 5);
    assert!(ledger.reconcile(&registry, &control, start));
    for second in 1..60 {
        ledger.reconcile(&registry, &control, start + Duration::from_secs(second));
        control.done.set(control.batches.get());
        assert_eq!(received(&ledger, &registry), 5, "after {second} s");
    }
    assert_eq!(*control.released.borrow(), vec![20]);
    let departed = ledger.totals(&registry).into_iter().find(|(a, _)| a.holder == Holder::Departed);
    assert_eq!(departed.map(|(_, counts)| counts.traffic.receive_packets), Some(5));
}

#[test]
fn a_forgotten_owner_leaves_its_counts_with_the_node() {
    let slots = FakeSlots::default();
    let (ledger, control) = (Ledger::new(&slots), FakeControl::default());
    let mut registry = CgroupRegistry::default();
    let start = Instant::now();
    registry.insert(70, POD, start);
    slots.set(20, 70, 11);
    registry.remove(70, start);
    for second in 0..30 {
        ledger.reconcile(&registry, &control, start + Duration::from_secs(second));
        control.done.set(control.batches.get());
    }
    ledger.forget_owners(&HashMap::from([(registry.owner(70).cloned().unwrap(), None)]));
    assert_eq!(pod_received(&ledger, &registry), 0);
    assert_eq!(received(&ledger, &registry), 11);
}

#[test]
fn packets_without_a_free_slot_are_overflow_of_their_class() {
    let slots = FakeSlots::default();
    let ledger = Ledger::new(&slots);
    let mut counts = Counts::default();
    counts.traffic.transmit_bytes = 7;
    let slot = u32::from(PeerClass::Node.number());
    slots.slots.lock().unwrap().insert(slot, (SlotKey::new(0, 0, 0), counts));
    let totals = ledger.totals(&CgroupRegistry::default());
    let account = Account { holder: Holder::Overflow, class: PeerClass::Node, protocol: Protocol::Other };
    assert_eq!(totals.get(&account).map(|counts| counts.traffic.transmit_bytes), Some(7));
}

#[test]
fn every_field_is_added() {
    let mut counts = Counts::default();
    counts.traffic.receive_bytes = 1;
    counts.tcp.rtt.buckets[3] = 2;
    counts.tcp.ack.sum = 3;
    counts.tcp.connect_failures[4] = 4;
    counts.tcp.accepts = 5;
    let mut sum = counts;
    sum += &counts;
    assert_eq!(sum.traffic.receive_bytes, 2);
    assert_eq!((sum.tcp.rtt.buckets[3], sum.tcp.ack.sum), (4, 6));
    assert_eq!((sum.tcp.connect_failures[4], sum.tcp.accepts), (8, 10));
}

#[test]
fn the_health_of_connections_without_a_slot_is_not_lost() {
    let slots = FakeSlots::default();
    let ledger = Ledger::new(&slots);
    let mut counts = Counts::default();
    counts.tcp.rtt.sum = 9;
    let slot = u32::from(PeerClass::Node.number());
    slots.slots.lock().unwrap().insert(slot, (SlotKey::new(0, 0, 0), counts));
    let mut sum = 0;
    ledger.read(&CgroupRegistry::default()).visit(Part::Tcp, |_, counts| sum += counts.tcp.rtt.sum);
    assert_eq!(sum, 9);
}

#[test]
fn counts_go_to_the_heir() {
    const NEXT: &str = "kubepods/burstable/podf49bc5ea-916a-4212-99f5-faa047ac2f8c/c1";
    let slots = FakeSlots::default();
    let (ledger, control) = (Ledger::new(&slots), FakeControl::default());
    let mut registry = CgroupRegistry::default();
    let start = Instant::now();
    registry.insert(70, POD, start);
    registry.insert(71, NEXT, start);
    slots.set(20, 70, 11);
    slots.set(21, 71, 1);
    registry.remove(70, start);
    for second in 0..30 {
        ledger.reconcile(&registry, &control, start + Duration::from_secs(second));
        control.done.set(control.batches.get());
    }
    let heir = registry.owner(71).cloned();
    ledger.forget_owners(&HashMap::from([(registry.owner(70).cloned().unwrap(), heir)]));
    assert_eq!(pod_received(&ledger, &registry), 12);
}

#[test]
fn a_slot_waits_after_the_kernel_side_is_done() {
    let slots = FakeSlots::default();
    let (ledger, control) = (Ledger::new(&slots), FakeControl::default());
    let mut registry = CgroupRegistry::default();
    let start = Instant::now();
    registry.insert(70, POD, start);
    slots.set(20, 70, 11);
    registry.remove(70, start);
    let pass = |second| ledger.reconcile(&registry, &control, start + Duration::from_secs(second));
    pass(0);
    pass(6);
    assert_eq!(control.retired.borrow().len(), 1);
    control.done.set(1);
    pass(60);
    assert!(control.released.borrow().is_empty());
    pass(61);
    assert_eq!(*control.released.borrow(), vec![20]);
}
