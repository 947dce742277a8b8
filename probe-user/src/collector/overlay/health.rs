//! Which entries the packets to each peer node need, and whether they are there: pure.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::needs_entries;
use crate::peer::{Node, Overlay, Registry};
use crate::source::netlink::{Mac, Neighbour, NetworkFacts, RouteKind};

/// Whether one entry for one peer is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Overlay device.
    pub device: String,
    /// Label of the peer node.
    pub peer_node: Arc<str>,
    /// Which entry.
    pub kind: EntryKind,
    /// It is not there.
    pub is_missing: bool,
}

/// The entries that packets to a peer need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A usable route to the peer's pods by the device.
    Route,
    /// The hardware address of the peer's VTEP.
    Neighbour,
    /// The underlay address behind that hardware address.
    Fdb,
}

impl EntryKind {
    /// The value of the `entry` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Neighbour => "neighbour",
            Self::Fdb => "fdb",
        }
    }
}

/// The state of every entry of every peer with a label, by device. Only VXLAN keeps neighbour and forwarding entries
/// that are set for each peer; on other devices the route is all there is.
#[must_use]
pub fn check_entries(facts: &NetworkFacts, registry: &Registry) -> Vec<EntryState> {
    let mut states = Vec::new();
    for overlay in &registry.overlays {
        for node in registry.nodes.iter().filter(|node| is_behind(facts, registry, overlay, node)) {
            let Some(peer_node) = node.label() else { continue };
            let view = View::of(facts, overlay, node);
            states.extend(view.missing(needs_entries(overlay.backend)).into_iter().map(
                |(kind, is_missing)| EntryState {
                    device: overlay.device.clone(),
                    peer_node: Arc::clone(&peer_node),
                    kind,
                    is_missing,
                },
            ));
        }
    }
    states
}

/// Whether a node is to be reached by this device: something on it speaks of the node, or nothing on any overlay
/// device does and this is the one device for the family of the node's pods.
fn is_behind(facts: &NetworkFacts, registry: &Registry, overlay: &Overlay, node: &Node) -> bool {
    let speaks = |overlay: &Overlay| View::of(facts, overlay, node).has_evidence();
    if speaks(overlay) {
        return true;
    }
    let inner = node.overlay.first().copied().or_else(|| node.pods.first().map(IpNet::addr));
    let Some(is_ipv4) = inner.map(|address: IpAddr| address.is_ipv4()) else { return false };
    let serves_family = |device: u32| {
        facts.addresses.iter().any(|own| own.device == device && own.address.is_ipv4() == is_ipv4)
    };
    let candidates = registry.overlays.iter().filter(|other| serves_family(other.route_index));
    let mut candidates = candidates.map(|other| other.index);
    !registry.overlays.iter().any(speaks)
        && candidates.next() == Some(overlay.index)
        && candidates.next().is_none()
}

/// The entries on one device, as seen by one peer.
struct View<'a> {
    facts: &'a NetworkFacts,
    device: u32,
    route_device: u32,
    node: &'a Node,
}

impl<'a> View<'a> {
    fn of(facts: &'a NetworkFacts, overlay: &Overlay, node: &'a Node) -> Self {
        Self { facts, device: overlay.index, route_device: overlay.route_index, node }
    }

    fn missing(&self, with_entries: bool) -> Vec<(EntryKind, bool)> {
        let mut missing = vec![(EntryKind::Route, !self.has_route())];
        if with_entries {
            missing.push((EntryKind::Neighbour, self.vteps().next().is_none()));
            missing.push((EntryKind::Fdb, !self.has_endpoint()));
        }
        missing
    }

    fn has_evidence(&self) -> bool {
        self.has_route() || self.vteps().next().is_some() || self.has_endpoint()
    }

    fn has_route(&self) -> bool {
        self.facts.routes.iter().any(|route| {
            route.device == Some(self.route_device)
                && route.kind == RouteKind::Unicast
                && !route.dead
                && route.prefix.prefix_len() > 0
                && self.node.pods.iter().any(|pods| route.prefix.contains(pods))
        })
    }

