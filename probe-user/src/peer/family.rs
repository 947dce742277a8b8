//! Which IPv4 node and which IPv6 node are the same one: pure.
//!
//! Backends keep the two families of a dual-stack node apart: two devices, two sets of entries, nothing in common.
//! What joins them without configuration or API is the link between the nodes: both underlay addresses answer with
//! the same hardware address there. A router answers for many, so an address that is a gateway's, or that stands for
//! two nodes of one family, says nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::node::{Node, Registry};
use crate::source::netlink::{Mac, NetworkFacts};

/// The nodes that have to be joined, each described by its underlay addresses of both families.
pub(super) fn decide_joins(facts: &NetworkFacts, registry: &Registry) -> Vec<Node> {
    let mut stations: BTreeMap<(u32, Mac), Vec<IpAddr>> = BTreeMap::new();
    for neighbour in facts.neighbours.iter() {
        let is_underlay = registry
            .overlays
            .iter()
            .all(|overlay| overlay.index != neighbour.device || !overlay.backend.has_device());
        if let Some(mac) =
            neighbour.mac.filter(|mac| is_underlay && !is_gateway(facts, neighbour.device, *mac))
        {
            stations.entry((neighbour.device, mac)).or_default().push(neighbour.address);
        }
    }
    stations.values().filter_map(|addresses| join(registry, addresses)).collect()
}

/// Whether a default route leads to this hardware address.
fn is_gateway(facts: &NetworkFacts, device: u32, mac: Mac) -> bool {
    let defaults = facts.routes.iter().filter(|route| route.prefix.prefix_len() == 0);
    let mut gateways = defaults.filter_map(|route| route.gateway);
    gateways.any(|gateway| {
        facts.neighbours.iter().any(|n| n.device == device && n.address == gateway && n.mac == Some(mac))
    })
}

/// The nodes behind one hardware address, if they are one of each family and no more.
fn join(registry: &Registry, addresses: &[IpAddr]) -> Option<Node> {
    let has = |node: &&Node| node.underlay.iter().any(|known| addresses.contains(known));
    let nodes: Vec<&Node> = registry.nodes.iter().filter(has).collect();
    let [first, second] = nodes[..] else { return None };
    is_pair(first, second)
        .then(|| Node { underlay: [&first.underlay[..], &second.underlay].concat(), ..Node::default() })
}

/// Whether one node has underlay addresses of one family only, the other one of the other.
pub(super) fn is_pair(first: &Node, second: &Node) -> bool {
    let only = |node: &Node, ipv6| node.underlay.iter().all(|address| address.is_ipv6() == ipv6);
    let both_known = !first.underlay.is_empty() && !second.underlay.is_empty();
    both_known && (only(first, false) && only(second, true) || only(first, true) && only(second, false))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ETH0, Network, flannel_config, ip, net, vxlan_kind, vxlan_node};
    use super::super::{PeerConfig, decide_peers};
    use super::*;
    use crate::source::netlink::{Neighbour, Resolution};

    const FLANNEL6: u32 = 7;

    /// The VXLAN node with flannel's device for IPv6 and the same two peers on it.
    fn dual_stack_node() -> Network {
        let mut network = vxlan_node();
        network.link(FLANNEL6, "flannel-v6.1", vxlan_kind("fd56::11"), 1430);
        network.vxlan_peer(FLANNEL6, 12, "fd42:0:0:2::", "fd42:0:0:2::/64", "fd56::12");
        network.vxlan_peer(FLANNEL6, 13, "fd42:0:0:3::", "fd42:0:0:3::/64", "fd56::13");
        network
    }

    fn answers(network: &mut Network, address: &str, last: u8) {
        network.neighbours.push(Neighbour {
            device: ETH0,
            address: ip(address),
            mac: Some(Mac([2, 0x56, 0, 0, 0, last])),
            state: Resolution::Resolved,
        });
    }

    fn registry_of(network: &Network) -> Registry {
        let mut config = flannel_config();
        if let Some(flannel) = &mut config.flannel {
            flannel.networks.push(net("fd42::/48"));
            flannel.subnets.push(net("fd42:0:0:1::/64"));
        }
        decide_peers(&network.facts(), &config)
    }

    fn labels(registry: &Registry) -> Vec<String> {
        registry.nodes.iter().filter_map(Node::label).map(|label| label.to_string()).collect()
    }

    #[test]
    fn without_evidence_the_families_stay_apart() {
        let registry = registry_of(&dual_stack_node());
        assert_eq!(labels(&registry), ["192.168.56.12", "192.168.56.13", "fd56::12", "fd56::13"]);
    }

    #[test]
    fn one_hardware_address_makes_them_one_node() {
        let mut network = dual_stack_node();
        answers(&mut network, "192.168.56.12", 12);
        answers(&mut network, "fd56::12", 12);
        answers(&mut network, "192.168.56.13", 13);
        let registry = registry_of(&network);
        assert_eq!(labels(&registry), ["192.168.56.12", "192.168.56.13", "fd56::13"]);
        assert_eq!(registry.nodes[0].pods, [net("10.42.2.0/24"), net("fd42:0:0:2::/64")]);
        assert_eq!(registry.nodes[0].underlay, [ip("192.168.56.12"), ip("fd56::12")]);
    }

    #[test]
    fn another_hardware_address_does_not() {
        let mut network = dual_stack_node();
        answers(&mut network, "192.168.56.12", 12);
        answers(&mut network, "fd56::12", 13);
        assert_eq!(registry_of(&network).nodes.len(), 4);
    }

    #[test]
    fn a_router_that_answers_for_several_joins_nobody() {
        let mut network = dual_stack_node();
        for address in ["192.168.56.12", "192.168.56.13", "fd56::12", "fd56::13"] {
            answers(&mut network, address, 99);
        }
        assert_eq!(registry_of(&network).nodes.len(), 4);
    }

    #[test]
    fn the_default_gateway_joins_nobody() {
        let mut network = dual_stack_node();
        for address in ["192.168.56.12", "fd56::12", "192.168.56.1"] {
            answers(&mut network, address, 99);
        }
        assert_eq!(registry_of(&network).nodes.len(), 4);
    }

    #[test]
    fn once_joined_they_stay_so_when_the_neighbour_entries_have_gone() {
        let mut network = dual_stack_node();
        answers(&mut network, "192.168.56.12", 12);
        answers(&mut network, "fd56::12", 12);
        let joined = registry_of(&network);
        let later = registry_of(&dual_stack_node()).completed_from(&joined);
        assert_eq!(labels(&later), ["192.168.56.12", "192.168.56.13", "fd56::13"]);
    }

    #[test]
    fn nothing_is_joined_where_nothing_is_known() {
        let registry = decide_peers(&NetworkFacts::default(), &PeerConfig::default());
        assert!(decide_joins(&NetworkFacts::default(), &registry).is_empty());
    }
}
