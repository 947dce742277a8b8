//! Which devices lead to the network that other nodes and clients are on: those are where the tap listens.

use ipnet::IpNet;

use crate::source::netlink::{Address, Link, LinkKind, NetworkFacts, RouteKind, Scope};

/// First bytes of a virtual router's hardware address (RFC 9568, 7.3): the device that carries it is a VRRP daemon's.
const VIRTUAL_ROUTER: [u8; 4] = [0x00, 0x00, 0x5e, 0x00];
/// The main routing table.
const MAIN: u32 = 254;

/// The uplinks among the links: Ethernet devices of this namespace with a global address or a route of their own, or
/// under a virtual router's device. A bond or bridge itself and not its ports; never what leads to pods.
#[must_use]
pub fn uplinks<'a>(facts: &'a NetworkFacts, pod_networks: &[IpNet]) -> Vec<&'a Link> {
    let carries_router = |link: &Link| {
        facts.links.iter().any(|above| is_virtual_router(above) && above.lower == Some(link.index))
    };
    let is_uplink = |link: &&Link| {
        link.ethernet
            && !is_port(facts, link)
            && leads_out(facts, link)
            && (has_address(facts, link, pod_networks)
                || has_route(facts, link, pod_networks)
                || carries_router(link))
    };
    facts.links.iter().filter(is_uplink).collect()
}

fn is_virtual_router(link: &Link) -> bool {
    link.kind == LinkKind::Macvlan && link.mac.is_some_and(|mac| mac.0.starts_with(&VIRTUAL_ROUTER))
}

/// Ports of a bridge or bond; a VRF only groups routes.
fn is_port(facts: &NetworkFacts, link: &Link) -> bool {
    let master = link.master.and_then(|index| facts.link(index));
    master.is_some_and(|master| !matches!(&master.kind, LinkKind::Other(kind) if kind == "vrf"))
}

/// Whether frames of this kind of device come from other machines. A bridge needs a port that does; a veth is the
/// uplink where the node is a container itself.
fn leads_out(facts: &NetworkFacts, link: &Link) -> bool {
    match link.kind {
        LinkKind::Device | LinkKind::Bond | LinkKind::Vlan | LinkKind::Veth => true,
        LinkKind::Bridge => facts.links.iter().any(|port| {
            port.master == Some(link.index)
                && (matches!(port.kind, LinkKind::Device | LinkKind::Bond | LinkKind::Vlan)
                    || is_switch(port))
        }),
        // A container's own device (LXC, Docker); here its frames would be seen on the device below, too.
        LinkKind::Macvlan => !is_virtual_router(link) && !has_lower(facts, link),
        LinkKind::Other(ref kind) => is_switch(link) || kind == "ipvlan" && !has_lower(facts, link),
        _ => false,
    }
}

/// Open vSwitch, on whose internal devices `OpenShift` has a node's addresses, and the team driver.
fn is_switch(link: &Link) -> bool {
    matches!(&link.kind, LinkKind::Other(kind) if kind == "openvswitch" || kind == "team")
}

/// Whether the device below is in this namespace.
fn has_lower(facts: &NetworkFacts, link: &Link) -> bool {
    link.lower.and_then(|index| facts.link(index)).is_some()
}

/// Whether the device has an address that others reach it by. Host-side devices of pods have none, a pod network's, or
/// a single one without a network (Cilium).
fn has_address(facts: &NetworkFacts, link: &Link, pod_networks: &[IpNet]) -> bool {
    let is_own = |address: &&Address| address.device == link.index && address.scope == Scope::Global;
    facts.addresses.iter().filter(is_own).any(|address| {
        let is_network =
            address.network().is_some_and(|network| network.prefix_len() < network.max_prefix_len());
        let is_single_allowed = link.kind != LinkKind::Veth;
        (is_network || is_single_allowed)
            && !pod_networks.iter().any(|network| network.contains(&address.address))
    })
}

/// Whether a route leads out of the device. To a veth there are routes of single pods, too.
fn has_route(facts: &NetworkFacts, link: &Link, pod_networks: &[IpNet]) -> bool {
    link.kind != LinkKind::Veth
        && facts.routes.iter().any(|route| {
            route.device == Some(link.index)
                && route.table == MAIN
                && route.kind == RouteKind::Unicast
                && route.scope != Scope::Host
                && !is_link_local(&route.prefix)
                && !pod_networks.iter().any(|network| network.contains(&route.prefix))
        })
}

