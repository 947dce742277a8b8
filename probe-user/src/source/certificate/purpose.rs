//! What a certificate is for, by the name of its file or the port that shows it.

use std::path::Path;

/// What a certificate is for. A closed set: the `purpose` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The administrator's kubeconfig.
    Admin,
    /// The API server's own.
    Apiserver,
    /// The API server's towards etcd.
    ApiserverEtcdClient,
    /// The API server's towards kubelets.
    ApiserverKubeletClient,
    /// An authority of Kubernetes.
    Ca,
    /// The cloud controller's towards the API server.
    CloudController,
    /// The controller manager's towards the API server.
    ControllerManager,
    /// The controller manager's own.
    ControllerManagerServer,
    /// An authority of etcd.
    EtcdCa,
    /// Somebody's towards etcd.
    EtcdClient,
    /// Between members of etcd.
    EtcdPeer,
    /// The one of etcd that clients see.
    EtcdServer,
    /// The authority of the aggregation layer.
    FrontProxyCa,
    /// The API server's towards its extensions.
    FrontProxyClient,
    /// kube-proxy's towards the API server.
    KubeProxy,
    /// The kubelet's towards the API server.
    KubeletClient,
    /// The kubelet's own.
    KubeletServer,
    /// The scheduler's towards the API server.
    Scheduler,
    /// The scheduler's own.
    SchedulerServer,
    /// The administrator's kubeconfig that no authorisation limits.
    SuperAdmin,
    /// The one by which servers of k3s and RKE2 join.
    Supervisor,
    /// Not known.
    Other,
}

impl Purpose {
    /// The value of the `purpose` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Apiserver => "apiserver",
            Self::ApiserverEtcdClient => "apiserver_etcd_client",
            Self::ApiserverKubeletClient => "apiserver_kubelet_client",
            Self::Ca => "ca",
            Self::CloudController => "cloud_controller",
            Self::ControllerManager => "controller_manager",
            Self::ControllerManagerServer => "controller_manager_server",
            Self::EtcdCa => "etcd_ca",
            Self::EtcdClient => "etcd_client",
            Self::EtcdPeer => "etcd_peer",
            Self::EtcdServer => "etcd_server",
            Self::FrontProxyCa => "front_proxy_ca",
            Self::FrontProxyClient => "front_proxy_client",
            Self::KubeProxy => "kube_proxy",
            Self::KubeletClient => "kubelet_client",
            Self::KubeletServer => "kubelet_server",
            Self::Scheduler => "scheduler",
            Self::SchedulerServer => "scheduler_server",
            Self::SuperAdmin => "super_admin",
            Self::Supervisor => "supervisor",
            Self::Other => "other",
        }
    }

    /// What shows a certificate on that port.
    #[must_use]
    pub const fn of_port(port: u16) -> Self {
        match port {
            2379 => Self::EtcdServer,
            2380 => Self::EtcdPeer,
            6443 => Self::Apiserver,
            10250 => Self::KubeletServer,
            10257 => Self::ControllerManagerServer,
            10259 => Self::SchedulerServer,
            _ => Self::Other,
        }
    }

    /// What a file holds by its name and that of its directory, as kubeadm, k3s, RKE2 and kubelets name them.
    pub(super) fn of_path(path: &Path) -> Self {
        let name = |part: Option<&std::ffi::OsStr>| {
            part.and_then(|part| part.to_str()).unwrap_or_default().to_owned()
        };
        let stem = name(path.file_stem());
        let stem = stem.trim_end_matches(".nochain");
        let directory = name(path.parent().and_then(Path::file_name));
        if directory == "etcd" { of_etcd(stem) } else { of_kubernetes(stem) }
    }

    /// The same for a file that says whether it holds an authority.
    #[must_use]
    pub(super) fn or_ca(self, is_ca: bool) -> Self {
        if self == Self::Other && is_ca { Self::Ca } else { self }
    }
}

