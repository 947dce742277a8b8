//! Which paths this node probes: to whom, on which layer, at which address. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::peer::{Node, Registry, Rendezvous};

/// Up to so many other nodes each probes each.
const NODES_ALL: usize = 32;
/// Nodes that probe one node where there are more.
const PROBERS: usize = 16;

/// The addresses of a node on a layer.
type Addresses = fn(&Node) -> &[IpAddr];

/// What a path leads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// The network of the nodes' own addresses.
    Underlay,
    /// A tunnel between hosts.
    Tunnel,
    /// The network between pods.
    Overlay,
}

impl Layer {
    /// Every layer, with the addresses that a node has on it.
    const ALL: [(Self, Addresses); 3] = [
        (Self::Underlay, |node| &node.underlay),
        (Self::Tunnel, |node| &node.tunnel),
        (Self::Overlay, |node| &node.overlay),
    ];

    /// The value of the label `layer`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Underlay => "underlay",
            Self::Tunnel => "tunnel",
            Self::Overlay => "overlay",
        }
    }
}

/// A path from this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathKey {
    /// The value of the label `peer_node`.
    pub peer: Arc<str>,
    /// What it leads through.
    pub layer: Layer,
}

/// What is probed, and the nodes of which that was decided.
#[derive(Debug, Default)]
pub struct Plan {
    /// The nodes.
    pub registry: Arc<Registry>,
    /// The paths, each with the address at its end.
    pub paths: BTreeMap<PathKey, IpAddr>,
}

impl Plan {
    /// The plan for these nodes.
    #[must_use]
    pub fn of(registry: Arc<Registry>) -> Self {
        Self { paths: decide_paths(&registry), registry }
    }
}

/// The paths to probe, each with the address at its end: the node's first one on the layer, IPv4 before IPv6.
fn decide_paths(registry: &Registry) -> BTreeMap<PathKey, IpAddr> {
    let choice = (registry.nodes.len() > NODES_ALL).then(|| Rendezvous::of(registry, &BTreeSet::new()));
    let is_ours = |label: &str| choice.as_ref().is_none_or(|choice| choice.is_chosen(label, PROBERS));
    let labelled = registry.nodes.iter().filter_map(|node| Some((node, node.label()?)));
    let paths = labelled.filter(|(_, label)| is_ours(label)).flat_map(|(node, peer)| {
        Layer::ALL.into_iter().filter_map(move |(layer, addresses)| {
            let address = addresses(node).iter().find(|address| is_probed(**address))?;
            Some((PathKey { peer: Arc::clone(&peer), layer }, *address))
        })
    });
    paths.collect()
}

/// A link-local address needs an interface beside it, and a group is nobody.
const fn is_probed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_unspecified(),
        IpAddr::V6(address) => {
            !address.is_multicast() && !address.is_unspecified() && !address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, underlay: &[&str], overlay: &[&str]) -> Node {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Node {
            name: Some(name.into()),
            underlay: parse(underlay),
            overlay: parse(overlay),
            ..Node::default()
        }
    }

    fn shown(paths: &BTreeMap<PathKey, IpAddr>) -> Vec<String> {
        let shown =
            |(key, address): (&PathKey, &IpAddr)| format!("{} {} {address}", key.peer, key.layer.as_str());
        paths.iter().map(shown).collect()
    }

    #[test]
    fn each_layer_on_which_a_node_has_an_address_is_a_path() {
        let mut registry =
            Registry { local: node("a", &["192.0.2.1"], &["10.42.1.0"]), ..Registry::default() };
        registry.nodes = vec![
            node("b", &["192.0.2.2", "2001:db8::2"], &["10.42.2.0"]),
            node("c", &["fe80::3", "2001:db8::3"], &[]),
            Node { pods: vec!["10.42.9.0/24".parse().unwrap()], ..Node::default() },
        ];
        registry.nodes[0].tunnel = vec!["100.64.0.2".parse().unwrap()];
        let expected =
            ["b underlay 192.0.2.2", "b tunnel 100.64.0.2", "b overlay 10.42.2.0", "c underlay 2001:db8::3"];
        assert_eq!(shown(&decide_paths(&registry)), expected);
    }

    #[test]
    fn nobody_else_is_no_path() {
        let registry = Registry { local: node("a", &["192.0.2.1"], &[]), ..Registry::default() };
        assert_eq!(decide_paths(&registry), BTreeMap::new());
    }

    #[test]
    fn in_a_large_cluster_each_node_is_probed_by_about_sixteen() {
        let all: Vec<Node> = (0..200_u8)
            .map(|number| node(&format!("node{number}"), &[&format!("192.0.2.{number}")], &[]))
            .collect();
        let mut probers = BTreeMap::<Arc<str>, usize>::new();
        for local in &all {
            let nodes = all.iter().filter(|node| *node != local).cloned().collect();
            let registry = Registry { local: local.clone(), nodes, ..Registry::default() };
            for key in decide_paths(&registry).into_keys() {
                *probers.entry(key.peer).or_default() += 1;
            }
        }
        // A node may be among those that its own name chooses.
        assert!(
            probers.len() == 200 && probers.values().all(|count| [15, 16].contains(count)),
            "{probers:?}"
        );
    }

    /// Nodes of a cluster of a thousand, each as it is seen by itself.
    fn thousand() -> impl Iterator<Item = Registry> {
        let all: Vec<Node> = (0..1_000_u16)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                node(&format!("node{number}"), &[&format!("198.18.{high}.{low}")], &[])
            })
            .collect();
        (0..all.len()).map(move |number| {
            let mut nodes = all.clone();
            let local = nodes.swap_remove(number);
            Registry { local, nodes, ..Registry::default() }
        })
    }

    /// Of the others each is probed with a likelihood of 16 in 1000: 16 on average, with a deviation of 4, and five
    /// deviations more in one of a million nodes.
    #[test]
    fn of_a_thousand_nodes_each_probes_about_sixteen() {
        let counts: Vec<usize> =
            thousand().step_by(100).map(|registry| decide_paths(&registry).len()).collect();
        assert!(counts.iter().all(|count| (1..=36).contains(count)), "{counts:?}");
        let mean = counts.iter().sum::<usize>() / counts.len();
        assert!((12..=20).contains(&mean), "{counts:?}");
    }

    #[test]
    fn of_a_thousand_nodes_sixteen_probe_each() {
        let mut probers = [0; 3];
        for registry in thousand() {
            let choice = Rendezvous::of(&registry, &BTreeSet::new());
            for (label, count) in ["node0", "node500", "node999"].iter().zip(&mut probers) {
                *count += usize::from(choice.is_chosen(label, PROBERS));
            }
        }
        assert_eq!(probers, [PROBERS; 3]);
    }
}
