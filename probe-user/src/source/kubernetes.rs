//! The Kubernetes API: the pods of this node, the nodes of the cluster, what Cilium says of them, and the leases of its
//! control plane, followed by list and watch.
//!
//! `access` finds the API and the credentials, `object`, `cilium` and `lease` take out of an object what is used of it, `watch` follows a
//! resource and says how fresh what it knows is.

mod access;
mod cilium;
mod lease;
mod object;
mod watch;

pub use access::{Access, AccessError, connect};
pub use cilium::ClusterCiliumNode;
pub use lease::ClusterLease;
pub use object::{ClusterNode, ClusterPod, Pruned, Workload};
pub use watch::{Failure, Resource, Seen, Watch, WatchError};
