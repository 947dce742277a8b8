//! What rtnetlink says about the network namespace the agent runs in, as plain values.
//!
//! Every table is sorted and shared, so that two snapshots are cheap to keep and to compare. Fields that the kernel
//! did not send are `None`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// One consistent-enough view of the namespace. Tables are dumped one after the other: a route may for some
/// milliseconds name a device that `links` does not hold yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFacts {
    /// Network devices.
    pub links: Arc<[Link]>,
    /// Addresses of this namespace.
    pub addresses: Arc<[Address]>,
    /// Routes of all tables, one entry for each next hop.
    pub routes: Arc<[Route]>,
    /// ARP and neighbour discovery entries; without the kernel's own `noarp` entries.
    pub neighbours: Arc<[Neighbour]>,
    /// Forwarding entries that name a remote tunnel endpoint. What a bridge learns of its own stations is left
    /// out: it says nothing about nodes and changes with every pod's traffic.
    pub fdb: Arc<[FdbEntry]>,
}

impl NetworkFacts {
    /// The device of this index.
    #[must_use]
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.binary_search_by_key(&index, |link| link.index).ok().and_then(|at| self.links.get(at))
    }

    /// Whether an address is one of a network that this node is on.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().filter_map(Address::network).any(|network| {
            network.prefix_len() > 0
                && network.prefix_len() < network.max_prefix_len()
                && network.contains(&address)
        })
    }

    /// The device of this name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// A hardware address of Ethernet's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What kind of device it is.
    pub kind: LinkKind,
    /// Largest layer 3 packet.
    pub mtu: Option<u32>,
    /// Hardware address; absent on layer 3 devices.
    pub mac: Option<Mac>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier present (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Frames carry an Ethernet header.
    pub ethernet: bool,
    /// The bridge, bond or VRF it is a port of.
    pub master: Option<u32>,
    /// The device it rides on (VLAN, macvlan, the peer of a veth in the same namespace).
    pub lower: Option<u32>,
}

/// The kind of a network device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkKind {
    /// `lo`.
    Loopback,
    /// No kind of its own: hardware, or a virtual machine's interface.
    Device,
    /// VXLAN tunnel.
    Vxlan(Vxlan),
    /// Ethernet bridge.
    Bridge,
    /// One end of a virtual Ethernet pair.
    Veth,
    /// `WireGuard` of the kernel.
    Wireguard,
    /// TUN or TAP: a program in user space is behind it.
    Tun,
    /// Link aggregation.
    Bond,
    /// 802.1Q.
    Vlan,
    /// macvlan, also the virtual MAC device of a VRRP daemon.
    Macvlan,
    /// Any other, by the name the kernel gives it (`dummy`, `ipip`, `geneve`, `netkit`, …).
    Other(String),
}

/// Parameters of a VXLAN device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vxlan {
    /// Network identifier.
    pub id: Option<u32>,
    /// UDP port in host order.
    pub port: Option<u16>,
    /// Own tunnel endpoint.
    pub local: Option<IpAddr>,
    /// Device the outer packets leave by.
    pub lower: Option<u32>,
    /// Endpoints are given with each packet (`external`), by a BPF program or a route.
    pub external: bool,
}

/// An address of this namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Device.
    pub device: u32,
    /// The address itself.
    pub address: IpAddr,
    /// Length of the on-link prefix.
    pub prefix_len: u8,
    /// The other end of a point-to-point address.
    pub peer: Option<IpAddr>,
    /// Broadcast address of the prefix.
    pub broadcast: Option<IpAddr>,
    /// Scope.
    pub scope: Scope,
}

impl Address {
    /// The on-link prefix; `None` when the kernel reported a length that the family does not have.
    #[must_use]
    pub fn network(&self) -> Option<IpNet> {
        IpNet::new(self.address, self.prefix_len).ok().map(|net| net.trunc())
    }
}

/// How far an address or route is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// On the link.
    Link,
    /// On this host.
    Host,
    /// Any other number of the kernel.
    Other(u8),
}

impl From<u8> for Scope {
    fn from(number: u8) -> Self {
        match number {
            libc::RT_SCOPE_UNIVERSE => Self::Global,
            libc::RT_SCOPE_LINK => Self::Link,
            libc::RT_SCOPE_HOST => Self::Host,
            other => Self::Other(other),
        }
    }
}

/// A route with one next hop; a multipath route is as many entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Destination.
    pub prefix: IpNet,
    /// What happens to the packet.
    pub kind: RouteKind,
    /// Scope.
    pub scope: Scope,
    /// Routing table; 254 is main, 255 local.
    pub table: u32,
    /// Next hop; absent for on-link destinations.
    pub gateway: Option<IpAddr>,
    /// Output device.
    pub device: Option<u32>,
    /// The gateway is taken to be on the link although no address says so.
    pub onlink: bool,
    /// The next hop cannot be used at the moment (device down or without carrier).
    pub dead: bool,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// Forward or deliver on the link.
    Unicast,
    /// An address of this host.
    Local,
    /// A broadcast address of a link.
    Broadcast,
    /// An anycast address of this host.
    Anycast,
    /// A multicast prefix.
    Multicast,
    /// Blackhole, unreachable, prohibit, throw and the rest.
    Other,
}

/// An ARP or neighbour discovery entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// Device.
    pub device: u32,
    /// Network address.
    pub address: IpAddr,
    /// Hardware address, once resolved.
    pub mac: Option<Mac>,
    /// How good the entry is.
    pub state: Resolution,
}

/// State of a neighbour entry. The kernel's reachable, stale, delay and probe are one: they follow each other all
/// the time and all of them forward packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resolution {
    /// Set by hand or by a daemon, never resolved.
    Permanent,
    /// Resolved.
    Resolved,
    /// Being resolved.
    Incomplete,
    /// Not answered.
    Failed,
    /// Anything else.
    Other,
}

/// A forwarding entry towards a remote tunnel endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdbEntry {
    /// Tunnel device.
    pub device: u32,
    /// Hardware address of the station behind the tunnel; all zero for the default entry.
    pub mac: Mac,
    /// Underlay address of the remote endpoint.
    pub destination: IpAddr,
    /// Never ages.
    pub permanent: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_on_the_link_of_its_network_only() {
        let address = |text: &str, prefix_len| Address {
            device: 2,
            address: text.parse().unwrap(),
            prefix_len,
            peer: None,
            broadcast: None,
            scope: Scope::Global,
        };
        let addresses = [address("192.168.56.11", 24), address("10.42.1.0", 32), address("fd56::11", 64)];
        let facts = NetworkFacts { addresses: addresses.into(), ..NetworkFacts::default() };
        let on_link = |text: &str| facts.is_on_link(text.parse().unwrap());
        assert_eq!(["192.168.56.50", "fd56::50"].map(on_link), [true, true]);
        assert_eq!(["192.168.57.50", "10.42.1.0", "8.8.8.8", "fd57::50"].map(on_link), [false; 4]);
    }
}
