//! From the network's state to the nodes behind it: pure.
//!
//! flannel's VXLAN backend leaves three entries for each peer: a route to its pods through an address inside the
//! overlay, a neighbour entry from that address to the peer's VTEP, and a forwarding entry from the VTEP to the
//! peer's underlay address. Each of them alone is evidence of the peer, so that a missing one can be noticed.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cilium::{self, CILIUM_HOST};
use super::family::decide_joins;
use super::node::{Node, Registry};
use super::overlay::{Backend, Overlay, decide_overlays, is_remote_pods};
use super::{PeerConfig, is_link_local};
use crate::source::netlink::{Address, LinkKind, Mac, Neighbour, NetworkFacts, Route, RouteKind};

/// The dummy device on which kube-proxy's IPVS mode puts every service address.
pub(super) const SERVICE_DEVICE: &str = "kube-ipvs0";

/// What the network's state and the configuration say about the nodes.
#[must_use]
pub fn decide_peers(facts: &NetworkFacts, config: &PeerConfig) -> Registry {
    let pods = decide_local_pods(facts, config);
    let overlays = decide_overlays(facts, config, &pods);
    let mut registry =
        Registry { local: decide_local(facts, &overlays, pods), overlays, ..Registry::default() };
    for node in config.nodes.iter().cloned() {
        registry.merge(Node { name: node.name, underlay: node.addresses, ..Node::default() });
    }
    for overlay in registry.overlays.clone() {
        for node in peers_behind(facts, config, &registry.local.pods, &overlay) {
            registry.merge(node);
        }
    }
    for node in decide_joins(facts, &registry) {
        registry.merge(node);
    }
    registry
}

/// This node's pod prefixes: what flannel gave it, the networks of the CNI bridge, what Cilium takes for itself, and
/// on-link routes inside the pod networks (CNIs that give each pod a route of its own).
fn decide_local_pods(facts: &NetworkFacts, config: &PeerConfig) -> Vec<IpNet> {
    let from_flannel = config.flannel.iter().flat_map(|flannel| flannel.subnets.iter().copied());
    let from_bridge = facts
        .addresses
        .iter()
        .filter(|address| is_pod_bridge(facts, address) && !is_link_local(address.address))
        .filter_map(Address::network);
    let on_link = facts.routes.iter().filter(|route| is_local_pod_route(facts, config, route));
    let mut pods: Vec<IpNet> = from_flannel
        .chain(from_bridge)
        .chain(cilium::local_pods(facts))
        .chain(on_link.map(|route| route.prefix))
        .collect();
    pods.sort_unstable();
    pods.dedup();
    pods
}

fn is_pod_bridge(facts: &NetworkFacts, address: &Address) -> bool {
    facts.link(address.device).is_some_and(|link| {
        link.kind == LinkKind::Bridge && matches!(link.name.as_str(), "cni0" | "cbr0" | "kube-bridge")
    })
}

fn is_local_pod_route(facts: &NetworkFacts, config: &PeerConfig, route: &Route) -> bool {
    let kind = route.device.and_then(|index| facts.link(index)).map(|link| &link.kind);
    let is_pod_device = matches!(kind, Some(LinkKind::Bridge | LinkKind::Veth))
        || matches!(kind, Some(LinkKind::Other(other)) if other == "netkit");
    is_pod_device && route.gateway.is_none() && is_remote_pods(route, config, &[])
}

fn decide_local(facts: &NetworkFacts, overlays: &[Overlay], pods: Vec<IpNet>) -> Node {
    let mut local = Node { pods, ..Node::default() };
    for address in facts.addresses.iter() {
        let Some(link) = facts.link(address.device) else { continue };
        let is_service = link.name == SERVICE_DEVICE;
        if address.address.is_loopback() || is_link_local(address.address) || is_service {
            continue;
        }
        let is_overlay = link.name == CILIUM_HOST
            || overlays.iter().any(|overlay| overlay.backend.has_device() && overlay.index == link.index);
        if is_overlay {
            local.overlay.push(address.address);
        } else if !is_pod_bridge(facts, address) {
            local.underlay.push(address.address);
        }
    }
    local.underlay.sort_unstable();
    local.overlay.sort_unstable();
    local
}

fn peers_behind(facts: &NetworkFacts, config: &PeerConfig, local: &[IpNet], overlay: &Overlay) -> Vec<Node> {
    let routes = || {
        facts
            .routes
            .iter()
            .filter(|route| route.device == Some(overlay.index) && route.kind == RouteKind::Unicast)
            .filter(|route| route.prefix.prefix_len() > 0)
    };
    let pod_routes = || routes().filter(|route| is_remote_pods(route, config, local));
    match overlay.backend {
        Backend::Vxlan => vxlan_peers(facts, overlay.index, routes()),
        Backend::HostGw | Backend::Ipip => pod_routes().filter_map(host_gw_peer).collect(),
        // flannel gives its WireGuard device the first address of the node's prefix.
        Backend::Wireguard => pod_routes()
            .map(|route| Node {
                overlay: vec![route.prefix.network()],
                pods: vec![route.prefix],
                ..Node::default()
            })
            .collect(),
        Backend::Extension => pod_routes().map(|route| only_pods(route.prefix)).collect(),
        Backend::Cilium => cilium::remote_pods(facts).map(only_pods).collect(),
    }
}

fn only_pods(prefix: IpNet) -> Node {
    Node { pods: vec![prefix], ..Node::default() }
}

fn host_gw_peer(route: &Route) -> Option<Node> {
    route.gateway.map(|gateway| Node { underlay: vec![gateway], pods: vec![route.prefix], ..Node::default() })
}

fn vxlan_peers<'a>(facts: &NetworkFacts, device: u32, routes: impl Iterator<Item = &'a Route>) -> Vec<Node> {
    let neighbours: Vec<&Neighbour> = facts
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.device == device && is_peer_address(neighbour.address))
        .collect();
    let endpoint = |mac: Mac| {
        facts
            .fdb
            .iter()
            .filter(move |entry| entry.device == device && entry.mac == mac)
            .map(|entry| entry.destination)
    };
    let vtep_of = |address: IpAddr| neighbours.iter().find(|n| n.address == address).and_then(|n| n.mac);
    let by_route = routes.filter_map(|route| {
        let gateway = route.gateway?;
        let underlay = vtep_of(gateway).into_iter().flat_map(endpoint).collect();
        Some(Node { underlay, overlay: vec![gateway], pods: vec![route.prefix], ..Node::default() })
    });
    let by_neighbour = neighbours.iter().filter_map(|neighbour| {
        let underlay = endpoint(neighbour.mac?).collect();
        Some(Node { underlay, overlay: vec![neighbour.address], ..Node::default() })
    });
    let by_endpoint = facts
        .fdb
        .iter()
        .filter(|entry| entry.device == device && entry.mac != Mac([0; 6]))
        .map(|entry| Node { underlay: vec![entry.destination], ..Node::default() });
    by_route.chain(by_neighbour).chain(by_endpoint).collect()
}

fn is_peer_address(address: IpAddr) -> bool {
    !address.is_multicast() && !is_link_local(address)
}

#[cfg(test)]
mod tests;
