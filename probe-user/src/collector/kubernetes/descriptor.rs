//! The families of the Kubernetes API.

use crate::metric::{Descriptor, Kind, Profile};

/// Every family, in the order of the page.
pub static DESCRIPTORS: &[&Descriptor] = &[&POD, &UP, &CONFIRMED, &OBJECTS, &FAILURES];

/// Template: a gauge of a resource.
const RESOURCE: Descriptor = Descriptor {
    name: "",
    kind: Kind::Gauge,
    unit: None,
    help: "",
    labels: &["resource"],
    profile: Profile::Minimal,
    source: "list and watch of the Kubernetes API: metadata of this node's pods, nodes",
    witness: "kubectl at the same stage: difference 0",
};

pub(super) static POD: Descriptor = Descriptor {
    name: "leadline_pod_info",
    help: "A pod of this node, with the controller that made it; 1. The UID is that of the API, also of a static pod. workload and workload_kind are empty for a pod that somebody made by hand; a ReplicaSet of a Deployment shows the Deployment. Absent until the API has answered; it stays while the API is away.",
    labels: &["namespace", "pod", "uid", "workload", "workload_kind"],
    profile: Profile::Standard,
    ..RESOURCE
};

pub(super) static UP: Descriptor = Descriptor {
    name: "leadline_kubernetes_watch_up",
    help: "Whether a resource (pods of this node, nodes) is followed: 0 means that names are the last known ones, or none.",
    witness: "the API servers of a test that are stopped and started",
    ..RESOURCE
};

pub(super) static CONFIRMED: Descriptor = Descriptor {
    name: "leadline_kubernetes_confirmed_timestamp_seconds",
    unit: Some("seconds"),
    help: "When the API last said what there is of a resource: time() minus this is the age of the names, up to 75 s where nothing changes. Absent until it has answered.",
    witness: "the time of the answer in a test",
    ..RESOURCE
};

pub(super) static OBJECTS: Descriptor = Descriptor {
    name: "leadline_kubernetes_objects",
    help: "Objects of a resource that are known. Absent until the API has answered. Nodes are the same for every observer: max by, never sum.",
    ..RESOURCE
};

pub(super) static FAILURES: Descriptor = Descriptor {
    name: "leadline_kubernetes_failures_total",
    kind: Kind::Counter,
    help: "Requests to the API that failed. unreachable: no way there or no answer in time; unauthorized: the credentials are not taken; forbidden: RBAC; refused: any other status, or an answer that cannot be read.",
    labels: &["resource", "reason"],
    witness: "the API servers of a test that are stopped, rights that a test takes away",
    ..RESOURCE
};
