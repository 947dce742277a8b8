//! What paths really lead through, by the kernel's own look-ups: an overlay may ride inside a tunnel, a tunnel inside the
//! overlay, and a node's address may be reached through either. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::plan::{Layer, PathKey};
use crate::peer::{CILIUM_HOST, Node};
use crate::source::netlink::{Link, LinkKind, Mac, NetworkFacts};

/// Bytes of headers without options.
const IPV4: u32 = 20;
const IPV6: u32 = 40;
const UDP: u32 = 8;
/// VXLAN's own header and that of the inner Ethernet (RFC 7348, 5).
const VXLAN: u32 = 8 + 14;
/// Header and authentication of `WireGuard`'s data, which it pads.
const WIREGUARD: u32 = 16 + 16;
const WIREGUARD_PAD: u32 = 16;

/// The devices of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ride {
    /// The device by which packets to the address leave; none where no route leads there.
    pub device: Option<String>,
    /// The device by which these leave in turn, encapsulated; none where they are not, or where that cannot be told.
    pub carrier: Option<String>,
    /// Whether they are encapsulated more often than the layer says; none where that cannot be told.
    pub is_nested: Option<bool>,
    /// The largest packet that the kernel sends there: the device's, or less by the route or a router's word.
    pub mtu: Option<u32>,
    /// The largest packet that is still whole when it is encapsulated: what the MTU should be.
    pub fitting_mtu: Option<u32>,
}

/// The largest packet of IP that fits, encapsulated by the device, into one of the carrier's size, which goes to `outer`.
/// `None` where it is not known what the device puts around it.
#[must_use]
pub fn fitting_mtu(device: &Link, carrier: u32, outer: IpAddr) -> Option<u32> {
    let space = carrier.checked_sub(UDP + if outer.is_ipv6() { IPV6 } else { IPV4 })?;
    match device.kind {
        LinkKind::Vxlan(_) => space.checked_sub(VXLAN),
        LinkKind::Tun | LinkKind::Wireguard => {
            Some(space.checked_sub(WIREGUARD)? / WIREGUARD_PAD * WIREGUARD_PAD)
        }
        _ => None,
    }
}

/// Where a device sends what it has encapsulated for a node.
#[must_use]
pub fn outer_address(device: &Link, node: &Node, facts: &NetworkFacts) -> Option<IpAddr> {
    match device.kind {
        LinkKind::Vxlan(_) => {
            let entries = facts.fdb.iter().filter(|entry| entry.device == device.index);
            let mut ours = entries.filter(|entry| node.is_outer(entry.destination));
            let vteps: Vec<Mac> = facts
                .neighbours
                .iter()
                .filter(|entry| entry.device == device.index && node.overlay.contains(&entry.address))
                .filter_map(|entry| entry.mac)
                .collect();
            // A daemon leaves entries of endpoints behind that are not used any more.
            ours.find(|entry| vteps.is_empty() || vteps.contains(&entry.mac)).map(|entry| entry.destination)
        }
        LinkKind::Tun | LinkKind::Wireguard => node.endpoint,
        _ if device.name == CILIUM_HOST => node.overlay_endpoint,
        _ => None,
    }
}

/// The ride of a path from its device and the device of the [outer address](outer_address).
#[must_use]
pub fn decide_ride(layer: Layer, device: Option<&Link>, carrier: Option<&Link>) -> Ride {
    let is_wrapped = device.map(encapsulates);
    let is_nested = match (layer, is_wrapped, carrier) {
        (Layer::Underlay, Some(is_wrapped), _) => Some(is_wrapped),
        // Routes of a pod network that lead through a tunnel are the overlay.
        (_, Some(_), Some(carrier)) => Some(encapsulates(carrier)),
        (_, Some(false), None) => Some(false),
        (_, Some(true) | None, _) => None,
    };
    let name = |link: &Link| link.name.clone();
    let mtu = device.and_then(|device| device.mtu);
    Ride { device: device.map(name), carrier: carrier.map(name), is_nested, mtu, fitting_mtu: None }
}

/// Whether packets leave such a device inside of others. What leaves by `cilium_host` to another node does: programs
/// take it from there into a tunnel.
fn encapsulates(device: &Link) -> bool {
    match &device.kind {
        LinkKind::Vxlan(_) | LinkKind::Wireguard | LinkKind::Tun => true,
        LinkKind::Other(kind) => {
            matches!(
                kind.as_str(),
                "geneve" | "gre" | "gretap" | "ip6gre" | "ip6gretap" | "ip6tnl" | "ipip" | "sit"
            )
        }
        _ => device.name == CILIUM_HOST,
    }
}

/// A path whose ride is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RideChange {
    /// The path.
    pub path: PathKey,
    /// The ride before; none of a path that is new.
    pub before: Option<Ride>,
    /// The ride now.
    pub now: Ride,
}

/// The rides of all paths.
#[derive(Debug, Default)]
pub struct Rides(BTreeMap<PathKey, Ride>);

impl Rides {
    /// Replaces all of them; answers with those that changed.
    pub fn follow(&mut self, now: BTreeMap<PathKey, Ride>) -> Vec<RideChange> {
        let before = std::mem::replace(&mut self.0, now);
        let changed = self.0.iter().filter(|(path, ride)| before.get(*path) != Some(*ride));
        changed
            .map(|(path, ride)| RideChange {
                path: path.clone(),
                before: before.get(path).cloned(),
                now: ride.clone(),
            })
            .collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&PathKey, &Ride)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::fixture::{ETH0, FLANNEL, cilium_node, ip, vxlan_node};

