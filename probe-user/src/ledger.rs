//! The books of the counters: which slot is whose, what retired slots had counted, and when a slot may be used again.
//!
//! Totals never go backwards: what a slot counted is carried over before it is cleared, under the lock that readers
//! take. A slot is cleared only after the programs can no longer count into it: its key is removed, the generation is
//! raised, and a pass later every program run that could have known the old slot has ended.

mod books;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use probe_common::peer::PeerClass;
use probe_common::tcp::{Durations, TcpCell};
use probe_common::traffic::{CGROUP_KERNEL, Cell, Protocol, SLOTS_RESERVED, SlotKey};

use crate::identity::{CgroupRegistry, Owner};
use books::Books;

/// How long a removed cgroup's slots stay as they are: its sockets still close.
const LINGER: Duration = Duration::from_secs(5);
/// How long a cgroup may be unknown before it counts as gone; a scan comes every few seconds.
const UNKNOWN: Duration = Duration::from_secs(15);
/// How long a retired slot waits after the programs stopped using it.
const QUARANTINE: Duration = Duration::from_secs(1);

/// The counters as memory.
pub trait SlotSource: Send + Sync {
    /// Number of slots, reserved ones included.
    fn slots(&self) -> u32;
    /// What a slot counts; `None` while it is free or reserved.
    fn key(&self, slot: u32) -> Option<SlotKey>;
    /// Traffic of a slot over all shards.
    fn cell(&self, slot: u32) -> Cell;
    /// TCP health of a slot over all shards.
    fn tcp(&self, slot: u32) -> TcpCell;
    /// Zeroes a slot and its key. Only for slots that nothing counts into any more.
    fn clear(&self, slot: u32);
}

impl<T: SlotSource + ?Sized> SlotSource for std::sync::Arc<T> {
    fn slots(&self) -> u32 {
        (**self).slots()
    }
    fn key(&self, slot: u32) -> Option<SlotKey> {
        (**self).key(slot)
    }
    fn cell(&self, slot: u32) -> Cell {
        (**self).cell(slot)
    }
    fn tcp(&self, slot: u32) -> TcpCell {
        (**self).tcp(slot)
    }
    fn clear(&self, slot: u32) {
        (**self).clear(slot);
    }
}

/// What the ledger asks of the kernel side.
pub trait SlotControl {
    /// Takes keys out of use; answers with a number that `retired` reaches once that is done.
    fn retire(&self, keys: Vec<SlotKey>) -> u64;
    /// Batches done so far.
    fn retired(&self) -> u64;
    /// Offers cleared slots for new keys.
    fn release(&self, slots: Vec<u32>);
}

/// What a visitor of the books asks for. TCP health is six times the size of the traffic, and cold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Traffic of everything, without TCP health.
    Traffic,
    /// Traffic and health of TCP.
    Tcp,
}

impl Part {
    /// Whether slots of a protocol belong to it.
    fn has(self, protocol: u8) -> bool {
        self == Self::Traffic || protocol == Protocol::Tcp.number()
    }
}

/// Bytes and packets as in a [`Cell`], without the space that keeps cells of two processors apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets that reached a socket.
    pub receive_packets: u64,
    /// Their bytes.
    pub receive_bytes: u64,
    /// Packets that a socket sent.
    pub transmit_packets: u64,
    /// Their bytes.
    pub transmit_bytes: u64,
}

impl From<Cell> for Volume {
    fn from(cell: Cell) -> Self {
        let Cell { receive_packets, receive_bytes, transmit_packets, transmit_bytes, .. } = cell;
        Self { receive_packets, receive_bytes, transmit_packets, transmit_bytes }
    }
}

impl AddAssign<&Self> for Volume {
    fn add_assign(&mut self, more: &Self) {
        self.receive_packets += more.receive_packets;
        self.receive_bytes += more.receive_bytes;
        self.transmit_packets += more.transmit_packets;
        self.transmit_bytes += more.transmit_bytes;
    }
}

/// Traffic and TCP health of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes and packets.
    pub traffic: Volume,
    /// TCP health; zero for other protocols.
    pub tcp: TcpCell,
}

