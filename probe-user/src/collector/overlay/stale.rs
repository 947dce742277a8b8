//! Which entries speak for a node that the cluster does not have: pure.
//!
//! A daemon that was down while a node was removed leaves its entries behind, and nobody else ever takes them away: packets to
//! prefixes that another node has by now go nowhere.

use super::EntryKind;
use crate::peer::{Backend, Node, Overlay, Registry};
use crate::source::netlink::{FdbEntry, Mac, NetworkFacts, Route, RouteKind};

/// How many entries of a kind on a device belong to no node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleEntries {
    /// Overlay device.
    pub device: String,
    /// Which kind.
    pub kind: EntryKind,
    /// The number.
    pub count: usize,
}

/// The number of every kind that each device has; `None` where nobody says which nodes the cluster has.
#[must_use]
pub fn count_stale(facts: &NetworkFacts, registry: &Registry) -> Option<Vec<StaleEntries>> {
    let members = registry.members.as_deref()?;
    let view = |overlay| View { facts, registry, members, overlay };
    Some(registry.overlays.iter().flat_map(|overlay| view(overlay).counts()).collect())
}

struct View<'a> {
    facts: &'a NetworkFacts,
    registry: &'a Registry,
    members: &'a [Node],
    overlay: &'a Overlay,
}

impl View<'_> {
    fn counts(&self) -> Vec<StaleEntries> {
        let mut counts = vec![(EntryKind::Route, self.routes())];
        if self.overlay.backend == Backend::Vxlan {
            counts.extend([(EntryKind::Neighbour, self.neighbours()), (EntryKind::Fdb, self.endpoints())]);
        }
        let device = &self.overlay.device;
        counts.into_iter().map(|(kind, count)| StaleEntries { device: device.clone(), kind, count }).collect()
    }

    fn member(&self, node: &Node) -> Option<&Node> {
        let name = node.name.as_ref()?;
        self.members.iter().find(|member| member.name.as_ref() == Some(name))
    }

    /// Routes to pods of a node that is none of the cluster. A route that is nobody's is no route to pods.
    fn routes(&self) -> usize {
        let ours = self.facts.routes.iter().filter(|route| {
            route.device == Some(self.overlay.route_index)
                && route.kind == RouteKind::Unicast
                && route.prefix.prefix_len() > 0
        });
        let owner = |route: &&Route| {
            self.registry.nodes.iter().find(|node| node.pods.iter().any(|pods| route.prefix.contains(pods)))
        };
        ours.filter(|route| owner(route).is_some_and(|node| self.member(node).is_none())).count()
    }

    fn neighbours(&self) -> usize {
        let ours = self.facts.neighbours.iter().filter(|entry| entry.device == self.overlay.index);
        ours.filter(|entry| {
            self.registry.node_of(entry.address).is_some_and(|node| self.member(node).is_none())
        })
        .count()
    }

    fn endpoints(&self) -> usize {
        let ours = self.facts.fdb.iter().filter(|entry| entry.device == self.overlay.index);
        ours.filter(|entry| entry.mac != Mac([0; 6]) && self.is_stale(entry)).count()
    }

    /// Also where the cluster has another address for the node. That is known where flannel keeps its own in the API, and
    /// there its prefixes are known as well.
    fn is_stale(&self, entry: &FdbEntry) -> bool {
        let mut nodes = self.registry.nodes.iter();
        let Some(node) = nodes.find(|node| node.is_outer(entry.destination)) else { return true };
        self.member(node).is_none_or(|member| !member.pods.is_empty() && !member.is_outer(entry.destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::fixture::{FLANNEL, Network, cilium_node, flannel_config, ip, net, vxlan_node};
    use crate::peer::{PeerConfig, decide_peers};

    fn member(name: &str, address: &str) -> Node {
        Node { name: Some(name.into()), underlay: vec![ip(address)], ..Node::default() }
    }

    /// Counts of routes, neighbours and forwarding entries, as the API has these nodes.
    fn counts(network: &Network, members: &[Node]) -> Vec<usize> {
        let mut registry = decide_peers(&network.facts(), &flannel_config());
        for member in members {
            registry.merge(member.clone());
        }
        registry.members = Some(members.into());
        count_stale(&network.facts(), &registry).unwrap().iter().map(|entry| entry.count).collect()
    }

    fn all() -> Vec<Node> {
        vec![
            member("node1", "192.168.56.11"),
            member("node2", "192.168.56.12"),
            member("node3", "192.168.56.13"),
        ]
    }

    #[test]
    fn what_belongs_to_nodes_of_the_cluster_is_not_stale() {
        assert_eq!(counts(&vxlan_node(), &all()), [0, 0, 0]);
    }

    #[test]
    fn all_entries_of_a_node_that_the_cluster_does_not_have_are() {
        assert_eq!(counts(&vxlan_node(), &all()[..2]), [1, 1, 1]);
        assert_eq!(counts(&vxlan_node(), &all()[..1]), [2, 2, 2]);
    }

    #[test]
    fn an_address_that_a_node_had_before_is_where_the_api_has_flannels() {
        let mut network = vxlan_node();
        network.fdb[1].destination = ip("192.168.56.99");
        let mut members = all();
        members[2].overlay = vec![ip("10.42.3.0")];
        assert_eq!(counts(&network, &members), [0, 0, 0]);
        members[2].pods = vec![net("10.42.3.0/24")];
        assert_eq!(counts(&network, &members), [0, 0, 1]);
    }

    #[test]
    fn what_is_nobodys_is_left_aside() {
        let mut network = vxlan_node();
        network.route("172.16.0.0/12", None, FLANNEL);
        network.fdb.push(FdbEntry {
            device: FLANNEL,
            mac: Mac([0; 6]),
            destination: ip("192.168.56.99"),
            permanent: true,
        });
        assert_eq!(counts(&network, &all()), [0, 0, 0]);
    }

    #[test]
    fn ciliums_prefixes_are_compared_as_well() {
        let mut registry = decide_peers(&cilium_node().facts(), &PeerConfig::default());
        let known = Node { pods: vec![net("10.0.2.0/24")], ..member("node2", "192.168.56.12") };
        registry.merge(known.clone());
        registry.members = Some([known].into());
        let stale = count_stale(&cilium_node().facts(), &registry).unwrap();
        let expected = StaleEntries { device: "cilium_vxlan".to_owned(), kind: EntryKind::Route, count: 1 };
        assert_eq!(stale, [expected]);
    }

    #[test]
    fn without_the_api_nothing_is_said() {
        let registry = decide_peers(&vxlan_node().facts(), &flannel_config());
        assert_eq!(count_stale(&vxlan_node().facts(), &registry), None);
    }
}
