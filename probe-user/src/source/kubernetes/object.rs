//! What is kept of the API's objects: pure.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ObjectMeta, PartialObjectMeta};
use serde::de::DeserializeOwned;

/// The kubelet makes the cgroups of a static pod by this hash of its file; the API gives its mirror another UID.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// The part of a `ReplicaSet`'s name that its Deployment has added.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// The underlay addresses that flannel uses where they are not the node's own.
const FLANNEL_ADDRESSES: [&str; 2] =
    ["flannel.alpha.coreos.com/public-ip", "flannel.alpha.coreos.com/public-ipv6"];

/// Says that flannel gives the node the prefixes that the API has for it. A CNI with an IPAM of its own gives it others,
/// perhaps those that the API has for another node.
const FLANNEL_MANAGER: &str = "flannel.alpha.coreos.com/kube-subnet-manager";

/// What is kept of an object.
pub trait Pruned: Sized {
    /// The object as the API has it.
    type Object: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;

    /// Takes out what is used; `None` for an object without a name, which the API does not have.
    fn prune(object: &Self::Object) -> Option<Self>;

    /// What distinguishes it from the others for as long as it exists.
    fn key(&self) -> &str;
}

/// Who has made a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `Deployment`, `DaemonSet`, `StatefulSet`, `Job`, `Node` (a static pod), or whatever a controller calls itself.
    pub kind: String,
    /// Its name, in the namespace of the pod.
    pub name: String,
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPod {
    /// Its UID in the API.
    pub uid: String,
    /// Its UID in cgroup paths: the same, but for static pods, where it is the hash of the file.
    pub cgroup_uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Who has made it; none of a pod that somebody made by hand.
    pub workload: Option<Workload>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its name.
    pub name: Arc<str>,
    /// Its addresses, without names.
    pub addresses: Vec<IpAddr>,
    /// Prefixes of its pods, where the CNI is known to take those of the API.
    pub pod_cidrs: Vec<IpNet>,
}

impl Pruned for ClusterPod {
    type Object = PartialObjectMeta<Pod>;

    fn prune(object: &Self::Object) -> Option<Self> {
        let meta = &object.metadata;
        let uid = meta.uid.clone()?;
        let hash = meta.annotations.as_ref().and_then(|all| all.get(CONFIG_HASH));
        Some(Self {
            cgroup_uid: hash.unwrap_or(&uid).to_ascii_lowercase(),
            uid,
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            workload: workload(meta),
        })
    }

    fn key(&self) -> &str {
        &self.uid
    }
}

impl Pruned for ClusterNode {
    type Object = Node;

    fn prune(object: &Self::Object) -> Option<Self> {
        let name = object.metadata.name.as_deref()?.into();
        let reported = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let own = reported.filter_map(|address| address.address.parse().ok());
        let annotations = object.metadata.annotations.as_ref();
        let flannel = FLANNEL_ADDRESSES.iter().filter_map(|key| annotations?.get(*key)?.parse().ok());
        let mut addresses: Vec<IpAddr> = own.chain(flannel).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let is_flannels =
            annotations.is_some_and(|all| all.get(FLANNEL_MANAGER).is_some_and(|is| is == "true"));
        let pod_cidrs = if is_flannels { pod_cidrs(object) } else { Vec::new() };
        Some(Self { name, addresses, pod_cidrs })
    }

    fn key(&self) -> &str {
        &self.name
    }
}

fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.iter();
    let all = spec.flat_map(|spec| spec.pod_cidr.iter().chain(spec.pod_cidrs.iter().flatten()));
    let mut cidrs: Vec<IpNet> = all.filter_map(|cidr| cidr.parse().ok()).collect();
    cidrs.sort_unstable();
    cidrs.dedup();
    cidrs
}

