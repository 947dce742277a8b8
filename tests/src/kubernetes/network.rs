//! What connects the pods of a node: flanneld, whose leases are the nodes' own pod networks, the plugins that containerd
//! calls, and kube-proxy.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::control_plane::pki::Pki;
use crate::etcd::authority::Subject;
use crate::node::Node;
use crate::place::Place as _;
use crate::service::Service;
use crate::tools;

/// The time in which a daemon must have done its work on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

/// What flanneld asks of the API server; kube-proxy's rights are there from the beginning.
pub(super) const RIGHTS: &str = r#"---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: flannel}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get]}
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [nodes/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: flannel}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: flannel}
subjects: [{kind: User, name: flannel}]
"#;

/// The network of all pods.
const NETWORK: &str = r#"{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}"#;

/// What containerd calls, as flannel's own manifest has it.
const PLUGINS: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"#;

/// Priorities and the size of the table of connections are the machine's.
const PROXY: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: /etc/kubernetes/kube-proxy.conf}
clusterCIDR: 10.42.0.0/16
conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
";

/// The running daemons of a node. Dropping it kills them.
#[derive(Debug)]
pub(super) struct Network {
    node: Node,
    flanneld: Service,
    _proxy: Service,
}

impl Network {
    /// Starts both, and waits for neither.
    pub(super) fn start(node: &Node, pki: &Pki, url: &str) -> Result<Self> {
        pki.join(node, "flannel.conf", &Subject::client("flannel"), url)?;
        node.write("/etc/kube-flannel/net-conf.json", NETWORK)?;
        let mut command = Command::new(tools::flanneld()?);
        command.args(["--kube-subnet-mgr", "--kubeconfig-file=/etc/kubernetes/flannel.conf"]);
        command.args(["--iface=eth0", "--ip-masq", "--healthz-ip=127.0.0.1", "--healthz-port=8081"]);
        command.env("NODE_NAME", node.name());
        let flanneld = node.service("flanneld", &mut command)?;

        pki.join(node, "kube-proxy.conf", &Subject::client("system:kube-proxy"), url)?;
        node.write("/var/lib/kube-proxy/config.conf", PROXY)?;
        let mut command = Command::new(tools::kube_proxy()?);
        command.args(["--config=/var/lib/kube-proxy/config.conf", "--hostname-override", node.name()]);
        let proxy = node.service("kube-proxy", &mut command)?;
        Ok(Self { node: node.clone(), flanneld, _proxy: proxy })
    }

    /// Waits until flanneld has a lease, and only then shows containerd how pods are connected: a node is ready when it can
    /// start them.
    pub(super) fn wait_lease(&mut self) -> Result<()> {
        let lease = self.node.path("/run/flannel/subnet.env");
        let what = format!("flanneld on {} to have a lease", self.node.name());
        self.flanneld.wait_until(&what, LIMIT, || lease.exists())?;
        self.node.write("/etc/cni/net.d/10-flannel.conflist", PLUGINS)
    }
}

/// The object of a node, with the pod network that bears its number; if the nodes made them themselves, the order in which
/// they come would give the networks out.
pub(super) fn node_object(node: &Node) -> Result<String> {
    let (name, number) = (node.name(), node.index());
    let address = node.address(false).context("a node has an address")?;
    Ok(format!(
        "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: {{kubernetes.io/hostname: {name}, \
         node-role.kubernetes.io/control-plane: \"\"}}\n  \
         annotations: {{alpha.kubernetes.io/provided-node-ip: {address}}}\n\
         spec: {{podCIDR: 10.42.{number}.0/24, podCIDRs: [10.42.{number}.0/24]}}\n"
    ))
}
