//! What the ledger remembers between passes.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use probe_common::traffic::SlotKey;

use super::{Account, Counts, Holder, QUARANTINE};
use crate::identity::Owner;

/// A slot that waits until nothing counts into it.
struct Quarantined {
    key: SlotKey,
    batch: u64,
    /// When the kernel side was first seen to have done its part.
    done: Option<Instant>,
}

/// Carried totals, and slots on their way out.
#[derive(Default)]
pub(super) struct Books {
    /// Counts of retired slots.
    pub(super) carried: BTreeMap<Account, Counts>,
    quarantine: HashMap<u32, Quarantined>,
    /// Since when a slot's cgroup is dead.
    dead: HashMap<u32, Instant>,
}

impl Books {
    pub(super) fn is_quarantined(&self, slot: u32) -> bool {
        self.quarantine.contains_key(&slot)
    }

    /// Whether a slot's cgroup has been dead for long enough.
    pub(super) fn is_due(&mut self, slot: u32, is_dead: bool, patience: Duration, now: Instant) -> bool {
        if !is_dead {
            self.dead.remove(&slot);
            return false;
        }
        let since = *self.dead.entry(slot).or_insert(now);
        now.duration_since(since) >= patience
    }

    pub(super) fn quarantine(&mut self, slots: Vec<(u32, SlotKey)>, batch: u64) {
        for (slot, key) in slots {
            self.dead.remove(&slot);
            self.quarantine.insert(slot, Quarantined { key, batch, done: None });
        }
    }

    /// Takes the slots whose batch was done at least one quarantine ago, as seen from here.
    pub(super) fn take_ready(&mut self, done: u64, now: Instant) -> Vec<(u32, SlotKey)> {
        let mut ready = Vec::new();
        self.quarantine.retain(|slot, entry| {
            if entry.batch > done {
                return true;
            }
            // The wait begins when the kernel side is seen to have done its part, and not before.
            let since = *entry.done.get_or_insert(now);
            let is_ready = now.duration_since(since) >= QUARANTINE;
            if is_ready {
                ready.push((*slot, entry.key));
            }
            !is_ready
        });
        ready
    }

    /// Moves the counts of forgotten owners to their heirs, or to the departed.
    pub(super) fn fold(&mut self, heirs: &HashMap<Owner, Option<Owner>>) {
        let all = std::mem::take(&mut self.carried);
        for (mut account, counts) in all {
            if let Holder::Owner(owner) = &account.holder
                && let Some(heir) = heirs.get(owner)
            {
                account.holder = heir.clone().map_or(Holder::Departed, Holder::Owner);
            }
            *self.carried.entry(account).or_default() += &counts;
        }
    }
}
