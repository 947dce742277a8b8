//! What Cilium leaves in the kernel's tables: pure.
//!
//! In its tunnel mode each prefix of pods, this node's and the others', has a route by `cilium_host` through the address that
//! this node has there. Programs take the packets from that device and know by themselves behind which node they belong:
//! the tables have the prefixes and no node. With native routing only this node's own prefix is there.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::source::netlink::{NetworkFacts, Route, RouteKind};

/// What the names of its devices begin with; those of pods begin otherwise.
pub(super) const PREFIX: &str = "cilium_";
/// The device by which its routes take packets to its programs.
pub const CILIUM_HOST: &str = "cilium_host";

/// Prefixes of this node's pods: its own address is out of them.
pub(super) fn local_pods(facts: &NetworkFacts) -> impl Iterator<Item = IpNet> {
    let own = own_addresses(facts);
    prefixes(facts).filter(move |prefix| own.iter().any(|address| prefix.contains(address)))
}

/// Prefixes of other nodes' pods.
pub(super) fn remote_pods(facts: &NetworkFacts) -> impl Iterator<Item = IpNet> {
    let own = own_addresses(facts);
    prefixes(facts).filter(move |prefix| !own.iter().any(|address| prefix.contains(address)))
}

fn prefixes(facts: &NetworkFacts) -> impl Iterator<Item = IpNet> {
    let device = facts.link_named(CILIUM_HOST).map(|link| link.index);
    let own = own_addresses(facts);
    let is_taken = move |route: &&Route| {
        device.is_some()
            && route.device == device
            && route.kind == RouteKind::Unicast
            && route.prefix.prefix_len() > 0
            && route.gateway.is_some_and(|gateway| own.contains(&gateway))
    };
    facts.routes.iter().filter(is_taken).map(|route| route.prefix)
}

fn own_addresses(facts: &NetworkFacts) -> Vec<IpAddr> {
    let device = facts.link_named(CILIUM_HOST).map(|link| link.index);
    let own = facts.addresses.iter().filter(|address| Some(address.device) == device);
    own.map(|address| address.address).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{CILIUM_VXLAN, cilium_node, ip, net};
    use super::super::{Backend, Node, PeerConfig, decide_peers};

    #[test]
    fn prefixes_of_this_node_and_of_others_are_told_apart() {
        let registry = decide_peers(&cilium_node().facts(), &PeerConfig::default());
        assert_eq!(registry.local.pods, [net("10.0.1.0/24")]);
        assert_eq!(registry.local.overlay, [ip("10.0.1.77")]);
        assert_eq!(registry.local.underlay, [ip("192.168.56.11")]);
        let pods: Vec<_> = registry.nodes.iter().map(|node| node.pods.clone()).collect();
        assert_eq!(pods, [[net("10.0.2.0/24")], [net("10.0.3.0/24")]]);
        let overlay = &registry.overlays[0];
        assert_eq!(
            (overlay.device.as_str(), overlay.backend, overlay.index),
            ("cilium_vxlan", Backend::Cilium, CILIUM_VXLAN)
        );
        assert_eq!(registry.overlays.len(), 1);
    }

    #[test]
    fn what_the_api_says_of_a_node_joins_its_prefix() {
        let mut registry = decide_peers(&cilium_node().facts(), &PeerConfig::default());
        let api = |name: &str, address: &str| Node {
            name: Some(name.into()),
            underlay: vec![ip(address)],
            ..Node::default()
        };
        registry.merge(api("node2", "192.168.56.12"));
        registry.merge(Node {
            name: Some("node2".into()),
            overlay: vec![ip("10.0.2.77")],
            overlay_endpoint: Some(ip("192.168.56.12")),
            pods: vec![net("10.0.2.0/24")],
            ..Node::default()
        });
        registry.merge(Node {
            name: Some("node1".into()),
            pods: vec![net("10.0.1.0/24")],
            ..Node::default()
        });
        let node = registry.node_of(ip("10.0.2.77")).unwrap();
        assert_eq!((node.name.as_deref(), &node.pods[..]), (Some("node2"), &[net("10.0.2.0/24")][..]));
        assert_eq!((node.underlay.len(), node.overlay_endpoint), (1, Some(ip("192.168.56.12"))));
        assert_eq!((registry.local.name.as_deref(), registry.nodes.len()), (Some("node1"), 2));
    }

    #[test]
    fn with_native_routing_there_is_this_nodes_prefix_and_no_device() {
        let mut network = cilium_node();
        network.links.retain(|link| link.index != CILIUM_VXLAN);
        network.routes.retain(|route| ![net("10.0.2.0/24"), net("10.0.3.0/24")].contains(&route.prefix));
        let registry = decide_peers(&network.facts(), &PeerConfig::default());
        assert_eq!((registry.overlays, registry.nodes), (Vec::new(), Vec::new()));
        assert_eq!(
            (&registry.local.pods[..], &registry.local.overlay[..]),
            (&[net("10.0.1.0/24")][..], &[ip("10.0.1.77")][..])
        );
    }

    #[test]
    fn routes_of_others_on_that_device_are_no_pods() {
        let mut network = cilium_node();
        let host = network.links.iter().find(|link| link.name == super::CILIUM_HOST).unwrap().index;
        network.route("10.9.0.0/16", Some("10.0.2.1"), host);
        network.route("0.0.0.0/0", Some("10.0.1.77"), host);
        assert_eq!(decide_peers(&network.facts(), &PeerConfig::default()).nodes.len(), 2);
    }
}