    const TAILSCALE: u32 = 9;

    fn facts() -> NetworkFacts {
        let mut network = vxlan_node();
        network.link(TAILSCALE, "tailscale0", LinkKind::Tun, 1_280);
        network.facts()
    }

    fn ride(layer: Layer, device: Option<u32>, carrier: Option<u32>) -> (String, String, Option<bool>) {
        let facts = facts();
        let link = |index: Option<u32>| index.and_then(|index| facts.link(index));
        let ride = decide_ride(layer, link(device), link(carrier));
        (ride.device.unwrap_or_default(), ride.carrier.unwrap_or_default(), ride.is_nested)
    }

    #[test]
    fn each_layer_has_the_devices_that_it_should() {
        assert_eq!(ride(Layer::Underlay, Some(ETH0), None), ("eth0".into(), String::new(), Some(false)));
        let overlay = ride(Layer::Overlay, Some(FLANNEL), Some(ETH0));
        assert_eq!(overlay, ("flannel.1".into(), "eth0".into(), Some(false)));
        let tunnel = ride(Layer::Tunnel, Some(TAILSCALE), Some(ETH0));
        assert_eq!(tunnel, ("tailscale0".into(), "eth0".into(), Some(false)));
    }

    #[test]
    fn what_rides_inside_another_is_nested() {
        assert_eq!(ride(Layer::Overlay, Some(FLANNEL), Some(TAILSCALE)).2, Some(true));
        assert_eq!(ride(Layer::Tunnel, Some(TAILSCALE), Some(FLANNEL)).2, Some(true));
        assert_eq!(ride(Layer::Underlay, Some(TAILSCALE), None).2, Some(true));
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        assert_eq!(ride(Layer::Tunnel, Some(TAILSCALE), None).2, None);
        assert_eq!(ride(Layer::Overlay, None, None), (String::new(), String::new(), None));
    }

    #[test]
    fn the_outer_address_is_that_of_the_forwarding_entry_or_the_tunnels_endpoint() {
        let facts = facts();
        let outer = |index: u32, node: &Node| outer_address(facts.link(index).unwrap(), node, &facts);
        let node = Node { underlay: vec![ip("192.168.56.12")], ..Node::default() };
        assert_eq!(outer(FLANNEL, &node), Some(ip("192.168.56.12")));
        assert_eq!(outer(ETH0, &node), None);
        assert_eq!(outer(TAILSCALE, &node), None);
        // The entry of another endpoint than that of its address is not used.
        let moved = Node { overlay: vec![ip("10.42.3.0")], ..node };
        assert_eq!(outer(FLANNEL, &moved), None);
        let node = Node { endpoint: Some(ip("198.51.100.2")), ..Node::default() };
        assert_eq!((outer(FLANNEL, &node), outer(TAILSCALE, &node)), (None, Some(ip("198.51.100.2"))));
    }

    #[test]
    fn cilium_sends_to_the_endpoint_that_the_api_has() {
        let facts = cilium_node().facts();
        let host = facts.link_named(CILIUM_HOST).unwrap();
        let mut node = Node { overlay: vec![ip("10.0.2.77")], ..Node::default() };
        assert_eq!(outer_address(host, &node, &facts), None);
        assert_eq!(decide_ride(Layer::Overlay, Some(host), None).is_nested, None);
        node.overlay_endpoint = Some(ip("192.168.56.12"));
        assert_eq!(outer_address(host, &node, &facts), node.overlay_endpoint);
        assert_eq!(decide_ride(Layer::Overlay, Some(host), facts.link(ETH0)).is_nested, Some(false));
    }

    #[test]
    fn what_fits_leaves_room_for_what_is_put_around_it() {
        let facts = facts();
        let fits =
            |device: u32, carrier, outer: &str| fitting_mtu(facts.link(device).unwrap(), carrier, ip(outer));
        assert_eq!(fits(FLANNEL, 1_500, "192.168.56.12"), Some(1_450));
        assert_eq!(fits(FLANNEL, 1_280, "100.64.0.2"), Some(1_230));
        assert_eq!(fits(FLANNEL, 1_500, "fd56::12"), Some(1_430));
        assert_eq!(fits(TAILSCALE, 1_500, "192.168.56.12"), Some(1_440));
        assert_eq!(fits(TAILSCALE, 1_450, "10.42.2.0"), Some(1_376));
        assert_eq!((fits(ETH0, 1_500, "192.168.56.12"), fits(FLANNEL, 40, "192.168.56.12")), (None, None));
    }

    #[test]
    fn only_what_changed_is_told() {
        let key = |peer: &str| PathKey { peer: peer.into(), layer: Layer::Overlay };
        let on = |device: &str| Ride { device: Some(device.into()), ..Ride::default() };
        let mut rides = Rides::default();
        assert_eq!(rides.follow(BTreeMap::from([(key("a"), on("eth0"))])).len(), 1);
        assert_eq!(rides.follow(BTreeMap::from([(key("a"), on("eth0"))])), []);
        let changed = rides.follow(BTreeMap::from([(key("a"), on("eth1")), (key("b"), on("eth0"))]));
        let shown: Vec<_> =
            changed.iter().map(|change| (&*change.path.peer, change.before.clone())).collect();
        assert_eq!(shown, [("a", Some(on("eth0"))), ("b", None)]);
        assert_eq!(rides.follow(BTreeMap::new()), []);
    }
}
