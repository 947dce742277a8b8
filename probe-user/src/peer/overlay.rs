//! Which devices carry the pod network between nodes, and by which backend: pure.

use ipnet::IpNet;

use super::PeerConfig;
use super::cilium::{self, CILIUM_HOST};
use crate::source::netlink::{Link, LinkKind, NetworkFacts, Route, RouteKind};

/// A device that pod traffic to other nodes leaves by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overlay {
    /// Its name.
    pub device: String,
    /// How it reaches the other nodes.
    pub backend: Backend,
    /// Interface index.
    pub index: u32,
    /// Interface index of the device that routes to pods lead to: another one where programs take the packets from there.
    pub route_index: u32,
    /// The device that it rides on, where it is bound to one and goes with it.
    pub carrier: Option<Carrier>,
    /// Largest layer 3 packet.
    pub mtu: Option<u32>,
    /// Up, with carrier.
    pub up: bool,
}

/// A device that another one is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Carrier {
    /// Interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// How pod packets reach the other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// VXLAN of flannel or a CNI that works like it.
    Vxlan,
    /// Plain routes to the other nodes: no device of its own.
    HostGw,
    /// `WireGuard`, in the kernel or not.
    Wireguard,
    /// Somebody else's tunnel (Tailscale and other TUN devices) under flannel's extension backend.
    Extension,
    /// Cilium's tunnel devices.
    Cilium,
    /// IP in IP.
    Ipip,
}

impl Backend {
    /// The value of the `backend` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::Wireguard => "wireguard",
            Self::Extension => "extension",
            Self::Cilium => "cilium",
            Self::Ipip => "ipip",
        }
    }

    /// Whether pod traffic has a device of its own, where it can be counted by peer.
    #[must_use]
    pub const fn has_device(self) -> bool {
        !matches!(self, Self::HostGw)
    }
}

/// All overlay devices, sorted by name. `local` are this node's own pod prefixes.
pub(super) fn decide_overlays(facts: &NetworkFacts, config: &PeerConfig, local: &[IpNet]) -> Vec<Overlay> {
    let mut overlays: Vec<Overlay> = facts
        .links
        .iter()
        .filter_map(|link| {
            let backend = decide_backend(link, pod_route(facts, config, local, link))?;
            Some(Overlay {
                device: link.name.clone(),
                backend,
                index: link.index,
                carrier: decide_carrier(facts, link),
                route_index: decide_route_index(facts, link, backend),
                mtu: link.mtu,
                up: link.up && link.carrier,
            })
        })
        .collect();
    overlays.sort_unstable();
    overlays
}

fn decide_carrier(facts: &NetworkFacts, link: &Link) -> Option<Carrier> {
    let LinkKind::Vxlan(vxlan) = &link.kind else { return None };
    let lower = facts.link(vxlan.lower?)?;
    Some(Carrier { index: lower.index, name: lower.name.clone() })
}

fn decide_route_index(facts: &NetworkFacts, link: &Link, backend: Backend) -> u32 {
    let host = (backend == Backend::Cilium).then(|| facts.link_named(CILIUM_HOST)).flatten();
    host.map_or(link.index, |host| host.index)
}

/// By name where a CNI gives its devices fixed names, else by the pod routes that leave by the device.
fn decide_backend(link: &Link, pod_route: Option<&Route>) -> Option<Backend> {
    let is_named = |prefix: &str| link.name.starts_with(prefix);
    let is_tunnel = matches!(link.kind, LinkKind::Vxlan(_) | LinkKind::Wireguard | LinkKind::Tun)
        || matches!(&link.kind, LinkKind::Other(kind) if kind == "geneve");
    // Routes on its other devices have an address of this node as their next hop, which is nobody else's.
    if is_named(cilium::PREFIX) {
        return is_tunnel.then_some(Backend::Cilium);
    }
    let carries_pods = pod_route.is_some();
    match &link.kind {
        LinkKind::Vxlan(_) if carries_pods || is_named("flannel") || is_named("vxlan.calico") => {
            Some(Backend::Vxlan)
        }
        LinkKind::Wireguard | LinkKind::Tun if is_named("flannel-wg") => Some(Backend::Wireguard),
        LinkKind::Wireguard if carries_pods => Some(Backend::Wireguard),
        LinkKind::Tun if carries_pods => Some(Backend::Extension),
        LinkKind::Other(kind) if carries_pods && matches!(kind.as_str(), "ipip" | "sit" | "ip6tnl") => {
            Some(Backend::Ipip)
        }
        LinkKind::Vxlan(_) | LinkKind::Wireguard | LinkKind::Tun | LinkKind::Loopback => None,
        // Any other device is an overlay only where pod prefixes have another node as their next hop.
        _ => pod_route.and_then(|route| route.gateway).map(|_| Backend::HostGw),
    }
}

fn pod_route<'a>(
    facts: &'a NetworkFacts,
    config: &PeerConfig,
    local: &[IpNet],
    link: &Link,
) -> Option<&'a Route> {
    let mut routes = facts
        .routes
        .iter()
        .filter(|route| route.device == Some(link.index) && is_remote_pods(route, config, local));
    // A route with a gateway tells more than one without.
    routes.clone().find(|route| route.gateway.is_some()).or_else(|| routes.next())
}

/// Whether a route leads to the pods of another node: inside a pod network of the cluster, not inside this node's
/// own part of it.
pub(super) fn is_remote_pods(route: &Route, config: &PeerConfig, local: &[IpNet]) -> bool {
    route.kind == RouteKind::Unicast
        && config.pod_networks().any(|network| network.contains(&route.prefix) && network != route.prefix)
        && !local.iter().any(|own| own.contains(&route.prefix))
}