/// `fe80::/64` is on every device that is up.
fn is_link_local(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(prefix) => prefix.addr().is_link_local(),
        IpNet::V6(prefix) => prefix.addr().is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::fixture::{Network, net};
    use crate::source::netlink::Mac;

    fn names(network: &Network, pods: &[&str]) -> Vec<String> {
        let facts = network.facts();
        let pods: Vec<IpNet> = pods.iter().map(|text| net(text)).collect();
        uplinks(&facts, &pods).into_iter().map(|link| link.name.clone()).collect()
    }

    #[test]
    fn a_device_with_an_address_is_one_and_what_leads_to_pods_is_not() {
        let mut network = Network::default();
        network.link(2, "eth0", LinkKind::Device, 1500);
        network.address(2, "192.168.56.11/24");
        network.link(3, "cni0", LinkKind::Bridge, 1450);
        network.address(3, "10.42.1.1/24");
        network.link(4, "veth1", LinkKind::Veth, 1450);
        network.links[2].master = Some(3);
        network.link(5, "dummy0", LinkKind::Other("dummy".into()), 1500);
        network.address(5, "192.168.99.1/24");
        assert_eq!(names(&network, &["10.42.0.0/16"]), ["eth0"]);
    }

    #[test]
    fn a_node_that_is_a_container_has_a_veth_for_its_uplink() {
        let mut network = Network::default();
        network.link(2, "eth0", LinkKind::Veth, 1500);
        network.address(2, "172.18.0.2/16");
        network.link(3, "cilium_host", LinkKind::Veth, 1500);
        network.address(3, "10.0.1.7/32");
        network.link(4, "lxc1", LinkKind::Veth, 1500);
        network.route("10.0.1.9/32", None, 4);
        assert_eq!(names(&network, &[]), ["eth0"]);
    }

    #[test]
    fn a_bridge_is_one_if_a_port_leads_out_and_its_ports_are_not() {
        let mut network = Network::default();
        network.link(2, "eth0", LinkKind::Device, 1500);
        network.link(3, "br0", LinkKind::Bridge, 1500);
        network.links[0].master = Some(3);
        // Left over from before it was a port: what it carries is seen on the bridge.
        network.address(2, "192.168.1.6/24");
        network.address(3, "192.168.1.5/24");
        network.link(4, "docker0", LinkKind::Bridge, 1500);
        network.address(4, "172.17.0.1/16");
        assert_eq!(names(&network, &[]), ["br0"]);
    }

    #[test]
    fn open_vswitch_holds_the_address_of_its_port() {
        let mut network = Network::default();
        network.link(2, "eth0", LinkKind::Device, 1500);
        network.link(3, "ovs-system", LinkKind::Other("openvswitch".into()), 1500);
        network.links[0].master = Some(3);
        network.link(4, "br-ex", LinkKind::Other("openvswitch".into()), 1500);
        network.address(4, "192.168.111.20/24");
        assert_eq!(names(&network, &[]), ["br-ex"]);
    }

    #[test]
    fn a_macvlan_is_one_where_the_device_below_is_elsewhere() {
        let mut network = Network::default();
        network.link(2, "eth0", LinkKind::Macvlan, 1500);
        network.links[0].lower = Some(77);
        network.address(2, "192.168.1.20/24");
        assert_eq!(names(&network, &[]), ["eth0"]);
        network.link(77, "eth1", LinkKind::Device, 1500);
        assert_eq!(names(&network, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_device_under_a_virtual_router_is_one_without_an_address() {
        let mut network = Network::default();
        network.link(2, "eth1", LinkKind::Device, 1500);
        network.link(3, "vrrp.51", LinkKind::Macvlan, 1500);
        network.links[1].lower = Some(2);
        network.links[1].mac = Some(Mac([0, 0, 0x5e, 0, 1, 51]));
        assert_eq!(names(&network, &[]), ["eth1"]);
    }

    #[test]
    fn a_route_is_enough_and_a_link_local_one_is_not() {
        let mut network = Network::default();
        network.link(2, "eth0", LinkKind::Device, 1500);
        network.route("10.9.0.0/16", Some("10.8.0.1"), 2);
        network.link(3, "eth1", LinkKind::Device, 1500);
        network.route("fe80::/64", None, 3);
        assert_eq!(names(&network, &[]), ["eth0"]);
    }
}
