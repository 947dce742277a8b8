//! The way back, for tests and fuzzing: frames that the parsers must read as exactly what they were made from.

use std::net::IpAddr;

use super::{
    Message, Observation,
    arp::{Arp, Operation},
    checksum::{self, Checksum},
    frame::Link,
    ip::{ICMP6, NEIGHBOUR_ADVERTISEMENT, VRRP},
    ndp::NeighbourAdvertisement,
    too_big::TooBig,
    vrrp::{self, Advertisement, Authentication, Version},
};

/// An authentication header's size, as keepalived makes it.
const AUTHENTICATION_HEADER: usize = 24;

/// A whole frame. Without a source MAC address it has no Ethernet header. The authentication data is what version 2 of
/// VRRP puts behind the addresses.
#[must_use]
pub fn encode(observation: &Observation, authentication_data: [u8; 8]) -> Vec<u8> {
    let (kind, network) = match &observation.message {
        Message::Arp(arp) => (0x0806, encode_arp(arp)),
        Message::NeighbourAdvertisement(advertisement) => (0x86dd, encode_ndp(advertisement)),
        Message::Vrrp(advertisement) => {
            let kind = if advertisement.source.is_ipv4() { 0x0800 } else { 0x86dd };
            (kind, encode_vrrp(advertisement, authentication_data))
        }
    };
    [ethernet(&observation.link, kind), network].concat()
}

/// A router's message from its IP header on, about a datagram of UDP with that payload.
#[must_use]
pub fn encode_too_big(told: &TooBig, payload: &[u8]) -> Vec<u8> {
    let mtu = told.mtu.unwrap_or_default().to_be_bytes();
    let [_, _, high, low] = mtu;
    let is_ipv4 = told.router.is_ipv4();
    let mut message = if is_ipv4 { vec![3, 4, 0, 0, 0, 0, high, low] } else { [[2, 0, 0, 0], mtu].concat() };
    message.extend(ip(told.source, told.destination, 63, 17, payload));
    let protocol = if is_ipv4 { 1 } else { ICMP6 };
    let header = checksum::pseudo_header(told.router, told.source, ICMP6, message.len());
    let sum = checksum::sum(&message) + if is_ipv4 { 0 } else { header };
    write(&mut message, 2, checksum::complement(sum));
    ip(told.router, told.source, 64, protocol, &message)
}

fn ethernet(link: &Link, kind: u16) -> Vec<u8> {
    let (Some(source), Some(destination)) = (link.source, link.destination) else { return Vec::new() };
    let mut header = [destination.0, source.0].concat();
    for (tag, vlan) in [(0x88a8_u16, link.outer_vlan), (0x8100, link.vlan)] {
        if let Some(vlan) = vlan {
            header.extend(tag.to_be_bytes());
            header.extend((vlan | 0xe000).to_be_bytes());
        }
    }
    header.extend(kind.to_be_bytes());
    header
}

fn encode_arp(arp: &Arp) -> Vec<u8> {
    let operation = match arp.operation {
        Operation::Request => 1,
        Operation::Reply => 2,
    };
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, operation];
    bytes.extend(arp.sender_mac.0);
    bytes.extend(arp.sender.octets());
    bytes.extend(arp.target_mac.0);
    bytes.extend(arp.target.octets());
    bytes
}

fn encode_ndp(advertisement: &NeighbourAdvertisement) -> Vec<u8> {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = flag(advertisement.router, 0x80)
        | flag(advertisement.solicited, 0x40)
        | flag(advertisement.overrides, 0x20);
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(advertisement.target.octets());
    if let Some(mac) = advertisement.target_mac {
        message.extend([2, 1]);
        message.extend(mac.0);
    }
    let (source, destination) = (advertisement.source.into(), advertisement.destination.into());
    let header = checksum::pseudo_header(source, destination, ICMP6, message.len());
    let sum = checksum::sum(&message);
    write(&mut message, 2, checksum::complement(header + sum));
    ip(source, destination, 255, ICMP6, &message)
}

fn encode_vrrp(advertisement: &Advertisement, authentication_data: [u8; 8]) -> Vec<u8> {
    let (source, destination) = (advertisement.source, advertisement.destination);
    let mut message = vrrp_message(advertisement, authentication_data);
    let length = message.len();
    message.resize(length + if advertisement.hmac { vrrp::HMAC } else { 0 }, 0xaa);
    let covered = if source.is_ipv4() { length } else { message.len() };
    let header = |destination| checksum::pseudo_header(source, destination, VRRP, covered);
    let sum = checksum::sum(message.get(..covered).unwrap_or_default())
        + match advertisement.checksum {
            Checksum::Plain => 0,
            Checksum::PseudoHeader | Checksum::Unverified => header(destination),
            Checksum::GroupPseudoHeader => header(vrrp::GROUP_V4.into()),
        };
    write(&mut message, 6, checksum::complement(sum));
    if !advertisement.authentication_header {
        return ip(source, destination, advertisement.ttl, VRRP, &message);
    }
    let mut wrapped = vec![0xbb; AUTHENTICATION_HEADER];
    write(&mut wrapped, 0, [VRRP, 4]);
    wrapped.extend(message);
    ip(source, destination, advertisement.ttl, 51, &wrapped)
}

fn vrrp_message(advertisement: &Advertisement, authentication_data: [u8; 8]) -> Vec<u8> {
    let interval = advertisement.interval.unwrap_or_default();
    let low = |number: u128| u8::try_from(number & 0xff).unwrap_or_default();
    let (version, third, fourth) = match advertisement.version {
        Version::V2 => {
            let authentication = match advertisement.authentication {
                Authentication::None => 0,
                Authentication::SimplePassword => 1,
                Authentication::AuthenticationHeader => 2,
            };
            (0x21, authentication, low(interval.as_secs().into()))
        }
        Version::V3 => {
            let centiseconds = interval.as_millis() / 10;
            (0x31, low(centiseconds >> 8), low(centiseconds))
        }
    };
    let Advertisement { vrid, priority, address_count, .. } = *advertisement;
    let mut message = vec![version, vrid, priority, address_count, third, fourth, 0, 0];
    for address in &advertisement.addresses {
        match address {
            IpAddr::V4(address) => message.extend(address.octets()),
            IpAddr::V6(address) => message.extend(address.octets()),
        }
    }
    if advertisement.version == Version::V2 {
        message.extend(authentication_data);
    }
    message
}

fn ip(source: IpAddr, destination: IpAddr, ttl: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = length(20 + payload.len());
            let mut header = vec![0x45, 0xc0, high, low, 0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let checksum = checksum::complement(checksum::sum(&header));
            write(&mut header, 10, checksum);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = length(payload.len());
            let mut header = vec![0x6c, 0x01, 0x23, 0x45, high, low, protocol, ttl];
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        _ => Vec::new(),
    };
    bytes.extend(payload);
    bytes
}

fn write(bytes: &mut [u8], at: usize, value: [u8; 2]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}
