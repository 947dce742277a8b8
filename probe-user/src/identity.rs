//! Whose traffic a cgroup's is: a pod, a host unit, or the kernel.
//!
//! `cgroup_path` turns a path into an owner, `registry` remembers which cgroup id has which owner and when it went,
//! `pod_names` reads the names of pods, `naming` knows who waits for one. The Kubernetes API joins through
//! [`PodSource`], and nowhere else.

mod census;
mod cgroup_path;
mod naming;
mod pod_names;
mod registry;

pub use census::{Census, Residents};
pub use cgroup_path::parse_cgroup_path;
pub use naming::PATIENCE;
pub use pod_names::{LogDirectory, PodNames, PodSource};
pub use registry::{CgroupRegistry, Change};

/// The owner of a cgroup. Names that are not known (yet) are absent, never made up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A pod; one owner for all its containers.
    Pod {
        /// The UID of the cgroup path in canonical form (with dashes); for static pods the config hash.
        uid: String,
    },
    /// A systemd service or slice of the host; scopes are folded into the slice that holds them.
    Unit(String),
    /// The kernel's own sockets: the root cgroup.
    Kernel,
}

/// Names of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
}
