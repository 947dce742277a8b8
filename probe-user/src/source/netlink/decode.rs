//! rtnetlink messages to facts: pure, one function a message. A message that lacks what makes it a fact (a link
//! without a name, a neighbour without an address) gives nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
    RouteVia,
};

use super::facts::{Address, FdbEntry, Link, LinkKind, Mac, Neighbour, Resolution, Route, RouteKind, Vxlan};

/// A device; `None` for a message without a name.
pub(super) fn decode_link(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: LinkKind::Device,
        mtu: None,
        mac: None,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        master: None,
        lower: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
            LinkAttribute::Address(bytes) => link.mac = decode_mac(bytes),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.lower = Some(*index),
            LinkAttribute::LinkInfo(info) => link.kind = decode_kind(info),
            _ => {}
        }
    }
    if header.flags.contains(LinkFlags::Loopback) {
        link.kind = LinkKind::Loopback;
    }
    (!link.name.is_empty()).then_some(link)
}

fn decode_kind(info: &[LinkInfo]) -> LinkKind {
    let kind = info.iter().find_map(|part| match part {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        // A port of a bridge or bond carries link information without a kind of its own.
        None => LinkKind::Device,
        Some(InfoKind::Vxlan) => LinkKind::Vxlan(decode_vxlan(info)),
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Veth) => LinkKind::Veth,
        Some(InfoKind::Wireguard) => LinkKind::Wireguard,
        Some(InfoKind::Tun) => LinkKind::Tun,
        Some(InfoKind::Bond) => LinkKind::Bond,
        Some(InfoKind::Vlan) => LinkKind::Vlan,
        Some(InfoKind::MacVlan | InfoKind::MacVtap) => LinkKind::Macvlan,
        Some(other) => LinkKind::Other(other.to_string()),
    }
}

fn decode_vxlan(info: &[LinkInfo]) -> Vxlan {
    let mut vxlan = Vxlan::default();
    let data = info.iter().filter_map(|part| match part {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    });
    for attribute in data.flatten() {
        match attribute {
            InfoVxlan::Id(id) => vxlan.id = Some(*id),
            InfoVxlan::Port(port) => vxlan.port = Some(*port),
            InfoVxlan::Local(address) => vxlan.local = Some((*address).into()),
            InfoVxlan::Local6(address) => vxlan.local = Some((*address).into()),
            InfoVxlan::Link(index) => vxlan.lower = Some(*index),
            InfoVxlan::CollectMetadata(external) => vxlan.external = *external,
            _ => {}
        }
    }
    vxlan
}

fn decode_mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

/// An address; `None` for a message without one.
pub(super) fn decode_address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut remote, mut broadcast) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            AddressAttribute::Broadcast(address) => broadcast = Some(IpAddr::from(*address)),
            _ => {}
        }
    }
    // IFA_LOCAL is the own address where it is sent; IFA_ADDRESS is then the peer, equal to it off point-to-point
    // links. IPv6 sends IFA_LOCAL only with a peer.
    let address = local.or(remote)?;
    Some(Address {
        device: message.header.index,
        address,
        prefix_len: message.header.prefix_len,
        peer: remote.filter(|peer| *peer != address),
        broadcast,
        scope: u8::from(message.header.scope).into(),
    })
}

/// The next hops of a route. None for cached exceptions (path MTU, redirects) and families other than IP.
pub(super) fn decode_routes(message: &RouteMessage) -> Vec<Route> {
    if message.header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let Some(mut route) = decode_route(message) else { return Vec::new() };
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.gateway = decode_gateway(attribute),
            RouteAttribute::Oif(index) => route.device = Some(*index),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::MultiPath(next_hops) => hops.clone_from(next_hops),
            _ => {}
        }
    }
    if hops.is_empty() { vec![route] } else { hops.iter().map(|hop| with_hop(&route, hop)).collect() }
}

fn decode_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    });
    let destination = match (destination, header.address_family) {
        (Some(destination), _) => destination,
        (None, AddressFamily::Inet) => Ipv4Addr::UNSPECIFIED.into(),
        (None, AddressFamily::Inet6) => Ipv6Addr::UNSPECIFIED.into(),
        (None, _) => return None,
    };
    Some(Route {
        prefix: IpNet::new(destination, header.destination_prefix_length).ok()?,
        kind: decode_route_kind(header.kind),
        scope: u8::from(header.scope).into(),
        table: header.table.into(),
        gateway: None,
        device: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        dead: header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown),
    })
}

