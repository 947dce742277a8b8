//! Which cgroup id belongs to whom: in memory, no I/O. Filled by a scan of cgroupfs and by the kernel's notices of
//! directories made and removed; the two may arrive in any order.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{Owner, parse_cgroup_path};

/// What is known of one cgroup.
#[derive(Clone, Debug)]
struct Entry {
    owner: Owner,
    /// When it was learned.
    since: Instant,
    gone: Option<Instant>,
}

/// Owners by cgroup id. An id whose directory is gone keeps its owner until [`CgroupRegistry::forget`]: packets of
/// a removed cgroup's sockets still arrive, and its totals are still to be carried over.
#[derive(Clone, Debug, Default)]
pub struct CgroupRegistry {
    entries: HashMap<u64, Entry>,
    /// Cgroups that exist, by owner.
    live: HashMap<Owner, usize>,
}

/// What a change of the registry means for the owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The owner's first cgroup came into being.
    Appeared(Owner),
    /// The owner's last cgroup went.
    Departed(Owner),
}

impl CgroupRegistry {
    /// Learns a directory. An id that is known under another owner was used again by the kernel: the old owner
    /// loses it.
    pub fn insert(&mut self, id: u64, path: &str, now: Instant) -> Vec<Change> {
        let owner = parse_cgroup_path(path);
        if self.entries.get(&id).is_some_and(|entry| entry.gone.is_none() && entry.owner == owner) {
            return Vec::new();
        }
        let mut changes: Vec<Change> = self.remove(id, now).into_iter().collect();
        self.entries.insert(id, Entry { owner: owner.clone(), since: now, gone: None });
        let count = self.live.entry(owner.clone()).or_default();
        *count += 1;
        if *count == 1 {
            changes.push(Change::Appeared(owner));
        }
        changes
    }

