//! A node that loses its power, and boots again with what is on its disk.

use anyhow::{Context as _, Result};

use super::balancer::Pace;
use super::{CLIENTS, Kubernetes, balancer, pods, url};
use crate::cluster::Lab;
use crate::control_plane::Part;
use crate::keepalived;
use crate::kubelet::Kubelet;
use crate::kubernetes::network::Network;
use crate::node::Node;
use crate::place::Place as _;

/// What a kernel and a memory forget: mounts, files of daemons that run, devices, rules, connections.
const FORGET: &str = r#"
awk '$5 ~ "^/(run/containerd|run/netns|var/lib/containerd|var/lib/kubelet)/" { print $5 }' /proc/self/mountinfo |
    sort -r | while read -r mount; do umount -l "$mount"; done
rm -rf /run/containerd /run/netns /run/flannel/* /run/haproxy
for device in cni0 flannel.1; do ip link del "$device" 2>/dev/null || :; done
nft flush ruleset
conntrack -F 2>/dev/null
"#;

impl Kubernetes {
    /// Switches a node off: its port of the switch goes down, and all its processes end at once.
    pub fn crash(&mut self, lab: &Lab, node: &Node) -> Result<()> {
        lab.plug(node, false)?;
        node.machine().end_all().with_context(|| format!("switch {} off", node.name()))?;
        // Handles of what has ended.
        let index = node.index();
        self.networks.remove(&index);
        self.kubelets.remove(&index);
        self.balancers.remove(&index);
        for part in Part::ALL {
            self.control_plane(node)?.kill(part)?;
        }
        self.etcd.kill(index).map(drop)
    }

    /// Switches a node on again that is off, and waits for its own parts, but not until the API finds it ready.
    pub fn boot(&mut self, lab: &Lab, node: &Node) -> Result<()> {
        let index = node.index();
        node.run(&["sh", "-euc", FORGET])?;
        node.remove_address(keepalived::VIP.address)?;
        lab.plug(node, true)?;
        self.etcd.restart(index)?;
        self.balancers.insert(index, balancer::start(node, &self.nodes, Pace::Quick)?);
        self.vip.daemon(index)?.restart()?;
        let plane = self.control_plane(node)?;
        for part in [Part::ApiServer].into_iter().chain(CLIENTS) {
            plane.run(part)?;
            plane.wait_well(part)?;
        }
        let mut kubelet = Kubelet::furnish(node, Some(&pods()?))?;
        let mut network = Network::start(node, &self.pki, &url())?;
        network.wait_lease()?;
        kubelet.run()?;
        kubelet.wait_well()?;
        self.networks.insert(index, network);
        self.kubelets.insert(index, kubelet);
        Ok(())
    }
}
