//! Nodes and the registry of them: how two pieces of knowledge about a node become one.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::family::is_pair;
use super::overlay::Overlay;

/// A node, with what is known of it on each layer. Lists are sorted and without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Kubernetes or configured name.
    pub name: Option<Arc<str>>,
    /// Addresses of the underlay.
    pub underlay: Vec<IpAddr>,
    /// Addresses in a tunnel between hosts (Tailscale, `WireGuard`).
    pub tunnel: Vec<IpAddr>,
    /// Where packets for it in that tunnel are sent to at the moment.
    pub endpoint: Option<IpAddr>,
    /// Addresses of its overlay devices.
    pub overlay: Vec<IpAddr>,
    /// Where what is encapsulated for those is sent to, where no forwarding entry of the kernel says so (Cilium).
    pub overlay_endpoint: Option<IpAddr>,
    /// Prefixes of its pods.
    pub pods: Vec<IpNet>,
}

impl Node {
    /// The value of the `peer_node` label: the name, else the first underlay address, else (a node of which only
    /// inner addresses are known) the first one of those. `None` when only pod prefixes are known.
    #[must_use]
    pub fn label(&self) -> Option<Arc<str>> {
        let address = || self.addresses().next().map(|address| address.to_string().into());
        self.name.clone().or_else(address)
    }

    /// All addresses, the underlay's first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.underlay.iter().chain(&self.tunnel).chain(&self.overlay).copied()
    }

    /// Whether that is an address of what overlays ride on: its underlay, or a tunnel.
    #[must_use]
    pub fn is_outer(&self, address: IpAddr) -> bool {
        self.underlay.contains(&address) || self.tunnel.contains(&address)
    }

    /// Whether both are the same node: one name, one address or one pod prefix in common.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let name = self.name.is_some() && self.name == other.name;
        let address = || self.addresses().any(|mine| other.addresses().any(|theirs| mine == theirs));
        let pods = || self.pods.iter().any(|mine| other.pods.iter().any(|theirs| is_nested(mine, theirs)));
        name || address() || pods()
    }

    /// Adds what another description of the same node knows; its name, where it has one, wins.
    pub fn absorb(&mut self, other: Self) {
        self.name = other.name.or(self.name.take());
        extend(&mut self.underlay, other.underlay);
        extend(&mut self.tunnel, other.tunnel);
        self.endpoint = other.endpoint.or(self.endpoint);
        extend(&mut self.overlay, other.overlay);
        self.overlay_endpoint = other.overlay_endpoint.or(self.overlay_endpoint);
        extend(&mut self.pods, other.pods);
    }
}

/// Whether one prefix holds the other; different families never do.
pub(super) fn is_nested(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

pub(super) fn extend<T: Ord>(into: &mut Vec<T>, more: Vec<T>) {
    into.extend(more);
    into.sort_unstable();
    into.dedup();
}

/// All that is known of the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// This node.
    pub local: Node,
    /// The others, sorted by label.
    pub nodes: Vec<Node>,
    /// The overlay devices of this node, sorted by name.
    pub overlays: Vec<Overlay>,
    /// The nodes that the cluster has by its API, this one among them; `None` where that has not said it.
    pub members: Option<Arc<[Node]>>,
}

impl Registry {
    /// **The one place where knowledge is joined**: every source's description of a node ends here. What is the
    /// same as one or several known nodes makes them one; what is this node goes to `local`.
    pub fn merge(&mut self, mut node: Node) {
        if node.is_same(&self.local) {
            self.local.absorb(node);
            return;
        }
        let (same, others) =
            std::mem::take(&mut self.nodes).into_iter().partition(|known| known.is_same(&node));
        self.nodes = others;
        for known in same {
            let newer = std::mem::replace(&mut node, known);
            node.absorb(newer);
        }
        self.nodes.push(node);
        self.sort();
    }

    pub(super) fn sort(&mut self) {
        self.nodes.sort_by_cached_key(|node| (node.label(), node.pods.clone()));
    }

    /// Fills gaps from the registry before: a node of which one entry was lost (a route, a forwarding entry) keeps
    /// what that entry said, for as long as anything at all still speaks of the node. Without this a lost entry
    /// would turn the node into another one, and nobody would miss the entry.
    #[must_use]
    pub fn completed_from(mut self, before: &Self) -> Self {
        for node in &mut self.nodes {
            let Some(known) = before.nodes.iter().find(|known| known.is_same(node)) else { continue };
            fill(&mut node.underlay, &known.underlay);
            fill(&mut node.tunnel, &known.tunnel);
            fill(&mut node.overlay, &known.overlay);
            fill(&mut node.pods, &known.pods);
        }
        for families in self.known_pairs(before) {
            self.merge(families);
        }
        // Two halves of a node may have become the same again.
        for node in std::mem::take(&mut self.nodes) {
            self.merge(node);
        }
        self
    }

    /// What was one node of both families before and is two of one family each now: the evidence that joined them
    /// is a neighbour entry, which goes when nobody has talked for a while.
    fn known_pairs(&self, before: &Self) -> Vec<Node> {
        let shares = |known: &Node, node: &&Node| node.underlay.iter().any(|a| known.underlay.contains(a));
        let halves = |known: &Node| {
            let mut halves = self.nodes.iter().filter(|node| shares(known, node));
            (halves.next().zip(halves.next())).filter(|_| halves.next().is_none())
        };
        let pairs = before.nodes.iter().filter_map(halves).filter(|(first, second)| is_pair(first, second));
        pairs
            .map(|(first, second)| Node {
                underlay: [&first.underlay[..], &second.underlay].concat(),
                ..Node::default()
            })
            .collect()
    }