    /// Marks a directory as gone; unknown ids are ignored.
    pub fn remove(&mut self, id: u64, now: Instant) -> Option<Change> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.gone.is_none())?;
        entry.gone = Some(now);
        let owner = entry.owner.clone();
        let count = self.live.get_mut(&owner)?;
        *count = count.saturating_sub(1);
        if *count > 0 {
            return None;
        }
        self.live.remove(&owner);
        Some(Change::Departed(owner))
    }

    /// Takes over a whole scan that began at `started`: what it does not hold is gone, the rest is inserted. What
    /// the kernel's notices said since then is newer than the scan and stays.
    pub fn merge_scan<'a>(
        &mut self,
        scan: impl IntoIterator<Item = (u64, &'a str)>,
        started: Instant,
        now: Instant,
    ) -> Vec<Change> {
        let scan: HashMap<u64, &str> = scan.into_iter().collect();
        let is_missing =
            |id: &u64, entry: &Entry| entry.gone.is_none() && entry.since < started && !scan.contains_key(id);
        let missing: Vec<u64> =
            self.entries.iter().filter(|(id, entry)| is_missing(id, entry)).map(|(id, _)| *id).collect();
        let mut changes = Vec::new();
        for (id, path) in scan {
            let removed_since = self.entries.get(&id).and_then(|entry| entry.gone);
            if removed_since.is_none_or(|gone| gone < started) {
                changes.extend(self.insert(id, path, now));
            }
        }
        changes.extend(missing.into_iter().filter_map(|id| self.remove(id, now)));
        changes
    }

    /// The owner of an id, also of one that is gone.
    #[must_use]
    pub fn owner(&self, id: u64) -> Option<&Owner> {
        self.entries.get(&id).map(|entry| &entry.owner)
    }

    /// Whether an id was known and its directory is gone.
    #[must_use]
    pub fn is_gone(&self, id: u64) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.gone.is_some())
    }

    /// Whether any cgroup of the owner exists.
    #[must_use]
    pub fn is_live(&self, owner: &Owner) -> bool {
        self.live.contains_key(owner)
    }

    /// Owners of all ids that are held: the living ones once, those that are gone with repetitions.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        let is_gone = |entry: &&Entry| entry.gone.is_some() && !self.is_live(&entry.owner);
        self.live.keys().chain(self.entries.values().filter(is_gone).map(|entry| &entry.owner))
    }

    /// Ids that have been gone for at least `age`.
    pub fn gone_ids(&self, now: Instant, age: Duration) -> impl Iterator<Item = u64> {
        let is_old = move |entry: &Entry| entry.gone.is_some_and(|gone| now.duration_since(gone) >= age);
        self.entries.iter().filter(move |(_, entry)| is_old(entry)).map(|(id, _)| *id)
    }

    /// Owners whose last cgroup went at least `age` ago, and of the others that are gone all but the `keep` latest:
    /// what is remembered of the dead is bounded.
    #[must_use]
    pub fn expired_owners(&self, now: Instant, age: Duration, keep: usize) -> HashSet<Owner> {
        let mut gone: HashMap<&Owner, Instant> = HashMap::new();
        for entry in self.entries.values().filter(|entry| !self.is_live(&entry.owner)) {
            if let Some(since) = entry.gone {
                let latest = gone.entry(&entry.owner).or_insert(since);
                *latest = since.max(*latest);
            }
        }
        let mut gone: Vec<(&Owner, Instant)> = gone.into_iter().collect();
        gone.sort_unstable_by_key(|(_, since)| std::cmp::Reverse(*since));
        let is_expired = |index: usize, since: Instant| index >= keep || now.duration_since(since) >= age;
        let expired = gone.into_iter().enumerate().filter(|(index, (_, since))| is_expired(*index, *since));
        expired.map(|(_, (owner, _))| owner.clone()).collect()
    }

    /// Forgets every cgroup of an owner that has none left.
    pub fn forget_owner(&mut self, owner: &Owner) {
        if !self.is_live(owner) {
            self.entries.retain(|_, entry| entry.owner != *owner);
        }
    }

    /// Forgets an id that is gone; an id that lives is kept.
    pub fn forget(&mut self, id: u64) {
        if self.is_gone(id) {
            self.entries.remove(&id);
        }
    }

    /// Number of ids held, gone ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "kubepods/burstable/podf49bc5ea-916a-4212-99f5-faa047ac2f8b";

    fn owner_of(path: &str) -> Owner {
        parse_cgroup_path(path)
    }

    #[test]
    fn a_pod_appears_with_its_first_cgroup_and_departs_with_its_last() {
        let (mut registry, now) = (CgroupRegistry::default(), Instant::now());
        let pod = owner_of(POD);
        assert_eq!(registry.insert(10, POD, now), [Change::Appeared(pod.clone())]);
        assert_eq!(registry.insert(11, &format!("{POD}/c1"), now), []);
        assert_eq!(registry.remove(10, now), None);
        assert!(registry.is_live(&pod));
        assert_eq!(registry.remove(11, now), Some(Change::Departed(pod.clone())));
        assert!(!registry.is_live(&pod));
    }

    #[test]
    fn a_gone_id_keeps_its_owner_until_it_is_forgotten() {
        let (mut registry, now) = (CgroupRegistry::default(), Instant::now());
        registry.insert(10, POD, now);
        registry.forget(10);
        assert_eq!(registry.len(), 1);
        registry.remove(10, now);
        assert!(registry.is_gone(10));
        assert_eq!(registry.owner(10), Some(&owner_of(POD)));
        let later = now + Duration::from_secs(30);
        assert_eq!(registry.gone_ids(later, Duration::from_secs(31)).count(), 0);
        assert_eq!(registry.gone_ids(later, Duration::from_secs(30)).collect::<Vec<_>>(), [10]);
        registry.forget(10);
        assert_eq!(registry.owner(10), None);
        assert!(registry.is_empty());
    }

    #[test]
    fn an_id_used_again_changes_hands() {
        let (mut registry, now) = (CgroupRegistry::default(), Instant::now());
        registry.insert(10, POD, now);
        let changes = registry.insert(10, "system.slice/etcd.service", now);
        let etcd = Owner::Unit("etcd.service".to_owned());
        assert_eq!(changes, [Change::Departed(owner_of(POD)), Change::Appeared(etcd.clone())]);
        assert_eq!(registry.owner(10), Some(&etcd));
    }

    #[test]
    fn removing_twice_or_the_unknown_changes_nothing() {
        let (mut registry, now) = (CgroupRegistry::default(), Instant::now());
        registry.insert(10, POD, now);
        assert!(registry.remove(10, now).is_some());
        assert_eq!(registry.remove(10, now), None);
        assert_eq!(registry.remove(99, now), None);
    }

    #[test]
    fn a_scan_adds_what_is_new_and_removes_what_is_missing() {
        let (mut registry, before) = (CgroupRegistry::default(), Instant::now());
        registry.insert(10, POD, before);
        registry.insert(1, "", before);
        let started = before + Duration::from_millis(1);
        let changes = registry.merge_scan([(1, ""), (12, "system.slice/etcd.service")], started, started);
        let etcd = Owner::Unit("etcd.service".to_owned());
        assert_eq!(changes, [Change::Appeared(etcd), Change::Departed(owner_of(POD))]);
        assert_eq!(registry.owner(1), Some(&Owner::Kernel));
        assert!(registry.is_gone(10));
    }

    #[test]
    fn notices_during_a_scan_are_newer_than_it() {
        let (mut registry, before) = (CgroupRegistry::default(), Instant::now());
        registry.insert(10, POD, before);
        let started = before + Duration::from_millis(1);
        let during = started + Duration::from_millis(1);
        // Made after the scan passed its parent, and removed after the scan saw it.
        registry.insert(11, "system.slice/etcd.service", during);
        registry.remove(10, during);
        assert_eq!(registry.merge_scan([(10, POD)], started, during), []);
        assert!(registry.is_gone(10));
        assert!(!registry.is_gone(11));
    }
}
