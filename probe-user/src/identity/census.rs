//! Who lives on this node, shared between the task that learns of cgroups and the collectors that name them.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pod_names::PodNames;
use super::registry::{CgroupRegistry, Change};
use super::{Owner, PodName};

/// The registry of cgroups and the names of pods behind one lock. Nothing is read from disk under it but the names.
#[derive(Debug)]
pub struct Census {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: CgroupRegistry,
    names: PodNames,
}

impl Census {
    /// An empty census that asks `names` for names.
    #[must_use]
    pub fn new(names: PodNames) -> Self {
        Self { inner: Mutex::new(Inner { registry: CgroupRegistry::default(), names }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cgroup was made.
    pub fn insert(&self, id: u64, path: &str, now: Instant) -> Vec<Change> {
        self.lock().registry.insert(id, path, now)
    }

    /// A cgroup was removed.
    pub fn remove(&self, id: u64, now: Instant) -> Option<Change> {
        self.lock().registry.remove(id, now)
    }

    /// Takes over a scan of the tree; see [`CgroupRegistry::merge_scan`].
    pub fn merge_scan<'a>(
        &self,
        scan: impl IntoIterator<Item = (u64, &'a str)>,
        started: Instant,
        now: Instant,
    ) -> Vec<Change> {
        self.lock().registry.merge_scan(scan, started, now)
    }

    /// Runs `read` with the registry.
    pub fn with_registry<R>(&self, read: impl FnOnce(&CgroupRegistry) -> R) -> R {
        read(&self.lock().registry)
    }

    /// The names of a pod, as far as they are known.
    #[must_use]
    pub fn pod_name(&self, uid: &str) -> Option<PodName> {
        self.lock().names.known(uid).cloned()
    }

    /// Looks for the names of every pod that has none yet; reads at most once a second.
    pub fn find_names(&self, now: Instant) {
        let mut inner = self.lock();
        let Inner { registry, names } = &mut *inner;
        let is_nameless = |owner: &&Owner| matches!(owner, Owner::Pod { uid } if names.known(uid).is_none());
        let nameless = registry.live_owners().find(is_nameless).cloned();
        if let Some(Owner::Pod { uid }) = nameless {
            names.name(&uid, now);
        }
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
        let is_forgotten = |uid: &str| owners.contains(&Owner::Pod { uid: uid.to_owned() });
        inner.names.retain(|uid| !is_forgotten(uid));
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::identity::PodSource;

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