fn of_etcd(stem: &str) -> Purpose {
    match stem {
        "ca" | "server-ca" | "peer-ca" => Purpose::EtcdCa,
        "server" | "server-client" => Purpose::EtcdServer,
        "peer" | "peer-server-client" => Purpose::EtcdPeer,
        "healthcheck-client" | "client" => Purpose::EtcdClient,
        _ => Purpose::Other,
    }
}

fn of_kubernetes(stem: &str) -> Purpose {
    match stem {
        "admin" | "client-admin" => Purpose::Admin,
        "super-admin" => Purpose::SuperAdmin,
        "apiserver" | "serving-kube-apiserver" => Purpose::Apiserver,
        "apiserver-etcd-client" => Purpose::ApiserverEtcdClient,
        "apiserver-kubelet-client" | "client-kube-apiserver" => Purpose::ApiserverKubeletClient,
        "ca" | "client-ca" | "server-ca" => Purpose::Ca,
        "client-k3s-cloud-controller" | "client-rke2-cloud-controller" => Purpose::CloudController,
        "controller-manager" | "client-controller" => Purpose::ControllerManager,
        "kube-controller-manager" => Purpose::ControllerManagerServer,
        "front-proxy-ca" | "request-header-ca" => Purpose::FrontProxyCa,
        "front-proxy-client" | "client-auth-proxy" => Purpose::FrontProxyClient,
        "client-kube-proxy" => Purpose::KubeProxy,
        "kubelet-client-current" | "client-kubelet" => Purpose::KubeletClient,
        "kubelet" | "kubelet-server-current" | "serving-kubelet" => Purpose::KubeletServer,
        "scheduler" | "client-scheduler" => Purpose::Scheduler,
        "kube-scheduler" => Purpose::SchedulerServer,
        "client-supervisor" => Purpose::Supervisor,
        _ => Purpose::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        for (path, purpose) in [
            ("/etc/kubernetes/pki/apiserver.crt", "apiserver"),
            ("/etc/kubernetes/pki/apiserver-etcd-client.crt", "apiserver_etcd_client"),
            ("/etc/kubernetes/pki/front-proxy-client.crt", "front_proxy_client"),
            ("/etc/kubernetes/pki/ca.crt", "ca"),
            ("/etc/kubernetes/pki/etcd/ca.crt", "etcd_ca"),
            ("/etc/kubernetes/pki/etcd/server.crt", "etcd_server"),
            ("/etc/kubernetes/pki/etcd/peer.crt", "etcd_peer"),
            ("/etc/kubernetes/pki/etcd/healthcheck-client.crt", "etcd_client"),
            ("/var/lib/kubelet/pki/kubelet-server-current.pem", "kubelet_server"),
            ("/var/lib/rancher/k3s/server/tls/serving-kube-apiserver.crt", "apiserver"),
            ("/var/lib/rancher/k3s/server/tls/client-auth-proxy.crt", "front_proxy_client"),
            ("/var/lib/rancher/k3s/server/tls/client-ca.nochain.crt", "ca"),
            ("/var/lib/rancher/k3s/server/tls/etcd/peer-server-client.crt", "etcd_peer"),
            ("/var/lib/rancher/k3s/agent/serving-kubelet.crt", "kubelet_server"),
            ("/etc/kubernetes/pki/server.crt", "other"),
            ("/", "other"),
        ] {
            assert_eq!(Purpose::of_path(Path::new(path)).as_str(), purpose, "{path}");
        }
    }

    #[test]
    fn an_authority_of_another_name_is_one() {
        assert_eq!(Purpose::Other.or_ca(true), Purpose::Ca);
        assert_eq!(Purpose::Other.or_ca(false), Purpose::Other);
        assert_eq!(Purpose::EtcdCa.or_ca(true), Purpose::EtcdCa);
        // Who signs with its own key is not asked to leave out that it may.
        assert_eq!(Purpose::Apiserver.or_ca(true), Purpose::Apiserver);
    }
}
