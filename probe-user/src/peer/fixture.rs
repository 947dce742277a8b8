//! Network states for tests, as rtnetlink reported them for flannel's nodes: node 1 of 192.168.56.0/24 with pods
//! 10.42.1.0/24 and peers 2 and 3.

use std::net::IpAddr;

use ipnet::IpNet;

use super::PeerConfig;
use crate::source::flannel::FlannelFacts;
use crate::source::netlink::{
    Address, FdbEntry, Link, LinkKind, Mac, Neighbour, NetworkFacts, Resolution, Route, RouteKind, Scope,
    Vxlan,
};

pub(crate) const ETH0: u32 = 2;
pub(crate) const FLANNEL: u32 = 3;
pub(crate) const CNI0: u32 = 4;
pub(crate) const CILIUM_HOST: u32 = 6;
pub(crate) const CILIUM_VXLAN: u32 = 7;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Tables that grow; `facts` sorts them as the feed does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) fdb: Vec<FdbEntry>,
}

impl Network {
    pub(crate) fn link(&mut self, index: u32, name: &str, kind: LinkKind, mtu: u32) {
        self.links.push(Link {
            index,
            name: name.to_owned(),
            kind,
            mtu: Some(mtu),
            mac: Some(Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])),
            up: true,
            carrier: true,
            ethernet: true,
            master: None,
            lower: None,
        });
    }

    /// The address, the local route and, where the prefix is wider, the on-link and broadcast routes.
    pub(crate) fn address(&mut self, device: u32, text: &str) {
        let network = net(text);
        let address = network.addr();
        self.addresses.push(Address {
            device,
            address,
            prefix_len: network.prefix_len(),
            peer: None,
            broadcast: None,
            scope: if address.is_loopback() { Scope::Host } else { Scope::Global },
        });
        self.push_route(address.into(), RouteKind::Local, 255, None, device);
        if network.prefix_len() < network.max_prefix_len() {
            self.push_route(network.trunc(), RouteKind::Unicast, 254, None, device);
            if address.is_ipv4() {
                self.push_route(network.broadcast().into(), RouteKind::Broadcast, 255, None, device);
            }
        }
    }

    pub(crate) fn route(&mut self, prefix: &str, gateway: Option<&str>, device: u32) {
        self.push_route(net(prefix), RouteKind::Unicast, 254, gateway.map(ip), device);
    }

    fn push_route(
        &mut self,
        prefix: IpNet,
        kind: RouteKind,
        table: u32,
        gateway: Option<IpAddr>,
        device: u32,
    ) {
        self.routes.push(Route {
            prefix,
            kind,
            scope: if gateway.is_some() { Scope::Global } else { Scope::Link },
            table,
            gateway,
            device: Some(device),
            onlink: gateway.is_some() && device == FLANNEL,
            dead: false,
        });
    }

    /// The three entries that flanneld makes for a peer.
    pub(crate) fn vxlan_peer(&mut self, device: u32, last: u8, gateway: &str, prefix: &str, underlay: &str) {
        let mac = Mac([0xce, 0, 0, 0, 0, last]);
        self.route(prefix, Some(gateway), device);
        self.neighbours.push(Neighbour {
            device,
            address: ip(gateway),
            mac: Some(mac),
            state: Resolution::Permanent,
        });
        self.fdb.push(FdbEntry { device, mac, destination: ip(underlay), permanent: true });
    }

    pub(crate) fn facts(&self) -> NetworkFacts {
        fn sorted<T: Ord + Clone>(table: &[T]) -> std::sync::Arc<[T]> {
            let mut table = table.to_vec();
            table.sort_unstable();
            table.into()
        }
        NetworkFacts {
            links: sorted(&self.links),
            addresses: sorted(&self.addresses),
            routes: sorted(&self.routes),
            neighbours: sorted(&self.neighbours),
            fdb: sorted(&self.fdb),
        }
    }
}

/// lo, eth0 192.168.56.11/24, a default route, cni0 10.42.1.1/24.
pub(crate) fn bare_node() -> Network {
    let mut network = Network::default();
    network.link(1, "lo", LinkKind::Loopback, 65536);
    network.address(1, "127.0.0.1/8");
    network.link(ETH0, "eth0", LinkKind::Veth, 1500);
    network.address(ETH0, "192.168.56.11/24");
    network.route("0.0.0.0/0", Some("192.168.56.1"), ETH0);
    network.link(CNI0, "cni0", LinkKind::Bridge, 1450);
    network.address(CNI0, "10.42.1.1/24");
    network
}

pub(crate) fn vxlan_kind(local: &str) -> LinkKind {
    LinkKind::Vxlan(Vxlan {
        id: Some(1),
        port: Some(8472),
        local: Some(ip(local)),
        lower: Some(ETH0),
        external: false,
    })
}

/// The bare node with flannel's VXLAN device and peers 2 and 3.
pub(crate) fn vxlan_node() -> Network {
    let mut network = bare_node();
    network.link(FLANNEL, "flannel.1", vxlan_kind("192.168.56.11"), 1450);
    network.address(FLANNEL, "10.42.1.0/32");
    network.vxlan_peer(FLANNEL, 2, "10.42.2.0", "10.42.2.0/24", "192.168.56.12");
    network.vxlan_peer(FLANNEL, 3, "10.42.3.0", "10.42.3.0/24", "192.168.56.13");
    network
}

/// The bare node with plain routes to peers 2 and 3.
pub(crate) fn host_gw_node() -> Network {
    let mut network = bare_node();
    network.route("10.42.2.0/24", Some("192.168.56.12"), ETH0);
    network.route("10.42.3.0/24", Some("192.168.56.13"), ETH0);
    network
}

/// A node of Cilium in its tunnel mode, as its routes are there: pods in 10.0.1.0/24, peers 2 and 3.
pub(crate) fn cilium_node() -> Network {
    let mut network = bare_node();
    network.links.retain(|link| link.index != CNI0);
    network.addresses.retain(|address| address.device != CNI0);
    network.routes.retain(|route| route.device != Some(CNI0));
    network.link(5, "cilium_net", LinkKind::Veth, 1500);
    network.link(CILIUM_HOST, "cilium_host", LinkKind::Veth, 1500);
    network.address(CILIUM_HOST, "10.0.1.77/32");
    network.route("10.0.1.77/32", None, CILIUM_HOST);
    for prefix in ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"] {
        network.route(prefix, Some("10.0.1.77"), CILIUM_HOST);
    }
    let external = Vxlan { id: None, port: Some(8472), local: None, lower: None, external: true };
    network.link(CILIUM_VXLAN, "cilium_vxlan", LinkKind::Vxlan(external), 1500);
    network
}

/// What flanneld writes on node 1.
pub(crate) fn flannel_config() -> PeerConfig {
    PeerConfig {
        flannel: Some(FlannelFacts {
            networks: vec![net("10.42.0.0/16")],
            subnets: vec![net("10.42.1.0/24")],
            mtu: Some(1450),
        }),
        ..PeerConfig::default()
    }
}
