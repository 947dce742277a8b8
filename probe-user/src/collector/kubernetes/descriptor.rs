//! The families of the Kubernetes API.

use crate::metric::{Descriptor, Kind, Profile};

/// Every family, in the order of the page.
pub static DESCRIPTORS: &[&Descriptor] =
    &[&POD, &UP, &CONFIRMED, &OBJECTS, &FAILURES, &HOLDER, &TRANSITIONS, &RENEWED, &DURATION];

/// Template: a gauge of a resource.
const RESOURCE: Descriptor = Descriptor {
    name: "",
    kind: Kind::Gauge,
    unit: None,
    help: "",
    labels: &["resource"],
    profile: Profile::Minimal,
    source: "list and watch of the Kubernetes API: metadata of this node's pods, nodes, ciliumnodes, leases",
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
    help: "Whether a resource (pods of this node, nodes, ciliumnodes where Cilium runs, and leases where they are wanted) is followed: 0 means that names are the last known ones, or none.",
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
    help: "Objects of a resource that are known. Absent until the API has answered. All but pods are the same for every observer: max by, never sum.",
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

/// Template: a gauge of a lease.
const LEASE: Descriptor = Descriptor {
    labels: &["lease"],
    source: "spec of coordination.k8s.io/v1 Lease in kube-system, followed with --kubernetes.leases",
    witness: "kubectl get leases, before and after the holder is killed: difference 0",
    ..RESOURCE
};

pub(super) static HOLDER: Descriptor = Descriptor {
    name: "leadline_kubernetes_lease_holder_info",
    help: "Who holds a lease of the control plane (kube-controller-manager, kube-scheduler, plndr-cp-lock of kube-vip, ...); 1. The holder is the part of holderIdentity before the first _, which is the host for what is built on client-go. Absent while nobody does. It stays while the API is away. The same for every observer: max by, never sum.",
    labels: &["lease", "holder"],
    ..LEASE
};

pub(super) static TRANSITIONS: Descriptor = Descriptor {
    name: "leadline_kubernetes_lease_transitions_total",
    kind: Kind::Counter,
    help: "How often a lease has got another holder, as it says itself. It begins anew when the lease is deleted. The same for every observer: max by, never sum.",
    ..LEASE
};

pub(super) static RENEWED: Descriptor = Descriptor {
    name: "leadline_kubernetes_lease_renewed_timestamp_seconds",
    unit: Some("seconds"),
    help: "When a lease was last renewed, by its holder's clock. Once it is older than leadline_kubernetes_lease_duration_seconds, others may take it, and until one does nobody works.",
    ..LEASE
};

pub(super) static DURATION: Descriptor = Descriptor {
    name: "leadline_kubernetes_lease_duration_seconds",
    unit: Some("seconds"),
    help: "How long candidates wait after the last renewal of a lease before they take it.",
    ..LEASE
};