/// The owner that controls the pod. A `ReplicaSet` whose name ends with the pod's template hash is a Deployment's, and
/// nobody needs the right to read `ReplicaSets` to know that.
fn workload(meta: &ObjectMeta) -> Option<Workload> {
    let owners = meta.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let hash = || meta.labels.as_ref()?.get(TEMPLATE_HASH);
    if owner.kind == "ReplicaSet"
        && let Some(name) = hash().and_then(|hash| owner.name.strip_suffix(&**hash)?.strip_suffix('-'))
    {
        return Some(Workload { kind: "Deployment".to_owned(), name: name.to_owned() });
    }
    Some(Workload { kind: owner.kind.clone(), name: owner.name.clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "f49bc5ea-916a-4212-99f5-faa047ac2f8b";

    fn pod(metadata: &Value) -> Option<ClusterPod> {
        let object = json!({"apiVersion": "v1", "kind": "PartialObjectMetadata", "metadata": metadata});
        ClusterPod::prune(&serde_json::from_value(object).unwrap())
    }

    fn owned(kind: &str, name: &str) -> Option<Workload> {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "1", "controller": true});
        let labels = json!({"pod-template-hash": "6d4cf56db6"});
        let metadata = json!({"name": "web-0", "namespace": "shop", "uid": UID, "labels": labels, "ownerReferences": [owner]});
        pod(&metadata).unwrap().workload
    }

    fn made_by(kind: &str, name: &str) -> Workload {
        Workload { kind: kind.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_replica_set_with_the_hash_of_the_pod_is_a_deployments() {
        assert_eq!(owned("ReplicaSet", "web-6d4cf56db6"), Some(made_by("Deployment", "web")));
        assert_eq!(owned("ReplicaSet", "web"), Some(made_by("ReplicaSet", "web")));
        assert_eq!(owned("ReplicaSet", "6d4cf56db6"), Some(made_by("ReplicaSet", "6d4cf56db6")));
    }

    #[test]
    fn any_other_controller_is_the_workload() {
        assert_eq!(owned("StatefulSet", "web"), Some(made_by("StatefulSet", "web")));
        assert_eq!(owned("Rollout", "web-6d4cf56db6"), Some(made_by("Rollout", "web-6d4cf56db6")));
    }

    #[test]
    fn a_pod_that_nobody_controls_has_no_workload() {
        let found = pod(&json!({"name": "web-0", "namespace": "shop", "uid": UID})).unwrap();
        assert_eq!((found.workload, &*found.cgroup_uid), (None, UID));
    }

    #[test]
    fn a_static_pod_has_the_hash_of_its_file_in_cgroup_paths() {
        let annotations = json!({"kubernetes.io/config.hash": "10243870eb25589e609b8317f4b2b7c4"});
        let metadata =
            json!({"name": "etcd-node1", "namespace": "kube-system", "uid": UID, "annotations": annotations});
        let found = pod(&metadata).unwrap();
        assert_eq!((&*found.uid, &*found.cgroup_uid), (UID, "10243870eb25589e609b8317f4b2b7c4"));
    }

    #[test]
    fn what_has_no_name_is_no_pod() {
        assert_eq!(pod(&json!({"namespace": "shop", "uid": UID})), None);
    }

    fn node(object: &Value) -> ClusterNode {
        ClusterNode::prune(&serde_json::from_value(object.clone()).unwrap()).unwrap()
    }

    #[test]
    fn a_node_has_its_own_addresses_and_flannels() {
        let found = node(&json!({
            "metadata": {"name": "node2", "annotations": {
                "flannel.alpha.coreos.com/public-ip": "203.0.113.2",
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            }},
            "spec": {"podCIDR": "10.42.2.0/24", "podCIDRs": ["10.42.2.0/24", "fd00:42:0:2::/64"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "192.168.56.12"},
                {"type": "Hostname", "address": "node2"},
            ]},
        }));
        assert_eq!(&*found.name, "node2");
        assert_eq!(
            found.addresses,
            ["192.168.56.12", "203.0.113.2"].map(|text| text.parse::<IpAddr>().unwrap())
        );
        assert_eq!(
            found.pod_cidrs,
            ["10.42.2.0/24", "fd00:42:0:2::/64"].map(|text| text.parse::<IpNet>().unwrap())
        );
    }

    #[test]
    fn a_node_that_has_reported_nothing_yet_has_its_name() {
        let found = node(&json!({"metadata": {"name": "node2"}}));
        assert_eq!((&*found.name, found.addresses, found.pod_cidrs), ("node2", Vec::new(), Vec::new()));
    }

    #[test]
    fn prefixes_that_only_the_api_has_are_left_out() {
        let found = node(&json!({"metadata": {"name": "node2"}, "spec": {"podCIDR": "10.42.2.0/24"}}));
        assert!(found.pod_cidrs.is_empty());
    }
}
