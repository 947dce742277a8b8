//! The parts of a control plane, and how each is started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;

use super::pki::{CA, KUBECONFIGS, KUBELET_CLIENT, PKI, SERVER, SERVICE_ACCOUNT};
use crate::etcd::{Layout, Role};
use crate::node::Node;
use crate::place::Place as _;
use crate::tools;

/// What kind of control plane to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server listens.
    pub api_port: u16,
    /// Whether the API server answers who does not log in.
    pub anonymous: bool,
    /// Whether the node has the manifests of static pods.
    pub manifests: bool,
}

impl Options {
    /// Where the API server answers its node.
    pub(super) fn url(&self) -> String {
        format!("https://{}", Part::ApiServer.address(self))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { api_port: 6443, anonymous: true, manifests: true }
    }
}

/// A part of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

impl Part {
    /// All of them, in the order in which they can start.
    pub const ALL: [Self; 3] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    /// The name of the program.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// Where it tells whether it lives.
    #[must_use]
    pub fn health(self) -> &'static str {
        match self {
            Self::ApiServer | Self::Scheduler => "/livez",
            Self::ControllerManager => "/healthz",
        }
    }

    /// Where it tells whether it is ready.
    #[must_use]
    pub fn readiness(self) -> &'static str {
        match self {
            Self::ApiServer | Self::Scheduler => "/readyz?verbose",
            Self::ControllerManager => "/healthz?verbose",
        }
    }

    /// Where it is asked.
    #[must_use]
    pub fn address(self, options: &Options) -> SocketAddr {
        let port = match self {
            Self::ApiServer => options.api_port,
            Self::ControllerManager => 10_257,
            Self::Scheduler => 10_259,
        };
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    pub(super) fn url(self, options: &Options, path: &str) -> String {
        format!("https://{}{path}", self.address(options))
    }

    pub(super) fn binary(self) -> Result<PathBuf> {
        match self {
            Self::ApiServer => tools::kube_apiserver(),
            Self::ControllerManager => tools::kube_controller_manager(),
            Self::Scheduler => tools::kube_scheduler(),
        }
    }

    pub(super) fn arguments(self, node: &Node, options: &Options) -> Result<Vec<String>> {
        match self {
            Self::ApiServer => api_server(node, options),
            Self::ControllerManager => Ok(controller_manager()),
            Self::Scheduler => Ok(client(KUBECONFIGS[1].0)),
        }
    }
}

fn api_server(node: &Node, options: &Options) -> Result<Vec<String>> {
    let etcd = |name: &str| format!("{}/{name}", Layout::Kubeadm.directory());
    let [certificate, key] = Layout::Kubeadm.pair(Role::Client).map(etcd);
    Ok(vec![
        format!("--advertise-address={}", node.address(false)?),
        format!("--secure-port={}", options.api_port),
        format!("--anonymous-auth={}", options.anonymous),
        "--allow-privileged=true".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--etcd-servers=https://127.0.0.1:2379".into(),
        format!("--etcd-cafile={}", etcd(Layout::Kubeadm.authority(Role::Server))),
        format!("--etcd-certfile={certificate}"),
        format!("--etcd-keyfile={key}"),
        format!("--tls-cert-file={PKI}/{}", SERVER[0]),
        format!("--tls-private-key-file={PKI}/{}", SERVER[1]),
        format!("--client-ca-file={PKI}/{CA}"),
        format!("--kubelet-client-certificate={PKI}/{}", KUBELET_CLIENT[0]),
        format!("--kubelet-client-key={PKI}/{}", KUBELET_CLIENT[1]),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--service-account-key-file={PKI}/{}", SERVICE_ACCOUNT[0]),
        format!("--service-account-signing-key-file={PKI}/{}", SERVICE_ACCOUNT[1]),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        "--service-cluster-ip-range=10.43.0.0/16".into(),
    ])
}

fn controller_manager() -> Vec<String> {
    let mut arguments = client(KUBECONFIGS[0].0);
    arguments.extend([
        format!("--root-ca-file={PKI}/{CA}"),
        format!("--service-account-private-key-file={PKI}/{}", SERVICE_ACCOUNT[1]),
        "--use-service-account-credentials=true".into(),
        // A lost node is told in half of the usual time.
        "--node-monitor-grace-period=20s".into(),
    ]);
    arguments
}

/// What both clients of the API server are told.
fn client(kubeconfig: &str) -> Vec<String> {
    let file = format!("/etc/kubernetes/{kubeconfig}");
    let mut arguments: Vec<String> = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .iter()
        .map(|flag| format!("--{flag}={file}"))
        .collect();
    arguments.extend(["--bind-address=127.0.0.1".into(), "--leader-elect=true".into()]);
    arguments
}
