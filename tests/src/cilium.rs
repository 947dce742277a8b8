//! A pod network as Cilium leaves it in the kernel in its tunnel mode: its devices with their names, the address and the
//! routes of `cilium_host`, and a VXLAN device that is told with each packet where it goes.
//!
//! Cilium's agent is not here. What its programs do, which is to take packets from one device to the other, do rules and
//! routes of tables of their own: what leaves by `cilium_host` comes out of its other end and is encapsulated, and what was
//! encapsulated for this node goes in there again, so that the node gets it by `cilium_host`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};

use crate::cluster::Lab;
use crate::node::Node;
use crate::place::Place as _;

/// The device of the routes.
pub const HOST: &str = "cilium_host";
/// The device of the tunnel.
pub const TUNNEL: &str = "cilium_vxlan";
/// The largest packet that routes to other nodes promise: an Ethernet of 1500 bytes without VXLAN's 50.
pub const MTU: u32 = 1450;

/// The tables of what leaves for other nodes, and of what comes for this one.
const OUTWARD: u16 = 2_004;
const INWARD: u16 = 2_005;

/// The custom resource, as far as the lab uses it: any field is taken.
const DEFINITION: &str = "---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ciliumnodes.cilium.io}
spec:
  group: cilium.io
  scope: Cluster
  names: {kind: CiliumNode, listKind: CiliumNodeList, plural: ciliumnodes, singular: ciliumnode}
  versions:
  - name: v2
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// The address of a node's `cilium_host`.
#[must_use]
pub fn address(node: &Node) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, node.index(), 77)
}

/// The prefix of a node's pods.
#[must_use]
pub fn pods(node: &Node) -> String {
    format!("10.0.{}.0/24", node.index())
}

/// Gives all nodes of a lab without a pod network this one.
pub fn lay(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        lay_on(node, lab.nodes()).with_context(|| format!("lay Cilium's network on {}", node.name()))?;
    }
    Ok(())
}

/// The hardware address of a node's end of the tunnel, and that of `cilium_host`, which its other end has as well: there is
/// no ARP on these devices.
fn hardware(node: &Node) -> [String; 2] {
    [0, 1].map(|device| format!("02:c1:00:00:{device:02x}:{:02x}", node.index()))
}

fn lay_on(node: &Node, all: &[Node]) -> Result<()> {
    let ([tunnel, host], own) = (hardware(node), address(node));
    let mut script = format!(
        "link add {HOST} address {host} type veth peer name cilium_net address {host}\nlink set {HOST} arp off up\n\
         link set cilium_net arp off up\nlink add {TUNNEL} address {tunnel} type vxlan external dstport 8472\n\
         link set {TUNNEL} arp off up\naddr add {own}/32 dev {HOST}\nroute add {own} dev {HOST} scope link\n\
         route add {} via {own} dev {HOST} src {own}\nrule add pref 100 lookup local\nrule del pref 0\n\
         rule add pref 10 iif {TUNNEL} lookup {INWARD}\nroute add {own} dev cilium_net table {INWARD}\n\
         rule add pref 110 iif cilium_net lookup {OUTWARD}\n",
        pods(node)
    );
    for other in all.iter().filter(|other| other.index() != node.index()) {
        let (prefix, gateway, [mac, _]) = (pods(other), address(other), hardware(other));
        writeln!(script, "route add {prefix} via {own} dev {HOST} src {own} mtu {MTU}")?;
        writeln!(script, "neigh add {gateway} lladdr {mac} dev {TUNNEL}")?;
        let endpoint = other.address(false)?;
        writeln!(
            script,
            "route add {prefix} table {OUTWARD} encap ip id 2 dst {endpoint} via {gateway} dev {TUNNEL} onlink"
        )?;
    }
    node.ip(&script)?;
    // Packets of this node come out of the other end with an address of this node.
    let settings = [
        "ip_forward=1",
        "conf.cilium_net.accept_local=1",
        "conf.all.rp_filter=0",
        "conf.cilium_net.rp_filter=0",
        "conf.cilium_vxlan.rp_filter=0",
    ];
    let settings = settings.map(|setting| format!("net.ipv4.{setting}"));
    node.run(&[&["sysctl", "-qw"][..], &settings.each_ref().map(String::as_str)].concat()).map(drop)
}

/// The definition of `CiliumNode`, to be applied some seconds before the first of them.
#[must_use]
pub const fn definition() -> &'static str {
    DEFINITION
}

/// What Cilium's operator and agent have in the API of a node.
pub fn object(node: &Node) -> Result<String> {
    let endpoint: IpAddr = node.address(false)?;
    Ok(format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {{name: {}}}\nspec:\n  addresses:\n  - {{type: InternalIP, \
         ip: {endpoint}}}\n  - {{type: CiliumInternalIP, ip: {}}}\n  ipam: {{podCIDRs: [{}]}}\n",
        node.name(),
        address(node),
        pods(node)
    ))
}
