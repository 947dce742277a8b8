//! Who lives on this node, shared between the task that learns of cgroups and the collectors that name them.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::naming::Naming;
use super::pod_names::PodNames;
use super::registry::{CgroupRegistry, Change};
use super::{Owner, PodName};

/// The registry of cgroups and the names of pods behind one lock. Nothing is read from disk under it: a page does not
/// wait for a directory.
#[derive(Debug)]
pub struct Census {
    sources: Mutex<PodNames>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    registry: CgroupRegistry,
    naming: Naming,
}

/// Who lives on this node at one moment.
#[derive(Debug)]
pub struct Residents<'a> {
    /// Owners by cgroup.
    pub registry: &'a CgroupRegistry,
    naming: &'a Naming,
    now: Instant,
}

impl Residents<'_> {
    /// Namespace and name under which a pod is shown. A new pod is not shown before it has a name or
    /// [`PATIENCE`](super::PATIENCE) has passed, then by its UID and without a namespace.
    #[must_use]
    pub fn shown<'n>(&'n self, uid: &'n str) -> Option<[&'n str; 2]> {
        self.naming.shown(uid, self.now)
    }
}

impl Inner {
    fn note_appeared(&mut self, changes: &[Change], now: Instant) {
        for change in changes {
            if let Change::Appeared(Owner::Pod { uid }) = change {
                self.naming.appeared(uid, now);
            }
        }
    }
}

