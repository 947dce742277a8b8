//! Names of pods. Without any API they come from the kubelet's log directories (`NAMESPACE_POD_UID`).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::PodName;
use super::cgroup_path::normalise_uid;

/// Least time between two looks at the sources that a missing name causes. The kubelet makes a pod's cgroup some
/// milliseconds before its log directory, and a short pod may be gone within the second.
const REFRESH: Duration = Duration::from_millis(50);

/// Where names come from. This is the place where the Kubernetes API joins: a second implementation, given to
/// [`PodNames::new`] before the log directory, whose names then win.
pub trait PodSource: Send {
    /// All pods that the source knows now, by canonical UID (config hash for static pods: the UID that the cgroup
    /// path has).
    ///
    /// # Errors
    /// When the source cannot be read; what it said before then stays.
    fn read(&mut self) -> io::Result<Vec<(String, PodName)>>;
}

/// The kubelet's log directories.
#[derive(Clone, Debug)]
pub struct LogDirectory {
    path: PathBuf,
}

impl LogDirectory {
    /// The directory itself.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// `/var/log/pods` below `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { path: root.join("var/log/pods") }
    }
}

impl PodSource for LogDirectory {
    fn read(&mut self) -> io::Result<Vec<(String, PodName)>> {
        let mut pods = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            pods.extend(entry?.file_name().to_str().and_then(parse_log_directory));
        }
        Ok(pods)
    }
}

/// `NAMESPACE_POD_UID`: neither a namespace nor a pod name can hold an underscore.
fn parse_log_directory(name: &str) -> Option<(String, PodName)> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || namespace.is_empty() || pod.is_empty() {
        return None;
    }
    Some((normalise_uid(uid)?, PodName { namespace: namespace.to_owned(), pod: pod.to_owned() }))
}

/// Names by UID, with the sources behind them. A name stays after its source forgot it, until
/// [`PodNames::retain`]: the kubelet removes the directory while the pod's series still live.
pub struct PodNames {
    sources: Vec<Box<dyn PodSource>>,
    names: HashMap<String, PodName>,
    refreshed: Option<Instant>,
}

impl std::fmt::Debug for PodNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodNames").field("names", &self.names).finish_non_exhaustive()
    }
}

impl PodNames {
    /// Names from these sources; where two know a pod, the first one wins.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn PodSource>>) -> Self {
        Self { sources, names: HashMap::new(), refreshed: None }
    }

    /// The names of a pod. A miss reads the sources again, at most twenty times a second.
    pub fn name(&mut self, uid: &str, now: Instant) -> Option<PodName> {
        let is_due = self.refreshed.is_none_or(|last| now.duration_since(last) >= REFRESH);
        if is_due && !self.names.contains_key(uid) {
            self.refresh(now);
        }
        self.names.get(uid).cloned()
    }

    /// The names of a pod as far as they are known already; never reads.
    #[must_use]
    pub fn known(&self, uid: &str) -> Option<&PodName> {
        self.names.get(uid)
    }

    /// Reads all sources now. A source that cannot be read adds nothing: on a host that runs no pods there is no
    /// such directory, and that is no error.
    pub fn refresh(&mut self, now: Instant) {
        self.refreshed = Some(now);
        // The last source first, so that the first one has the last word.
        for source in self.sources.iter_mut().rev() {
            match source.read() {
                Ok(pods) => self.names.extend(pods),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::debug!(err = &error as &dyn std::error::Error, "pod names not read"),
            }
        }
    }

    /// Forgets the names of pods for which `keep` is false; called when their series end.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.names.retain(|uid, _| keep(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "f49bc5ea-916a-4212-99f5-faa047ac2f8b";

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("leadline-pods-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("var/log/pods")).unwrap();
            Self(root)
        }

        fn pod(&self, directory: &str) -> PathBuf {
            let path = self.0.join("var/log/pods").join(directory);
            fs::create_dir_all(&path).unwrap();
            path
        }

        fn names(&self) -> PodNames {
            PodNames::new(vec![Box::new(LogDirectory::below(&self.0))])
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn name(namespace: &str, pod: &str) -> PodName {
        PodName { namespace: namespace.to_owned(), pod: pod.to_owned() }
    }

    #[test]
    fn names_come_from_the_directories() {
        let scratch = Scratch::new("read");
        scratch.pod(&format!("shop_web-0_{UID}"));
        scratch.pod("kube-system_etcd-node1_10243870eb25589e609b8317f4b2b7c4");
        let mut names = scratch.names();
        let now = Instant::now();
        assert_eq!(names.name(UID, now), Some(name("shop", "web-0")));
        let hash = "10243870eb25589e609b8317f4b2b7c4";
        assert_eq!(names.name(hash, now), Some(name("kube-system", "etcd-node1")));
    }

    #[test]
    fn misses_do_not_read_all_the_time() {
        let scratch = Scratch::new("miss");
        let mut names = scratch.names();
        let now = Instant::now();
        assert_eq!(names.name(UID, now), None);
        scratch.pod(&format!("shop_web-0_{UID}"));
        assert_eq!(names.name(UID, now + Duration::from_millis(49)), None);
        assert_eq!(names.name(UID, now + REFRESH), Some(name("shop", "web-0")));
    }

    #[test]
    fn a_refresh_on_demand_does_not_wait() {
        let scratch = Scratch::new("demand");
        let mut names = scratch.names();
        let now = Instant::now();
        names.refresh(now);
        scratch.pod(&format!("shop_web-0_{UID}"));
        names.refresh(now);
        assert_eq!(names.known(UID), Some(&name("shop", "web-0")));
    }

    #[test]
    fn a_name_outlives_its_directory_until_its_series_end() {
        let scratch = Scratch::new("outlive");
        let directory = scratch.pod(&format!("shop_web-0_{UID}"));
        let mut names = scratch.names();
        let now = Instant::now();
        names.refresh(now);
        fs::remove_dir(directory).unwrap();
        names.refresh(now);
        assert_eq!(names.known(UID), Some(&name("shop", "web-0")));
        names.retain(|uid| uid != UID);
        assert_eq!(names.known(UID), None);
    }

    #[test]
    fn the_first_source_wins() {
        struct Fixed(&'static str);
        impl PodSource for Fixed {
            fn read(&mut self) -> io::Result<Vec<(String, PodName)>> {
                Ok(vec![(UID.to_owned(), name("shop", self.0))])
            }
        }
        let mut names = PodNames::new(vec![Box::new(Fixed("api")), Box::new(Fixed("directory"))]);
        assert_eq!(names.name(UID, Instant::now()), Some(name("shop", "api")));
    }

    #[test]
    fn other_directories_are_no_pods() {
        for bad in ["lost+found", "a_b", "a_b_c", &format!("a_b_{UID}_d"), &format!("_b_{UID}")] {
            assert_eq!(parse_log_directory(bad), None, "{bad}");
        }
    }
}
