//! Which nodes of a tunnel between hosts are nodes of the cluster: pure.
//!
//! A tailnet has laptops and other clusters in it, which are none of ours. One of its nodes is a node of the cluster if
//! that has one of its addresses already (the tailnet's addresses are the nodes' own), its name, or pods whose prefix the
//! tunnel carries to it. Where it sends from
//! is no evidence: a subnet router in a pod sends from the address of its node, and a site from that of its gateway.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::node::{Node, Registry, extend};

/// What the daemon of a tunnel knows of all ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// Addresses of this end.
    pub own: Vec<IpAddr>,
    /// The other ends.
    pub ends: Vec<TunnelEnd>,
}

/// Another end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Its name.
    pub name: Arc<str>,
    /// Its addresses within the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Where packets for it are sent to at the moment.
    pub endpoint: Option<IpAddr>,
    /// Prefixes behind it that the tunnel carries.
    pub prefixes: Vec<IpNet>,
}

/// Whether the tunnel ends at a device of this node. One that ends in a pod, or without a device, reaches nobody from
/// here.
pub(super) fn is_end(registry: &Registry, tunnel: &Tunnel) -> bool {
    registry.local.addresses().any(|address| tunnel.own.contains(&address))
}

/// Gives the nodes their addresses in the tunnel, and takes these out of their underlay: it is the tunnel that carries
/// what goes there.
pub(super) fn join_tunnel(registry: &mut Registry, tunnel: &Tunnel) {
    put(&mut registry.local, &tunnel.own);
    for end in &tunnel.ends {
        let is_named = |node: &Node| node.name.as_ref() == Some(&end.name);
        let is_its = |node: &&Node| {
            is_named(node)
                || node.addresses().any(|known| end.addresses.contains(&known))
                || node.pods.iter().any(|pods| end.prefixes.contains(pods))
        };
        // One that was known by its name and one that was known by its address are the same from here on.
        if registry.nodes.iter().filter(is_its).count() > 1 {
            let name = registry.nodes.iter().any(is_named).then(|| Arc::clone(&end.name));
            let pods =
                registry.nodes.iter().flat_map(|node| &node.pods).filter(|pods| end.prefixes.contains(pods));
            let pods = pods.copied().collect();
            registry.merge(Node { name, tunnel: end.addresses.clone(), pods, ..Node::default() });
        }
        for node in registry.nodes.iter_mut().filter(|node| is_its(&&**node)) {
            put(node, &end.addresses);
            node.endpoint = end.endpoint;
        }
    }
    registry.sort();
}

fn put(node: &mut Node, addresses: &[IpAddr]) {
    node.underlay.retain(|address| !addresses.contains(address));
    extend(&mut node.tunnel, addresses.to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::fixture::{ip, net};

    fn node(name: Option<&str>, underlay: &[&str]) -> Node {
        let underlay = underlay.iter().map(|text| ip(text)).collect();
        Node { name: name.map(Into::into), underlay, ..Node::default() }
    }

    fn end(name: &str, addresses: &[&str]) -> TunnelEnd {
        let addresses = addresses.iter().map(|text| ip(text)).collect();
        TunnelEnd {
            name: name.into(),
            addresses,
            endpoint: Some(ip("192.168.56.12")),
            prefixes: vec![net("10.42.2.0/24")],
        }
    }

    fn joined(own: &[&str], nodes: Vec<Node>) -> Registry {
        let mut registry = Registry { local: node(Some("node1"), own), nodes, ..Registry::default() };
        let ends = vec![
            end("node2", &["100.64.0.2", "fd7a:115c:a1e0::2"]),
            TunnelEnd { prefixes: Vec::new(), ..end("laptop", &["100.64.0.9", "fd7a:115c:a1e0::9"]) },
        ];
        let tunnel = Tunnel { own: vec![ip("100.64.0.1")], ends };
        if is_end(&registry, &tunnel) {
            join_tunnel(&mut registry, &tunnel);
        }
        registry
    }

    #[test]
    fn a_node_of_that_name_gets_its_addresses() {
        let registry =
            joined(&["192.168.56.11", "100.64.0.1"], vec![node(Some("node2"), &["192.168.56.12"])]);
        let node = &registry.nodes[0];
        assert_eq!(node.underlay, [ip("192.168.56.12")]);
        assert_eq!(node.tunnel, [ip("100.64.0.2"), ip("fd7a:115c:a1e0::2")]);
        assert_eq!(node.endpoint, Some(ip("192.168.56.12")));
        assert_eq!(registry.local.underlay, [ip("192.168.56.11")]);
        assert_eq!(registry.local.tunnel, [ip("100.64.0.1")]);
    }

    #[test]
    fn a_node_that_is_known_by_that_address_has_it_in_the_tunnel() {
        let registry =
            joined(&["100.64.0.1"], vec![node(None, &["100.64.0.2"]), node(Some("node3"), &["100.64.0.3"])]);
        let nodes: Vec<_> =
            registry.nodes.iter().map(|node| (node.underlay.len(), node.tunnel.len())).collect();
        assert_eq!(nodes, [(0, 2), (1, 0)]);
        assert_eq!(registry.nodes[0].label().as_deref(), Some("100.64.0.2"));
    }

    #[test]
    fn what_is_known_of_a_node_by_its_name_and_by_its_address_is_joined() {
        let (named, outer) = (node(Some("node2"), &["192.168.56.12"]), node(None, &["100.64.0.2"]));
        let outer = Node { overlay: vec![ip("10.42.2.0")], ..outer };
        let registry = joined(&["192.168.56.11", "100.64.0.1"], vec![outer, named]);
        assert_eq!(registry.nodes.len(), 1);
        let node = &registry.nodes[0];
        assert_eq!((node.name.as_deref(), node.underlay.len()), (Some("node2"), 1));
        assert_eq!((node.tunnel.len(), node.overlay.len()), (2, 1));
    }

    #[test]
    fn a_node_of_which_only_pods_are_known_is_the_one_that_the_tunnel_carries_them_to() {
        let pods = |prefix: &str| Node { pods: vec![net(prefix)], ..Node::default() };
        let named = node(Some("node2"), &["192.168.56.12"]);
        let registry = joined(&["100.64.0.1"], vec![pods("10.42.2.0/24"), pods("10.42.3.0/24")]);
        let tunnels: Vec<_> = registry.nodes.iter().map(|node| node.tunnel.len()).collect();
        assert_eq!((tunnels.iter().sum::<usize>(), registry.nodes.len()), (2, 2));
        let registry = joined(&["100.64.0.1"], vec![pods("10.42.2.0/24"), named]);
        let node = &registry.nodes[0];
        assert_eq!((registry.nodes.len(), node.pods.len(), node.tunnel.len()), (1, 1, 2));
    }

    #[test]
    fn the_sender_of_packets_is_no_evidence() {
        let before = vec![node(Some("other"), &["192.168.56.12"])];
        assert_eq!(joined(&["100.64.0.1"], before.clone()).nodes, before);
    }

    #[test]
    fn who_is_no_node_stays_none() {
        assert_eq!(joined(&["100.64.0.1"], Vec::new()).nodes, []);
    }

    #[test]
    fn a_tunnel_without_a_device_here_reaches_nobody() {
        let before = vec![node(Some("node2"), &["192.168.56.12"])];
        assert_eq!(joined(&["192.168.56.11"], before.clone()).nodes, before);
    }
}
