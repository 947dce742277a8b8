//! Where the names of pods come from. Without any API that is the kubelet's log directories (`NAMESPACE_POD_UID`).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::PodName;
use super::cgroup_path::normalise_uid;

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

/// All sources together.
pub struct PodNames {
    sources: Vec<Box<dyn PodSource>>,
}

impl std::fmt::Debug for PodNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodNames").field("sources", &self.sources.len()).finish()
    }
}

impl PodNames {
    /// Names from these sources; where two know a pod, the first one wins.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn PodSource>>) -> Self {
        Self { sources }
    }

    /// What all sources say now, by UID. A source that cannot be read adds nothing: on a host that runs no pods there
    /// is no such directory, and that is no error.
    pub fn read(&mut self) -> HashMap<String, PodName> {
        let mut names = HashMap::new();
        // The last source first, so that the first one has the last word.
        for source in self.sources.iter_mut().rev() {
            match source.read() {
                Ok(pods) => names.extend(pods),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::debug!(err = &error as &dyn std::error::Error, "pod names not read"),
            }
        }
        names
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

        fn pod(&self, directory: &str) {
            fs::create_dir_all(self.0.join("var/log/pods").join(directory)).unwrap();
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
        let hash = "10243870eb25589e609b8317f4b2b7c4";
        scratch.pod(&format!("kube-system_etcd-node1_{hash}"));
        let expected = [(UID, name("shop", "web-0")), (hash, name("kube-system", "etcd-node1"))];
        assert_eq!(scratch.names().read(), expected.map(|(uid, name)| (uid.to_owned(), name)).into());
    }

    #[test]
    fn a_missing_directory_has_no_names() {
        let mut names = PodNames::new(vec![Box::new(LogDirectory::at(Path::new("/nonexistent/pods")))]);
        assert!(names.read().is_empty());
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
        assert_eq!(names.read().get(UID), Some(&name("shop", "api")));
    }

    #[test]
    fn other_directories_are_no_pods() {
        for bad in ["lost+found", "a_b", "a_b_c", &format!("a_b_{UID}_d"), &format!("_b_{UID}")] {
            assert_eq!(parse_log_directory(bad), None, "{bad}");
        }
    }
}