impl Census {
    /// An empty census that asks `names` for names.
    #[must_use]
    pub fn new(names: PodNames) -> Self {
        Self { sources: Mutex::new(names), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cgroup was made.
    pub fn insert(&self, id: u64, path: &str, now: Instant) -> Vec<Change> {
        let mut inner = self.lock();
        let changes = inner.registry.insert(id, path, now);
        inner.note_appeared(&changes, now);
        let Inner { registry, naming } = &mut *inner;
        if let Some(Owner::Pod { uid }) = registry.owner(id) {
            naming.reported(uid);
        }
        changes
    }

    /// A cgroup was removed. A pod that ends without a name is looked for at once: its directory may be about to go.
    pub fn remove(&self, id: u64, now: Instant) -> Option<Change> {
        let mut inner = self.lock();
        let change = inner.registry.remove(id, now);
        let is_nameless = matches!(&change, Some(Change::Departed(Owner::Pod { uid }))
            if inner.naming.name(uid).is_none());
        drop(inner);
        if is_nameless {
            self.find_names(now);
        }
        change
    }

    /// Takes over a scan of the tree; see [`CgroupRegistry::merge_scan`].
    pub fn merge_scan<'a>(
        &self,
        scan: impl IntoIterator<Item = (u64, &'a str)>,
        started: Instant,
        now: Instant,
    ) -> Vec<Change> {
        let mut inner = self.lock();
        let changes = inner.registry.merge_scan(scan, started, now);
        inner.note_appeared(&changes, now);
        changes
    }

    /// Runs `read` with the registry.
    pub fn with_registry<R>(&self, read: impl FnOnce(&CgroupRegistry) -> R) -> R {
        read(&self.lock().registry)
    }

    /// The name of a pod, if it is known.
    #[must_use]
    pub fn pod_name(&self, uid: &str) -> Option<PodName> {
        self.lock().naming.name(uid).cloned()
    }

    /// Runs `read` with everybody as they are now.
    pub fn read<R>(&self, now: Instant, read: impl FnOnce(&Residents<'_>) -> R) -> R {
        let inner = self.lock();
        read(&Residents { registry: &inner.registry, naming: &inner.naming, now })
    }

    /// When [`find_names`](Self::find_names) is to be called because of what was reported; `None`: not for that reason.
    #[must_use]
    pub fn names_due(&self, now: Instant) -> Option<Instant> {
        self.lock().naming.due(now)
    }

    /// Looks for the names of every pod that has none yet, those that are gone again included: their log directories
    /// may stay a little longer.
    pub fn find_names(&self, now: Instant) {
        if !self.lock().naming.begin_look(now) {
            return;
        }
        let names = self.sources.lock().unwrap_or_else(PoisonError::into_inner).read();
        self.lock().naming.learn(names);
    }

    /// Owners whose series end; see [`CgroupRegistry::expired_owners`].
    #[must_use]
    pub fn expired(&self, now: Instant, age: Duration, keep: usize) -> HashSet<Owner> {
        self.lock().registry.expired_owners(now, age, keep)
    }

    /// Forgets owners, with their names.
    pub fn forget(&self, owners: &HashSet<Owner>) {
        let mut inner = self.lock();
        for owner in owners {
            inner.registry.forget_owner(owner);
        }
        // By who is left and not by who went: the sources may name a pod again after it was forgotten.
        let Inner { registry, naming } = &mut *inner;
        let left: HashSet<&Owner> = registry.owners().collect();
        naming.retain(|uid| left.contains(&Owner::Pod { uid: uid.to_owned() }));
    }

    /// Forgets cgroups without a slot that have been gone for `age`, of owners that live on: restarted containers.
    pub fn forget_gone(&self, now: Instant, age: Duration, used: &HashSet<u64>) {
        let registry = &mut self.lock().registry;
        let is_idle =
            |id: &u64| !used.contains(id) && registry.owner(*id).is_some_and(|owner| registry.is_live(owner));
        let idle: Vec<u64> = registry.gone_ids(now, age).filter(is_idle).collect();
        for id in idle {
            registry.forget(id);
        }
    }

    /// Another owner of the same name that is not among the `gone`: a pod of a `StatefulSet` that was made anew.
    #[must_use]
    pub fn successor(&self, owner: &Owner, gone: &HashSet<Owner>) -> Option<Owner> {
        let inner = self.lock();
        let name_of = |owner: &Owner| match owner {
            Owner::Pod { uid } => inner.naming.name(uid),
            Owner::Unit(_) | Owner::Kernel => None,
        };
        let name = name_of(owner)?;
        let is_heir = |other: &&Owner| !gone.contains(*other) && name_of(other) == Some(name);
        inner.registry.owners().find(is_heir).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::identity::{PATIENCE, PodSource};

    const UID: &str = "f49bc5ea-916a-4212-99f5-faa047ac2f8b";
    const PATH: &str = "kubepods/burstable/podf49bc5ea-916a-4212-99f5-faa047ac2f8b";

    struct OnePod;

    impl PodSource for OnePod {
        fn read(&mut self) -> io::Result<Vec<(String, PodName)>> {
            Ok(vec![(UID.into(), PodName { namespace: "ns".into(), pod: "web".into() })])
        }
    }

    #[test]
    fn a_pod_keeps_its_name_until_it_is_forgotten() {
        let census = Census::new(PodNames::new(vec![Box::new(OnePod)]));
        let start = Instant::now();
        census.insert(7, PATH, start);
        census.find_names(start);
        census.remove(7, start);
        let later = start + Duration::from_mins(1);
        assert_eq!(census.pod_name(UID).map(|name| name.pod), Some("web".into()));
        assert!(census.expired(later, Duration::from_secs(61), 1).is_empty());
        let expired = census.expired(later, Duration::from_mins(1), 1);
        assert_eq!(expired.len(), 1);
        census.forget(&expired);
        assert_eq!(census.pod_name(UID), None);
        assert_eq!(census.with_registry(CgroupRegistry::len), 0);
    }

    #[test]
    fn a_pod_that_is_gone_at_once_is_named_when_it_ends() {
        let census = Census::new(PodNames::new(vec![Box::new(OnePod)]));
        let start = Instant::now();
        census.insert(7, PATH, start);
        census.remove(7, start);
        assert_eq!(census.pod_name(UID).map(|name| name.namespace), Some("ns".into()));
    }

    #[test]
    fn every_cgroup_of_a_nameless_pod_is_a_reason_to_look() {
        let census = Census::new(PodNames::new(vec![Box::new(OnePod)]));
        let start = Instant::now();
        census.insert(1, "system.slice/etcd.service", start);
        assert_eq!(census.names_due(start), None);
        census.insert(7, PATH, start);
        assert_eq!(census.names_due(start), Some(start));
        census.find_names(start);
        census.insert(8, &format!("{PATH}/c1"), start);
        assert_eq!(census.names_due(start), None);
    }

    #[test]
    fn a_pod_that_a_scan_finds_is_shown_after_the_same_time() {
        let census = Census::new(PodNames::new(Vec::new()));
        let start = Instant::now();
        census.merge_scan([(7, PATH)], start, start);
        let shown = |now| census.read(now, |residents| residents.shown(UID).map(|name| name.concat()));
        assert_eq!(shown(start), None);
        assert_eq!(shown(start + PATIENCE), Some(UID.to_owned()));
    }

    #[test]
    fn a_pod_made_anew_succeeds_the_one_before() {
        struct SameName;
        impl PodSource for SameName {
            fn read(&mut self) -> io::Result<Vec<(String, PodName)>> {
                let name = || PodName { namespace: "ns".into(), pod: "db-0".into() };
                Ok(vec![(UID.into(), name()), (UID.replace("8b", "8c"), name())])
            }
        }
        let census = Census::new(PodNames::new(vec![Box::new(SameName)]));
        let start = Instant::now();
        census.insert(7, PATH, start);
        census.remove(7, start);
        census.insert(8, &PATH.replace("8b", "8c"), start);
        census.find_names(start);
        let gone = census.expired(start + Duration::from_mins(6), Duration::from_mins(5), 10);
        let [old] = gone.iter().collect::<Vec<_>>()[..] else { panic!("{gone:?}") };
        let heir = census.with_registry(|registry| registry.owner(8).cloned());
        assert_eq!(census.successor(old, &gone), heir);
    }

    #[test]
    fn restarted_containers_are_forgotten() {
        let census = Census::new(PodNames::new(Vec::new()));
        let start = Instant::now();
        for id in 0..50 {
            census.insert(id, &format!("{PATH}/c{id}"), start);
        }
        for id in 1..50 {
            census.remove(id, start);
        }
        census.forget_gone(start + Duration::from_mins(1), Duration::from_secs(10), &HashSet::from([5]));
        assert_eq!(census.with_registry(CgroupRegistry::len), 2);
    }

    #[test]
    fn a_pod_with_a_container_left_does_not_expire() {
        let census = Census::new(PodNames::new(Vec::new()));
        let start = Instant::now();
        census.insert(7, &format!("{PATH}/c1"), start);
        census.insert(8, &format!("{PATH}/c2"), start);
        census.remove(7, start);
        assert!(census.expired(start + Duration::from_mins(10), Duration::from_mins(1), 0).is_empty());
    }

    #[test]
    fn of_many_dead_the_latest_are_kept() {
        let census = Census::new(PodNames::new(Vec::new()));
        let start = Instant::now();
        for number in 0..10_u64 {
            let path = format!("kubepods/podf49bc5ea-916a-4212-99f5-faa047ac2f{number:02x}");
            census.insert(number, &path, start);
            census.remove(number, start + Duration::from_secs(number));
        }
        let expired = census.expired(start + Duration::from_secs(20), Duration::from_mins(5), 3);
        assert_eq!(expired.len(), 7);
        let latest = census.with_registry(|registry| registry.owner(9).cloned()).unwrap();
        assert!(!expired.contains(&latest));
    }
}