/// Adds one histogram to another.
pub fn add_durations(sum: &mut Durations, more: &Durations) {
    for (sum, more) in sum.buckets.iter_mut().zip(more.buckets) {
        *sum += more;
    }
    sum.sum += more.sum;
}

/// Adds the TCP health of one to another.
pub fn add_tcp(sum: &mut TcpCell, more: &TcpCell) {
    add_durations(&mut sum.rtt, &more.rtt);
    add_durations(&mut sum.ack, &more.ack);
    add_durations(&mut sum.connect, &more.connect);
    sum.retransmit_segments += more.retransmit_segments;
    sum.retransmit_timeouts += more.retransmit_timeouts;
    for (sum, more) in sum.connect_failures.iter_mut().zip(more.connect_failures) {
        *sum += more;
    }
    sum.resets_received += more.resets_received;
    sum.resets_sent += more.resets_sent;
    sum.connects += more.connects;
    sum.accepts += more.accepts;
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.traffic += &other.traffic;
        add_tcp(&mut self.tcp, &other.tcp);
    }
}

/// Whose counts an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder<O = Owner> {
    /// A pod, a host unit or the kernel.
    Owner(O),
    /// What found no free slot.
    Overflow,
    /// Owners that are gone, and cgroups that nobody knows (yet).
    Departed,
}

/// One entry of the books. Its owner is kept or, where the books are read, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account<O = Owner> {
    /// Whose.
    pub holder: Holder<O>,
    /// With whom.
    pub class: PeerClass,
    /// Over what.
    pub protocol: Protocol,
}

impl Account {
    /// The same, with the owner borrowed.
    #[must_use]
    pub fn borrowed(&self) -> Account<&Owner> {
        let holder = match &self.holder {
            Holder::Owner(owner) => Holder::Owner(owner),
            Holder::Overflow => Holder::Overflow,
            Holder::Departed => Holder::Departed,
        };
        Account { holder, class: self.class, protocol: self.protocol }
    }
}

impl Account<&Owner> {
    fn kept(self) -> Account {
        let holder = match self.holder {
            Holder::Owner(owner) => Holder::Owner(owner.clone()),
            Holder::Overflow => Holder::Overflow,
            Holder::Departed => Holder::Departed,
        };
        Account { holder, class: self.class, protocol: self.protocol }
    }
}

/// The books.
pub struct Ledger<S> {
    source: S,
    books: Mutex<Books>,
}

