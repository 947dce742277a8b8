//! The programs that are built from pinned modules.

/// A program built from a Go module whose content `go.sum` pins.
pub(super) struct GoTool {
    /// The folder below `tests/lab/tools`.
    pub(super) module: &'static str,
    pub(super) package: &'static str,
    pub(super) binary: &'static str,
    /// Whether it has parts in C.
    pub(super) cgo: bool,
    /// Build tags.
    pub(super) tags: &'static str,
    /// Values that are set at link time.
    pub(super) values: &'static str,
}

/// What most of them have.
const PLAIN: GoTool = GoTool { module: "", package: "", binary: "", cgo: false, tags: "", values: "" };

pub(super) const FLANNELD: GoTool = GoTool {
    module: "flannel",
    package: "github.com/flannel-io/flannel",
    binary: "flanneld",
    cgo: true,
    ..PLAIN
};

pub(super) const ETCD: GoTool =
    GoTool { module: "etcd", package: "go.etcd.io/etcd/server/v3", binary: "etcd", ..PLAIN };

pub(super) const ETCDCTL: GoTool =
    GoTool { package: "go.etcd.io/etcd/etcdctl/v3", binary: "etcdctl", ..ETCD };

pub(super) const ETCD_3_5: GoTool = GoTool { module: "etcd-3.5", ..ETCD };

pub(super) const ETCDCTL_3_5: GoTool = GoTool { module: "etcd-3.5", ..ETCDCTL };

pub(super) const KUBE_APISERVER: GoTool = GoTool {
    module: "kubernetes",
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    binary: "kube-apiserver",
    // What the module is not told by itself: components refuse to work with others of an unknown version.
    values: "-X k8s.io/component-base/version.gitVersion=v1.34.3 -X k8s.io/component-base/version.gitMajor=1 \
        -X k8s.io/component-base/version.gitMinor=34",
    ..PLAIN
};

pub(super) const KUBE_CONTROLLER_MANAGER: GoTool = GoTool {
    package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    binary: "kube-controller-manager",
    ..KUBE_APISERVER
};

pub(super) const KUBE_SCHEDULER: GoTool =
    GoTool { package: "k8s.io/kubernetes/cmd/kube-scheduler", binary: "kube-scheduler", ..KUBE_APISERVER };

pub(super) const KUBELET: GoTool =
    GoTool { package: "k8s.io/kubernetes/cmd/kubelet", binary: "kubelet", ..KUBE_APISERVER };

pub(super) const KUSTOMIZE: GoTool = GoTool {
    module: "kustomize",
    package: "sigs.k8s.io/kustomize/kustomize/v5",
    binary: "kustomize",
    ..PLAIN
};

pub(super) const KUBE_PROXY: GoTool =
    GoTool { package: "k8s.io/kubernetes/cmd/kube-proxy", binary: "kube-proxy", ..KUBE_APISERVER };

pub(super) const KUBECTL: GoTool =
    GoTool { package: "k8s.io/kubernetes/cmd/kubectl", binary: "kubectl", ..KUBE_APISERVER };

pub(super) const CNI_BRIDGE: GoTool = GoTool {
    module: "cni",
    package: "github.com/containernetworking/plugins/plugins/main/bridge",
    binary: "bridge",
    ..PLAIN
};

pub(super) const CNI_FLANNEL: GoTool = GoTool {
    package: "github.com/containernetworking/plugins/plugins/meta/flannel",
    binary: "flannel",
    ..CNI_BRIDGE
};

pub(super) const CNI_HOST_LOCAL: GoTool = GoTool {
    package: "github.com/containernetworking/plugins/plugins/ipam/host-local",
    binary: "host-local",
    ..CNI_BRIDGE
};

pub(super) const CNI_LOOPBACK: GoTool = GoTool {
    package: "github.com/containernetworking/plugins/plugins/main/loopback",
    binary: "loopback",
    ..CNI_BRIDGE
};

pub(super) const CNI_PORTMAP: GoTool = GoTool {
    package: "github.com/containernetworking/plugins/plugins/meta/portmap",
    binary: "portmap",
    ..CNI_BRIDGE
};

/// What a container runtime calls to give a pod its network, and what they call in turn.
pub(super) const CNI: [&GoTool; 5] =
    [&CNI_BRIDGE, &CNI_FLANNEL, &CNI_HOST_LOCAL, &CNI_LOOPBACK, &CNI_PORTMAP];

pub(super) const COREDNS: GoTool =
    GoTool { module: "coredns", package: "github.com/coredns/coredns", binary: "coredns", ..PLAIN };

/// A newer one than Debian's, which is called `prometheus`.
pub(super) const PROMETHEUS: GoTool = GoTool {
    module: "prometheus",
    package: "github.com/prometheus/prometheus/cmd/prometheus",
    binary: "prometheus-3",
    // Files and Kubernetes are all that targets are found by here; clients of two dozen clouds are most of the build.
    tags: "remove_all_sd,enable_kubernetes_sd",
    // What the module is not told by itself: its own version is 0.311.
    values: "-X github.com/prometheus/common/version.Version=3.11.3",
    ..PLAIN
};

pub(super) const PROMETHEUS_OPERATOR: GoTool = GoTool {
    module: "prometheus-operator",
    package: "github.com/prometheus-operator/prometheus-operator/cmd/operator",
    binary: "prometheus-operator",
    ..PLAIN
};

pub(super) const TAILSCALED: GoTool = GoTool {
    module: "tailnet",
    package: "tailscale.com/cmd/tailscaled",
    binary: "tailscaled",
    // What the module is not told by itself: without it the daemon calls itself a build of developers.
    values: "-X tailscale.com/version.longStamp=1.102.5 -X tailscale.com/version.shortStamp=1.102.5",
    ..PLAIN
};

pub(super) const TAILSCALE: GoTool =
    GoTool { package: "tailscale.com/cmd/tailscale", binary: "tailscale", ..TAILSCALED };

/// Coordination server and relay of a tailnet; the only program of our own among them.
pub(super) const TAILNET: GoTool = GoTool { package: ".", binary: "tailnet", values: "", ..TAILSCALED };

/// All that is built.
pub(super) const BUILT: [&GoTool; 23] = [
    &FLANNELD,
    &ETCD,
    &ETCDCTL,
    &ETCD_3_5,
    &ETCDCTL_3_5,
    &KUBE_APISERVER,
    &KUBE_CONTROLLER_MANAGER,
    &KUBE_SCHEDULER,
    &KUBELET,
    &KUBE_PROXY,
    &KUBECTL,
    &CNI_BRIDGE,
    &CNI_FLANNEL,
    &CNI_HOST_LOCAL,
    &CNI_LOOPBACK,
    &CNI_PORTMAP,
    &KUSTOMIZE,
    &COREDNS,
    &PROMETHEUS,
    &PROMETHEUS_OPERATOR,
    &TAILSCALED,
    &TAILSCALE,
    &TAILNET,
];
