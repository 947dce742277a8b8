//! Peers as flannel and its like leave them in the kernel.

use super::super::NamedNode;
use super::super::fixture::{
    CNI0, ETH0, FLANNEL, Network, bare_node, flannel_config, host_gw_node, ip, net, vxlan_kind, vxlan_node,
};
use super::*;
use crate::source::netlink::LinkKind;

fn decide(network: &Network) -> Registry {
    decide_peers(&network.facts(), &flannel_config())
}

fn labels(registry: &Registry) -> Vec<String> {
    registry.nodes.iter().map(|node| node.label().map_or("-".to_owned(), |label| label.to_string())).collect()
}

fn overlays(registry: &Registry) -> Vec<(&str, &str)> {
    registry.overlays.iter().map(|o| (o.device.as_str(), o.backend.as_str())).collect()
}

#[test]
fn vxlan_peers_have_underlay_overlay_and_pods() {
    let registry = decide(&vxlan_node());
    assert_eq!(overlays(&registry), [("flannel.1", "vxlan")]);
    assert_eq!(labels(&registry), ["192.168.56.12", "192.168.56.13"]);
    let peer = &registry.nodes[0];
    assert_eq!(
        (peer.overlay.as_slice(), peer.pods.as_slice()),
        ([ip("10.42.2.0")].as_slice(), [net("10.42.2.0/24")].as_slice())
    );
    assert_eq!(registry.local.underlay, [ip("192.168.56.11")]);
    assert_eq!(registry.local.overlay, [ip("10.42.1.0")]);
    assert_eq!(registry.local.pods, [net("10.42.1.0/24")]);
}

#[test]
fn vxlan_peers_are_found_without_flannels_file() {
    let registry = decide_peers(&vxlan_node().facts(), &PeerConfig::default());
    assert_eq!(labels(&registry), ["192.168.56.12", "192.168.56.13"]);
    assert_eq!(registry.local.pods, [net("10.42.1.0/24")]);
}

#[test]
fn each_single_entry_is_evidence_of_the_peer() {
    let without = |cut: fn(&mut Network)| {
        let mut network = vxlan_node();
        network.vxlan_peer(FLANNEL, 4, "10.42.4.0", "10.42.4.0/24", "192.168.56.14");
        cut(&mut network);
        decide(&network).nodes.len()
    };
    assert_eq!(without(|n| n.routes.retain(|r| r.gateway.is_none_or(|g| g != ip("10.42.4.0")))), 3);
    assert_eq!(without(|n| n.fdb.retain(|f| f.destination != ip("192.168.56.14"))), 3);
}

#[test]
fn a_lost_neighbour_entry_splits_the_peer_only_until_it_is_completed() {
    let before = decide(&vxlan_node());
    let mut network = vxlan_node();
    network.neighbours.retain(|n| n.address != ip("10.42.2.0"));
    let now = decide(&network).completed_from(&before);
    assert_eq!(now.nodes, before.nodes);
}

#[test]
fn host_gw_peers_are_their_gateways() {
    let registry = decide(&host_gw_node());
    assert_eq!(overlays(&registry), [("eth0", "host-gw")]);
    assert_eq!(labels(&registry), ["192.168.56.12", "192.168.56.13"]);
    assert_eq!(registry.nodes[1].pods, [net("10.42.3.0/24")]);
}

#[test]
fn ordinary_routes_are_no_pods() {
    let mut network = host_gw_node();
    network.route("172.16.0.0/12", Some("192.168.56.1"), ETH0);
    assert_eq!(labels(&decide(&network)), ["192.168.56.12", "192.168.56.13"]);
    // Without any pod network named, plain routes say nothing.
    assert_eq!(decide_peers(&network.facts(), &PeerConfig::default()).nodes, []);
}

#[test]
fn direct_routing_beside_vxlan_gives_both() {
    let mut network = vxlan_node();
    network.route("10.42.5.0/24", Some("192.168.56.15"), ETH0);
    let registry = decide(&network);
    assert_eq!(overlays(&registry), [("eth0", "host-gw"), ("flannel.1", "vxlan")]);
    assert_eq!(labels(&registry), ["192.168.56.12", "192.168.56.13", "192.168.56.15"]);
}

