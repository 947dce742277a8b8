//! The peer registry: which nodes there are, with their address on each layer, and what class an address is of.
//!
//! Everything here is a pure decision over `source::netlink` facts, except [`Peers`], where the sources of knowledge
//! (network, configuration, the Kubernetes API, the daemon of a tunnel) meet, and [`keep_peers`], which drives it.

mod cilium;
mod class;
mod discover;
mod family;
#[cfg(test)]
pub(crate) mod fixture;
mod keep;
mod node;
mod overlay;
mod rendezvous;
mod tunnel;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
pub use probe_common::peer::PeerClass;

pub use cilium::CILIUM_HOST;
pub use class::decide_classes;
pub use discover::decide_peers;
pub use keep::{Peers, keep_peers, with_flannel};
pub use node::{Node, Registry};
pub use overlay::{Backend, Carrier, Overlay};
pub use rendezvous::{Rendezvous, is_chosen, phase_of};
pub use tunnel::{Tunnel, TunnelEnd};

use crate::source::flannel::FlannelFacts;

/// One entry of the prefix trie that the kernel programs look peers up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixClass {
    /// The prefix; the longest match wins.
    pub prefix: IpNet,
    /// Class of the addresses in it.
    pub class: PeerClass,
    /// The node behind it, by the value of its `peer_node` label, where there is one.
    pub node: Option<Arc<str>>,
}

/// What is known of the cluster without looking at the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerConfig {
    /// Pod networks of the whole cluster, beside those that flannel names.
    pub pod_cidrs: Vec<IpNet>,
    /// Service networks. They are nowhere in the kernel: without configuration or the API they are unknown.
    pub service_cidrs: Vec<IpNet>,
    /// Other nodes that the administrator names.
    pub nodes: Vec<NamedNode>,
    /// What flanneld wrote, where it runs.
    pub flannel: Option<FlannelFacts>,
}

impl PeerConfig {
    /// All pod networks of the cluster that are known.
    pub fn pod_networks(&self) -> impl Iterator<Item = IpNet> {
        let flannel = self.flannel.iter().flat_map(|flannel| &flannel.networks);
        self.pod_cidrs.iter().chain(flannel).map(IpNet::trunc)
    }
}

/// A node given by the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedNode {
    /// Its name, the value of `peer_node`.
    pub name: Option<Arc<str>>,
    /// Its underlay addresses.
    pub addresses: Vec<IpAddr>,
}

/// Whether an address cannot be told from any other node's: link-local ones are the same on every link.
const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
