//! What class the addresses of a prefix are of: the content of the kernel's prefix trie. Pure.
//!
//! Link-local addresses: `fe80::/10` is `unknown`, because it names some station on some link (a pod, a router, a
//! node) and the trie has no link to tell which; calling it external would claim that the traffic may leave the
//! site. IPv4 link-local stays `external`: what answers there (metadata services) is outside the node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::discover::SERVICE_DEVICE;
use super::node::{Node, Registry};
use super::{PeerClass, PeerConfig, PrefixClass};
use crate::source::netlink::{NetworkFacts, Route, RouteKind};

type Classes = BTreeMap<IpNet, (PeerClass, Option<Arc<str>>)>;

/// The whole trie, sorted by prefix. Where two rules give the same prefix the one further down wins.
#[must_use]
pub fn decide_classes(facts: &NetworkFacts, registry: &Registry, config: &PeerConfig) -> Vec<PrefixClass> {
    let mut classes = Classes::new();
    add_everything_else(&mut classes);
    add(&mut classes, config.pod_networks(), PeerClass::PodRemote);
    for node in &registry.nodes {
        add_pods(&mut classes, node);
    }
    add(&mut classes, registry.local.pods.iter().copied(), PeerClass::PodLocal);
    add(&mut classes, config.service_cidrs.iter().map(IpNet::trunc), PeerClass::Service);
    for node in &registry.nodes {
        add_node(&mut classes, node);
    }
    add(&mut classes, multicast_prefixes(facts), PeerClass::Multicast);
    add_own(&mut classes, facts);
    add(&mut classes, [v4([127, 0, 0, 0], 8), v6(1, 128)], PeerClass::Loopback);
    classes.into_iter().map(|(prefix, (class, node))| PrefixClass { prefix, class, node }).collect()
}

const fn v4(octets: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(bits: u128, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::from_bits(bits), length))
}

fn add(classes: &mut Classes, prefixes: impl IntoIterator<Item = IpNet>, class: PeerClass) {
    classes.extend(prefixes.into_iter().map(|prefix| (prefix, (class, None))));
}

fn add_everything_else(classes: &mut Classes) {
    add(classes, [v4([0; 4], 0), v6(0, 0)], PeerClass::External);
    add(classes, [v6(0xfe80 << 112, 10)], PeerClass::Unknown);
}

fn add_pods(classes: &mut Classes, node: &Node) {
    let label = node.label();
    classes.extend(node.pods.iter().map(|prefix| (*prefix, (PeerClass::PodRemote, label.clone()))));
}

fn add_node(classes: &mut Classes, node: &Node) {
    let label = node.label();
    classes.extend(node.addresses().map(|address| (address.into(), (PeerClass::Node, label.clone()))));
}

/// Multicast, limited broadcast, and the broadcast addresses of the links as the kernel lists them.
fn multicast_prefixes(facts: &NetworkFacts) -> Vec<IpNet> {
    let fixed = [v4([224, 0, 0, 0], 4), v4([255; 4], 32), v6(0xff << 120, 8)];
    let routes = facts.routes.iter().filter(|route| route.kind == RouteKind::Broadcast);
    let addresses = facts.addresses.iter().filter_map(|address| address.broadcast).map(IpNet::from);
    let prefixes = fixed.into_iter().chain(routes.map(|route| route.prefix)).chain(addresses);
    prefixes.filter(|prefix| !prefix.addr().is_loopback()).collect()
}

/// Addresses of this node, by the routes that deliver locally and by the address list (a device that is down has no
/// such routes). Service addresses that kube-proxy's IPVS mode binds are none.
fn add_own(classes: &mut Classes, facts: &NetworkFacts) {
    let service_device = facts.link_named(SERVICE_DEVICE).map(|link| link.index);
    let class_on = |device: Option<u32>| {
        if device.is_some() && device == service_device { PeerClass::Service } else { PeerClass::Host }
    };
    let is_own = |route: &&Route| matches!(route.kind, RouteKind::Local | RouteKind::Anycast);
    let routes = facts.routes.iter().filter(is_own).map(|route| (route.prefix, class_on(route.device)));
    let addresses = facts.addresses.iter().map(|a| (IpNet::from(a.address), class_on(Some(a.device))));
    let own = routes.chain(addresses).filter(|(prefix, _)| !is_loopback(prefix.addr()));
    classes.extend(own.map(|(prefix, class)| (prefix, (class, None))));
}

const fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests;