#[test]
fn both_families_are_read() {
    let mut network = vxlan_node();
    network.link(7, "flannel-v6.1", vxlan_kind("fd00:56::11"), 1430);
    network.address(7, "fd00:42:0:1::/128");
    network.vxlan_peer(7, 12, "fd00:42:0:2::", "fd00:42:0:2::/64", "fd00:56::12");
    network.address(CNI0, "fd00:42:0:1::1/64");
    let registry = decide(&network);
    assert_eq!(overlays(&registry), [("flannel-v6.1", "vxlan"), ("flannel.1", "vxlan")]);
    assert!(labels(&registry).contains(&"fd00:56::12".to_owned()));
    assert_eq!(registry.local.pods, [net("10.42.1.0/24"), net("fd00:42:0:1::/64")]);
}

#[test]
fn a_configured_name_joins_both_families_of_a_node() {
    let mut network = vxlan_node();
    network.link(7, "flannel-v6.1", vxlan_kind("fd00:56::11"), 1430);
    network.vxlan_peer(7, 12, "fd00:42:0:2::", "fd00:42:0:2::/64", "fd00:56::12");
    let mut config = flannel_config();
    config.nodes = vec![NamedNode {
        name: Some("node2".into()),
        addresses: vec![ip("192.168.56.12"), ip("fd00:56::12")],
    }];
    let registry = decide_peers(&network.facts(), &config);
    assert_eq!(labels(&registry), ["192.168.56.13", "node2"]);
    assert_eq!(registry.nodes[1].pods.len(), 2);
}

#[test]
fn a_tun_device_with_pod_routes_is_an_extension() {
    let mut network = bare_node();
    network.link(8, "tailscale0", LinkKind::Tun, 1280);
    network.route("10.42.2.0/24", None, 8);
    let registry = decide(&network);
    assert_eq!(overlays(&registry), [("tailscale0", "extension")]);
    assert_eq!(registry.nodes[0].pods, [net("10.42.2.0/24")]);
}

#[test]
fn wireguard_peers_are_known_by_their_inner_address() {
    let mut network = bare_node();
    network.link(8, "flannel-wg", LinkKind::Wireguard, 1420);
    network.route("10.42.0.0/16", None, 8);
    network.route("10.42.2.0/24", None, 8);
    let registry = decide(&network);
    assert_eq!(overlays(&registry), [("flannel-wg", "wireguard")]);
    assert_eq!(labels(&registry), ["10.42.2.0"]);
}

#[test]
fn a_host_tunnel_without_pods_is_no_overlay() {
    let mut network = bare_node();
    network.link(8, "tailscale0", LinkKind::Tun, 1280);
    network.route("100.64.0.2/32", None, 8);
    network.link(9, "vxlan7", vxlan_kind("192.168.56.11"), 1450);
    assert_eq!(decide(&network).overlays, []);
}

#[test]
fn ciliums_tunnels_are_known_by_name_and_its_other_devices_are_none() {
    let mut network = bare_node();
    network.link(5, "cilium_net", LinkKind::Veth, 1500);
    network.link(6, "cilium_host", LinkKind::Veth, 1500);
    network.link(7, "cilium_wg0", LinkKind::Wireguard, 1420);
    network.link(8, "cilium_geneve", LinkKind::Other("geneve".to_owned()), 1500);
    network.route("10.42.2.0/24", Some("192.168.56.11"), 6);
    assert_eq!(overlays(&decide(&network)), [("cilium_geneve", "cilium"), ("cilium_wg0", "cilium")]);
}

#[test]
fn routes_to_single_pods_make_local_prefixes() {
    let mut network = Network::default();
    network.link(5, "cali1", LinkKind::Veth, 1450);
    network.route("10.42.1.7/32", None, 5);
    let config = PeerConfig { pod_cidrs: vec![net("10.42.0.0/16")], ..PeerConfig::default() };
    assert_eq!(decide_peers(&network.facts(), &config).local.pods, [net("10.42.1.7/32")]);
}