    /// Hardware addresses of the peer's tunnel endpoint.
    fn vteps(&self) -> impl Iterator<Item = Mac> {
        let is_peer = |n: &&Neighbour| n.device == self.device && self.node.overlay.contains(&n.address);
        self.facts.neighbours.iter().filter(is_peer).filter_map(|neighbour| neighbour.mac)
    }

    /// A forwarding entry for the peer's VTEP; where that is not known, any towards the peer.
    fn has_endpoint(&self) -> bool {
        let vteps: Vec<Mac> = self.vteps().collect();
        let mut entries = self.facts.fdb.iter().filter(|entry| entry.device == self.device);
        if vteps.is_empty() {
            entries.any(|entry| self.node.is_outer(entry.destination))
        } else {
            entries.any(|entry| vteps.contains(&entry.mac) && self.node.is_outer(entry.destination))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::time::timeout;

    use super::*;
    use crate::peer::fixture::{
        ETH0, Network, cilium_node, flannel_config, host_gw_node, ip, net, vxlan_node,
    };
    use crate::peer::{PeerConfig, decide_peers};
    use crate::peer::{Peers, keep_peers};
    use crate::source::netlink::tests::{
        PATIENCE, add_flannel_device, add_peer, connect, in_namespace, remove_endpoint,
    };
    use crate::source::netlink::{NetworkFeed, NetworkState};

    fn registry_of(network: &Network) -> Registry {
        decide_peers(&network.facts(), &flannel_config())
    }

    /// The missing entries after `cut`, with the registry completed from the one before.
    fn missing(network: &Network, cut: impl FnOnce(&mut Network)) -> Vec<(String, &'static str)> {
        let mut after = network.clone();
        cut(&mut after);
        let registry = registry_of(&after).completed_from(&registry_of(network));
        let states = check_entries(&after.facts(), &registry);
        let missing = states.iter().filter(|state| state.is_missing);
        missing.map(|state| (state.peer_node.to_string(), state.kind.as_str())).collect()
    }

    #[test]
    fn a_whole_vxlan_node_misses_nothing() {
        let network = vxlan_node();
        let states = check_entries(&network.facts(), &registry_of(&network));
        assert_eq!(states.len(), 6);
        assert!(states.iter().all(|state| !state.is_missing && state.device == "flannel.1"));
    }

    #[test]
    fn each_lost_entry_is_named_with_its_peer() {
        let network = vxlan_node();
        let peer = || "192.168.56.12".to_owned();
        let lost = missing(&network, |n| n.fdb.retain(|f| f.destination != ip("192.168.56.12")));
        assert_eq!(lost, [(peer(), "fdb")]);
        let lost = missing(&network, |n| n.routes.retain(|r| r.prefix != net("10.42.2.0/24")));
        assert_eq!(lost, [(peer(), "route")]);
        let lost = missing(&network, |n| n.neighbours.retain(|n| n.address != ip("10.42.2.0")));
        assert_eq!(lost, [(peer(), "neighbour")]);
    }

    #[test]
    fn a_dead_route_is_as_good_as_none() {
        let dead = |n: &mut Network| {
            n.routes.iter_mut().filter(|r| r.prefix == net("10.42.3.0/24")).for_each(|r| r.dead = true);
        };
        assert_eq!(missing(&vxlan_node(), dead), [("192.168.56.13".to_owned(), "route")]);
    }

    #[test]
    fn an_entry_for_another_vtep_does_not_count() {
        let swap = |n: &mut Network| {
            n.neighbours
                .iter_mut()
                .filter(|n| n.address == ip("10.42.2.0"))
                .for_each(|n| n.mac = Some(Mac([9; 6])));
        };
        let network = vxlan_node();
        assert_eq!(missing(&network, swap), [("192.168.56.12".to_owned(), "fdb")]);
    }

    #[test]
    fn a_peer_that_only_another_source_knows_misses_everything() {
        let network = vxlan_node();
        let mut registry = registry_of(&network);
        registry.merge(Node {
            name: Some("node4".into()),
            underlay: vec![ip("192.168.56.14")],
            pods: vec![net("10.42.4.0/24")],
            ..Node::default()
        });
        let states = check_entries(&network.facts(), &registry);
        let of_node4: Vec<_> = states.iter().filter(|state| &*state.peer_node == "node4").collect();
        assert_eq!(of_node4.len(), 3);
        assert!(of_node4.iter().all(|state| state.is_missing));
    }

    #[test]
    fn host_gw_needs_routes_only() {
        let network = host_gw_node();
        let states = check_entries(&network.facts(), &registry_of(&network));
        let kinds: Vec<_> = states.iter().map(|state| (state.device.as_str(), state.kind.as_str())).collect();
        assert_eq!(kinds, [("eth0", "route"), ("eth0", "route")]);
    }

    #[test]
    fn cilium_needs_routes_by_its_other_device() {
        let mut network = cilium_node();
        let mut registry = decide_peers(&network.facts(), &PeerConfig::default());
        for (name, pods) in [("node2", "10.0.2.0/24"), ("node3", "10.0.3.0/24")] {
            registry.merge(Node { name: Some(name.into()), pods: vec![net(pods)], ..Node::default() });
        }
        network.routes.retain(|route| route.prefix != net("10.0.3.0/24"));
        let states = check_entries(&network.facts(), &registry);
        let shown: Vec<_> = states
            .iter()
            .map(|s| (s.device.as_str(), &*s.peer_node, s.kind.as_str(), s.is_missing))
            .collect();
        assert_eq!(
            shown,
            [("cilium_vxlan", "node2", "route", false), ("cilium_vxlan", "node3", "route", true)]
        );
    }

    #[test]
    fn a_directly_routed_peer_is_not_missed_on_the_vxlan_device() {
        let mut network = vxlan_node();
        network.route("10.42.5.0/24", Some("192.168.56.15"), ETH0);
        let states = check_entries(&network.facts(), &registry_of(&network));
        let devices: Vec<_> =
            states.iter().filter(|s| &*s.peer_node == "192.168.56.15").map(|s| s.device.as_str()).collect();
        assert_eq!(devices, ["eth0"]);
    }

    #[test]
    fn nothing_is_missed_where_nothing_is_known() {
        let registry = decide_peers(&NetworkFacts::default(), &PeerConfig::default());
        assert_eq!(check_entries(&NetworkFacts::default(), &registry), []);
    }

    /// What flanneld sets up in a namespace of its own, all the way from the kernel to the missing entry.
    #[test]
    fn a_lost_forwarding_entry_is_noticed_in_the_kernels_own_state() {
        in_namespace(|| async {
            let state = NetworkState::default();
            let feed = NetworkFeed::open(&state).await.unwrap();
            let facts = state.facts();
            tokio::spawn(feed.run());
            let peers = Arc::new(Peers::default());
            let mut registry = peers.receiver();
            let nowhere = PathBuf::from("/nonexistent/root");
            tokio::spawn(keep_peers(facts.clone(), Arc::clone(&peers), PeerConfig::default(), nowhere));
            let handle = connect();
            add_flannel_device(&handle).await;
            let device =
                facts.clone().wait_for(|f| f.link_named("flannel.1").is_some()).await.unwrap().clone();
            let index = device.link_named("flannel.1").unwrap().index;
            handle.address().add(index, "10.42.1.0".parse().unwrap(), 32).execute().await.unwrap();
            add_peer(&handle, index).await;
            let is_whole = |registry: &Arc<Registry>| {
                let states = check_entries(&facts.borrow(), registry);
                states.len() == 3 && states.iter().all(|state| !state.is_missing)
            };
            timeout(PATIENCE, registry.wait_for(is_whole)).await.expect("no whole peer").unwrap();
            let peer = registry.borrow().nodes[0].clone();
            assert_eq!(peer.label().as_deref(), Some("192.168.56.12"));
            assert_eq!(peer.pods, ["10.42.2.0/24".parse().unwrap()]);

            remove_endpoint(&handle, index).await;
            let mut after = facts.clone();
            timeout(PATIENCE, after.wait_for(|f| f.fdb.is_empty())).await.expect("entry stays").unwrap();
            let missing = |states: Vec<EntryState>| {
                let missing = states.into_iter().filter(|state| state.is_missing);
                missing.map(|state| (state.peer_node.to_string(), state.kind)).collect::<Vec<_>>()
            };
            let states = check_entries(&after.borrow(), &registry.borrow());
            assert_eq!(missing(states), [("192.168.56.12".to_owned(), EntryKind::Fdb)]);
        });
    }
}