impl<S: SlotSource> Ledger<S> {
    /// Empty books over a set of counters.
    pub fn new(source: S) -> Self {
        Self { source, books: Mutex::default() }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the books to read them.
    pub fn read<'a>(&'a self, registry: &'a CgroupRegistry) -> Reading<'a, S> {
        Reading { ledger: self, books: self.books(), registry }
    }

    /// All traffic of this moment by account.
    #[cfg(test)]
    fn totals(&self, registry: &CgroupRegistry) -> std::collections::BTreeMap<Account, Counts> {
        let mut totals = std::collections::BTreeMap::<Account, Counts>::new();
        self.read(registry).visit(Part::Traffic, |account, counts| {
            *totals.entry(account.kept()).or_default() += counts;
        });
        totals
    }

    fn counts(&self, slot: u32, part: Part) -> Counts {
        let tcp = if part == Part::Tcp { self.source.tcp(slot) } else { TcpCell::default() };
        Counts { traffic: self.source.cell(slot).into(), tcp }
    }

    /// One pass over all slots: retires those of cgroups that are gone, carries and frees those that were retired.
    /// Says whether there are cgroups that the registry does not know, so that it should be filled again.
    pub fn reconcile(&self, registry: &CgroupRegistry, control: &impl SlotControl, now: Instant) -> bool {
        let mut books = self.books();
        let ready = books.take_ready(control.retired(), now);
        let mut free = Vec::new();
        for (slot, key) in ready {
            if let Some(account) = account_of(key, registry) {
                // Only slots of TCP have TCP health.
                let part = if account.protocol == Protocol::Tcp { Part::Tcp } else { Part::Traffic };
                *books.carried.entry(account.kept()).or_default() += &self.counts(slot, part);
            }
            self.source.clear(slot);
            free.push(slot);
        }
        let mut due = Vec::new();
        let mut unknown = false;
        for slot in SLOTS_RESERVED..self.source.slots() {
            let Some(key) = self.source.key(slot) else { continue };
            if key.cgroup == CGROUP_KERNEL || books.is_quarantined(slot) {
                continue;
            }
            let is_known = registry.owner(key.cgroup).is_some();
            unknown |= !is_known;
            let is_dead = !is_known || registry.is_gone(key.cgroup);
            let patience = if is_known { LINGER } else { UNKNOWN };
            if books.is_due(slot, is_dead, patience, now) {
                due.push((slot, key));
            }
        }
        if !free.is_empty() {
            control.release(free);
        }
        if !due.is_empty() {
            let batch = control.retire(due.iter().map(|(_, key)| *key).collect());
            books.quarantine(due, batch);
        }
        unknown
    }

    /// Owners that have an entry in the books.
    pub fn owners(&self, registry: &CgroupRegistry) -> HashSet<Owner> {
        let books = self.books();
        let carried = books.carried.keys().map(Account::borrowed);
        let keys = (SLOTS_RESERVED..self.source.slots()).filter_map(|slot| self.source.key(slot));
        let owner = |account: Account<&Owner>| match account.holder {
            Holder::Owner(owner) => Some(owner.clone()),
            Holder::Overflow | Holder::Departed => None,
        };
        carried.chain(keys.filter_map(|key| account_of(key, registry))).filter_map(owner).collect()
    }

    /// Gives the counts of every owner that is forgotten to its heir: another pod of the same name, whose series would
    /// fall without them, or nobody; then they go on in the node's totals only.
    pub fn forget_owners(&self, heirs: &HashMap<Owner, Option<Owner>>) {
        self.books().fold(heirs);
    }

    /// Cgroups that have a slot.
    pub fn cgroups(&self) -> HashSet<u64> {
        let keys = (SLOTS_RESERVED..self.source.slots()).filter_map(|slot| self.source.key(slot));
        keys.map(|key| key.cgroup).collect()
    }
}

/// The books at one moment, and whose they are.
pub struct Reading<'a, S> {
    ledger: &'a Ledger<S>,
    books: MutexGuard<'a, Books>,
    registry: &'a CgroupRegistry,
}

impl<S: SlotSource> Reading<'_, S> {
    /// Hands out all counts of this moment, or only those of TCP. Every packet is in exactly one entry; an account may
    /// have several.
    pub fn visit<'r>(&'r self, part: Part, mut visit: impl FnMut(Account<&'r Owner>, &Counts)) {
        for (account, counts) in &self.books.carried {
            // Connections that found no slot have their health in the overflow slots.
            if part.has(account.protocol.number()) || account.holder == Holder::Overflow {
                visit(account.borrowed(), counts);
            }
        }
        let source = &self.ledger.source;
        for (slot, account) in overflow(source.slots()) {
            visit(account, &self.ledger.counts(slot, part));
        }
        for slot in SLOTS_RESERVED..source.slots() {
            let key = source.key(slot).filter(|key| part.has(key.protocol));
            if let Some(account) = key.and_then(|key| account_of(key, self.registry)) {
                visit(account, &self.ledger.counts(slot, part));
            }
        }
    }
}

/// The reserved slots and their accounts.
fn overflow<'o>(slots: u32) -> impl Iterator<Item = (u32, Account<&'o Owner>)> {
    (0..SLOTS_RESERVED.min(slots))
        .zip(PeerClass::ALL)
        .map(|(slot, class)| (slot, Account { holder: Holder::Overflow, class, protocol: Protocol::Other }))
}

/// The account of a key; `None` for numbers that no class or protocol has.
fn account_of(key: SlotKey, registry: &CgroupRegistry) -> Option<Account<&Owner>> {
    let class = PeerClass::from_number(key.class)?;
    let protocol = Protocol::from_number(key.protocol)?;
    let holder = if key.cgroup == CGROUP_KERNEL {
        Holder::Owner(&Owner::Kernel)
    } else {
        registry.owner(key.cgroup).map_or(Holder::Departed, Holder::Owner)
    };
    Some(Account { holder, class, protocol })
}
