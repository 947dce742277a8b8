//! Which pods have a name, which wait for one, and when to look for it: pure.
//!
//! The kubelet makes a pod's cgroup, then its log directory, then the cgroups of its sandbox and containers: when one
//! of those is reported, the name is on disk. The directory of a pod that is deleted at once goes with it, so every
//! report about a nameless pod causes a look. Looks are bounded, and what falls into a pause is looked for at its end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::PodName;

/// Least time from one look to the next that a report causes. A look takes about 0.1 ms with a hundred pods.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a pod may be without a name before it is shown by its UID: long for a busy kubelet, short against the time
/// for which a pod that is gone is still shown.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Names by UID. A name stays after its source forgot it, until [`Naming::retain`]: the kubelet removes the directory
/// while the pod's series still live.
#[derive(Debug, Default)]
pub(super) struct Naming {
    names: HashMap<String, PodName>,
    /// Pods without a name, and since when.
    nameless: HashMap<String, Instant>,
    /// Something was reported that no look has followed yet.
    is_owed: bool,
    looked: Option<Instant>,
}

impl Naming {
    /// A pod has appeared.
    pub(super) fn appeared(&mut self, uid: &str, now: Instant) {
        if !self.names.contains_key(uid) {
            self.nameless.entry(uid.to_owned()).or_insert(now);
        }
    }

    /// Something was reported of a pod: if it has no name, a look is owed.
    pub(super) fn reported(&mut self, uid: &str) {
        self.is_owed |= self.nameless.contains_key(uid);
    }

    /// When to look; `None`: nothing was reported since the last look.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.is_owed.then(|| self.looked.map_or(now, |looked| looked + PAUSE))
    }

    /// A look begins; `false`: every pod has its name. What is reported from here on needs another one.
    pub(super) fn begin_look(&mut self, now: Instant) -> bool {
        self.is_owed = false;
        self.looked = Some(now);
        !self.nameless.is_empty()
    }

    /// A look has found these names.
    pub(super) fn learn(&mut self, names: HashMap<String, PodName>) {
        self.nameless.retain(|uid, _| !names.contains_key(uid));
        self.names.extend(names);
    }

    /// The name of a pod, if it is known.
    pub(super) fn name(&self, uid: &str) -> Option<&PodName> {
        self.names.get(uid)
    }

    /// Namespace and name under which a pod is shown: none while they may still come, then the UID, without a namespace.
    /// Nothing is said of a pod that nobody knows.
    pub(super) fn shown<'n>(&'n self, uid: &'n str, now: Instant) -> Option<[&'n str; 2]> {
        if let Some(name) = self.name(uid) {
            return Some([&name.namespace, &name.pod]);
        }
        let since = *self.nameless.get(uid)?;
        (now.duration_since(since) >= PATIENCE).then_some(["", uid])
    }

    /// Forgets the pods for which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.names.retain(|uid, _| keep(uid));
        self.nameless.retain(|uid, _| keep(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "f49bc5ea-916a-4212-99f5-faa047ac2f8b";
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn web() -> PodName {
        PodName { namespace: "shop".to_owned(), pod: "web-0".to_owned() }
    }

    fn found() -> HashMap<String, PodName> {
        HashMap::from([(UID.to_owned(), web())])
    }

    fn appeared(now: Instant) -> Naming {
        let mut naming = Naming::default();
        naming.appeared(UID, now);
        naming
    }

    #[test]
    fn a_report_is_followed_by_a_look_at_once_or_at_the_end_of_the_pause() {
        let start = Instant::now();
        let mut naming = appeared(start);
        naming.reported(UID);
        assert_eq!(naming.due(start), Some(start));
        assert!(naming.begin_look(start));
        assert_eq!(naming.due(start), None);
        // The pod's second cgroup, a millisecond later: the directory is there now.
        naming.reported(UID);
        assert_eq!(naming.due(start + MILLISECOND), Some(start + PAUSE));
        assert!(naming.begin_look(start + PAUSE));
        naming.learn(found());
        assert_eq!(naming.name(UID), Some(&web()));
    }

    #[test]
    fn a_report_during_a_look_causes_another_one() {
        let start = Instant::now();
        let mut naming = appeared(start);
        assert!(naming.begin_look(start));
        naming.reported(UID);
        naming.learn(HashMap::new());
        assert_eq!(naming.due(start), Some(start + PAUSE));
    }

    #[test]
    fn pods_with_a_name_cause_no_look() {
        let start = Instant::now();
        let mut naming = appeared(start);
        naming.learn(found());
        naming.reported(UID);
        assert_eq!(naming.due(start), None);
        naming.appeared(UID, start);
        assert!(!naming.begin_look(start));
    }

    #[test]
    fn a_pod_is_not_shown_until_it_has_a_name_or_patience_ends() {
        let start = Instant::now();
        let mut naming = appeared(start);
        assert_eq!(naming.shown(UID, start + PATIENCE.saturating_sub(MILLISECOND)), None);
        assert_eq!(naming.shown(UID, start + PATIENCE), Some(["", UID]));
        naming.learn(found());
        assert_eq!(naming.shown(UID, start), Some([web().namespace.as_str(), web().pod.as_str()]));
    }

    #[test]
    fn patience_is_counted_from_the_first_cgroup() {
        let start = Instant::now();
        let mut naming = appeared(start);
        naming.appeared(UID, start + PATIENCE);
        assert!(naming.shown(UID, start + PATIENCE).is_some());
    }

    #[test]
    fn a_name_outlives_its_source_until_it_is_forgotten() {
        let start = Instant::now();
        let mut naming = appeared(start);
        naming.learn(found());
        naming.learn(HashMap::new());
        assert_eq!(naming.shown(UID, start), Some([web().namespace.as_str(), web().pod.as_str()]));
        naming.retain(|uid| uid != UID);
        assert_eq!(naming.shown(UID, start + PATIENCE), None);
    }
}