    /// The node that has this address on any layer.
    #[must_use]
    pub fn node_of(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| node.addresses().any(|known| known == address))
    }

    /// The node that a packet to this address goes to: the one that has it on any layer, or whose pods have it, by the
    /// longest prefix, or that packets of a tunnel are sent to there.
    #[must_use]
    pub fn node_behind(&self, address: IpAddr) -> Option<&Node> {
        let prefix = |node: &Node| {
            let pods = node.pods.iter().filter(|pods| pods.contains(&address));
            pods.map(IpNet::prefix_len).max()
        };
        let pods = || {
            let behind = self.nodes.iter().filter_map(|node| Some((prefix(node)?, node)));
            behind.max_by_key(|(length, _)| *length).map(|(_, node)| node)
        };
        let endpoint = || self.nodes.iter().find(|node| node.endpoint == Some(address));
        self.node_of(address).or_else(pods).or_else(endpoint)
    }

    /// The label that a node has now which was known by this address; `None`: it is no address, or nobody's.
    #[must_use]
    pub fn label_of_address(&self, text: &str) -> Option<Arc<str>> {
        self.node_of(text.parse().ok()?).and_then(Node::label)
    }
}

fn fill<T: Clone>(gap: &mut Vec<T>, known: &[T]) {
    if gap.is_empty() {
        gap.extend_from_slice(known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn node(name: Option<&str>, underlay: &str, pods: &str) -> Node {
        Node {
            name: name.map(Into::into),
            underlay: underlay.split_whitespace().map(ip).collect(),
            pods: pods.split_whitespace().map(|net| net.parse().unwrap()).collect(),
            ..Node::default()
        }
    }

    #[test]
    fn the_label_prefers_name_then_underlay_then_inner_addresses() {
        let mut node = Node { overlay: vec![ip("10.42.2.0")], ..Node::default() };
        assert_eq!(node.label().as_deref(), Some("10.42.2.0"));
        node.underlay = vec![ip("192.168.56.12")];
        assert_eq!(node.label().as_deref(), Some("192.168.56.12"));
        node.name = Some("node2".into());
        assert_eq!(node.label().as_deref(), Some("node2"));
        assert_eq!(Node { pods: vec!["10.42.2.0/24".parse().unwrap()], ..Node::default() }.label(), None);
    }

    #[test]
    fn an_address_is_behind_its_node_or_the_one_with_the_narrowest_pods() {
        let mut registry = Registry::default();
        registry.merge(Node {
            endpoint: Some(ip("203.0.113.1")),
            ..node(Some("a"), "192.0.2.1", "10.42.0.0/16")
        });
        registry.nodes.push(node(Some("b"), "10.42.9.9", "10.42.2.0/24"));
        let behind = |text| registry.node_behind(ip(text)).and_then(Node::label);
        for (address, label) in [
            ("192.0.2.1", "a"),
            ("10.42.2.7", "b"),
            ("10.42.9.9", "b"),
            ("10.42.3.7", "a"),
            ("203.0.113.1", "a"),
        ] {
            assert_eq!(behind(address).as_deref(), Some(label), "{address}");
        }
        assert_eq!(behind("198.51.100.1"), None);
    }

    #[test]
    fn a_description_that_joins_two_nodes_makes_them_one() {
        let mut registry = Registry::default();
        registry.merge(node(None, "192.168.56.12", "10.42.2.0/24"));
        registry.merge(node(None, "fd00:56::12", "fd00:42:0:2::/64"));
        assert_eq!(registry.nodes.len(), 2);
        registry.merge(node(Some("node2"), "192.168.56.12 fd00:56::12", ""));
        assert_eq!(registry.nodes.len(), 1);
        let joined = &registry.nodes[0];
        assert_eq!(
            (joined.label().as_deref(), joined.underlay.len(), joined.pods.len()),
            (Some("node2"), 2, 2)
        );
    }

    #[test]
    fn this_node_is_never_its_own_peer() {
        let mut registry = Registry { local: node(None, "192.168.56.11", ""), ..Registry::default() };
        registry.merge(node(Some("node1"), "192.168.56.11", "10.42.1.0/24"));
        assert_eq!(registry.nodes, []);
        assert_eq!(registry.local.name.as_deref(), Some("node1"));
    }

    #[test]
    fn the_later_name_wins() {
        let mut registry = Registry::default();
        registry.merge(node(Some("configured"), "192.168.56.12", ""));
        registry.merge(node(Some("node2"), "192.168.56.12", ""));
        registry.merge(node(None, "192.168.56.12", ""));
        assert_eq!(registry.nodes[0].name.as_deref(), Some("node2"));
    }

    #[test]
    fn a_lost_entry_does_not_make_another_node() {
        let before = {
            let mut registry = Registry::default();
            registry.merge(node(None, "192.168.56.12", "10.42.2.0/24"));
            registry
        };
        let mut now = Registry::default();
        now.merge(node(None, "", "10.42.2.0/24"));
        let now = now.completed_from(&before);
        assert_eq!(now.nodes, before.nodes);
        let gone = Registry::default().completed_from(&before);
        assert_eq!(gone.nodes, []);
    }

    #[test]
    fn a_changed_address_replaces_the_remembered_one() {
        let mut before = Registry::default();
        before.merge(node(None, "192.168.56.12", "10.42.2.0/24"));
        let mut now = Registry::default();
        now.merge(node(None, "192.168.56.99", "10.42.2.0/24"));
        assert_eq!(now.completed_from(&before).nodes[0].underlay, [ip("192.168.56.99")]);
    }
}