fn with_hop(route: &Route, hop: &RouteNextHop) -> Route {
    Route {
        gateway: hop.attributes.iter().find_map(decode_gateway),
        device: Some(hop.interface_index),
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        dead: hop.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown),
        ..route.clone()
    }
}

fn decode_gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address))
        | RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(address))
        | RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn decode_route_kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Anycast => RouteKind::Anycast,
        RouteType::Multicast => RouteKind::Multicast,
        _ => RouteKind::Other,
    }
}

/// An ARP or neighbour discovery entry; `None` for one without an address and for the kernel's `noarp` entries.
pub(super) fn decode_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let state = match message.header.state {
        NeighbourState::Noarp => return None,
        NeighbourState::Permanent => Resolution::Permanent,
        NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => {
            Resolution::Resolved
        }
        NeighbourState::Incomplete => Resolution::Incomplete,
        NeighbourState::Failed => Resolution::Failed,
        _ => Resolution::Other,
    };
    let (address, mac) = decode_station(message);
    Some(Neighbour { device: message.header.ifindex, address: address?, mac, state })
}

/// A forwarding entry; `None` for one without a remote endpoint.
pub(super) fn decode_fdb(message: &NeighbourMessage) -> Option<FdbEntry> {
    let (destination, mac) = decode_station(message);
    Some(FdbEntry {
        device: message.header.ifindex,
        mac: mac?,
        destination: destination?,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

fn decode_station(message: &NeighbourMessage) -> (Option<IpAddr>, Option<Mac>) {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(destination) => address = decode_neighbour_address(destination),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = decode_mac(bytes),
            _ => {}
        }
    }
    (address, mac)
}

fn decode_neighbour_address(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        // Entries of family bridge say by length alone what the address is.
        NeighbourAddress::Other(bytes) => <[u8; 4]>::try_from(bytes.as_slice())
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
            .ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::neighbour::NeighbourHeader;

    use super::*;

    fn fdb(attributes: Vec<NeighbourAttribute>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header = NeighbourHeader {
            family: AddressFamily::Bridge,
            ifindex: 7,
            state: NeighbourState::Permanent,
            ..NeighbourHeader::default()
        };
        message.attributes = attributes;
        message
    }

    #[test]
    fn bridge_entries_tell_the_family_by_length() {
        let mac = NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]);
        let to = |bytes: &[u8]| NeighbourAttribute::Destination(NeighbourAddress::Other(bytes.to_vec()));
        let v4 = decode_fdb(&fdb(vec![mac.clone(), to(&[192, 168, 56, 12])])).unwrap();
        assert_eq!((v4.destination, v4.device), ("192.168.56.12".parse::<IpAddr>().unwrap(), 7));
        assert_eq!(v4.mac.to_string(), "02:00:00:00:00:09");
        let mut bytes = [0; 16];
        bytes[15] = 3;
        let v6 = decode_fdb(&fdb(vec![mac.clone(), to(&bytes)])).unwrap();
        assert_eq!(v6.destination, "::3".parse::<IpAddr>().unwrap());
        assert_eq!(decode_fdb(&fdb(vec![mac.clone(), to(&[1, 2, 3])])), None);
        assert_eq!(decode_fdb(&fdb(vec![mac])), None);
    }

    #[test]
    fn a_station_with_a_long_hardware_address_has_no_mac() {
        let infiniband = NeighbourAttribute::LinkLayerAddress(vec![0; 20]);
        let to = NeighbourAttribute::Destination(NeighbourAddress::Other(vec![10, 0, 0, 1]));
        assert_eq!(decode_fdb(&fdb(vec![infiniband, to])), None);
    }

    #[test]
    fn a_link_without_a_name_is_no_fact() {
        assert_eq!(decode_link(&LinkMessage::default()), None);
    }

    #[test]
    fn a_multipath_route_is_one_entry_for_each_next_hop() {
        let hop = |device, last| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = device;
            hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, last)))];
            hop
        };
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = RouteType::Unicast;
        message.header.table = 254;
        message.attributes = vec![RouteAttribute::MultiPath(vec![hop(3, 1), hop(4, 2)])];
        let routes = decode_routes(&message);
        let hops: Vec<_> = routes.iter().map(|r| (r.device, r.gateway.unwrap().to_string())).collect();
        assert_eq!(hops, [(Some(3), "10.0.0.1".to_owned()), (Some(4), "10.0.0.2".to_owned())]);
        assert_eq!(routes[0].prefix.to_string(), "0.0.0.0/0");
    }

    #[test]
    fn path_mtu_exceptions_are_not_routes() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.flags = RouteFlags::Cloned;
        assert_eq!(decode_routes(&message), []);
    }
}
