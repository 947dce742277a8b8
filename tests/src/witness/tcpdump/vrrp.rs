//! Who says on the wire that a virtual address is his: VRRP advertisements, gratuitous ARP, unsolicited neighbour
//! advertisements. It shares nothing with what the agent reads them by, since it is there to contradict it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::Frame;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
const VRRP: u8 = 112;
const RST: u8 = 0x04;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// A VRRP advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// When it was captured, since the epoch.
    pub time: Duration,
    /// The MAC address of its sender, in lower case with colons.
    pub mac: String,
    /// Its sender.
    pub source: IpAddr,
    /// The group, or a unicast peer.
    pub destination: IpAddr,
    /// The time to live, or the hop limit.
    pub ttl: u8,
    /// The version of the protocol, 2 or 3.
    pub version: u8,
    /// The virtual router.
    pub vrid: u8,
    /// The priority; 0 is a farewell.
    pub priority: u8,
    /// The advertisement interval.
    pub interval: Duration,
    /// The virtual addresses.
    pub addresses: Vec<IpAddr>,
}

/// A claim of an address that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When it was captured, since the epoch.
    pub time: Duration,
    /// The address.
    pub address: IpAddr,
    /// The MAC address at which it is said to be, in lower case with colons.
    pub mac: String,
}

/// A TCP segment from an address that is no reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When it was captured, since the epoch.
    pub time: Duration,
    /// The MAC address of its sender, in lower case with colons.
    pub mac: String,
    /// Who it is for.
    pub destination: IpAddr,
    /// The port that it comes from.
    pub source_port: u16,
    /// Whether it begins a connection.
    pub is_syn: bool,
}

/// An ARP reply to somebody's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was captured, since the epoch.
    pub time: Duration,
    /// The MAC address at which the address is said to be, in lower case with colons.
    pub mac: String,
}

/// The segments that an address sent, in their order.
#[must_use]
pub fn sent(frames: &[Frame], address: IpAddr) -> Vec<Sent> {
    let segment = |frame: &Frame| {
        let packet = Packet::of(&frame.bytes).filter(|packet| packet.protocol == TCP)?;
        let flags = *packet.payload.get(13)?;
        (packet.source == address && flags & RST == 0).then_some(())?;
        Some(Sent {
            time: frame.time,
            mac: mac(frame.bytes.get(6..12)?),
            destination: packet.destination,
            source_port: u16::from_be_bytes([*packet.payload.first()?, *packet.payload.get(1)?]),
            is_syn: flags & SYN_ACK == SYN,
        })
    };
    frames.iter().filter_map(segment).collect()
}

/// The ARP replies that say where an address is and are no announcement, in their order.
#[must_use]
pub fn answers(frames: &[Frame], of: IpAddr) -> Vec<Answer> {
    let answer = |frame: &Frame| {
        let packet = frame.bytes.get(14..42).filter(|_| ether_type(&frame.bytes) == Some(ARP))?;
        let is_reply = packet.starts_with(&[0, 1, 8, 0, 6, 4, 0, 2]);
        let (sender, target) = (address(&packet[14..18])?, address(&packet[24..28])?);
        (is_reply && sender == of && target != of)
            .then(|| Answer { time: frame.time, mac: mac(&packet[8..14]) })
    };
    frames.iter().filter_map(answer).collect()
}

/// The advertisements among the frames, in their order.
#[must_use]
pub fn adverts(frames: &[Frame]) -> Vec<Advert> {
    frames.iter().filter_map(advert).collect()
}

/// The frames of one VLAN without their tags, as its own devices would have them. Everything else here reads untagged
/// frames only.
#[must_use]
pub fn within_vlan(frames: &[Frame], vlan: u16) -> Vec<Frame> {
    let untagged = |frame: &Frame| {
        let tag = frame.bytes.get(14..16).filter(|_| ether_type(&frame.bytes) == Some(VLAN))?;
        // The other bits are a priority.
        (u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff == vlan).then_some(())?;
        let bytes = [&frame.bytes[..12], &frame.bytes[16..]].concat();
        Some(Frame { bytes, original_len: frame.original_len.saturating_sub(4), ..frame.clone() })
    };
    frames.iter().filter_map(untagged).collect()
}

/// The claims of an address among the frames, in their order.
#[must_use]
pub fn claims(frames: &[Frame], address: IpAddr) -> Vec<Claim> {
    let claims = frames.iter().filter_map(|frame| arp(frame).or_else(|| neighbour_advertisement(frame)));
    claims.filter(|claim| claim.address == address).collect()
}

fn advert(frame: &Frame) -> Option<Advert> {
    let packet = Packet::of(&frame.bytes).filter(|packet| packet.protocol == VRRP)?;
    let [version_and_type, vrid, priority, count, high, low, ..] = *packet.payload else { return None };
    // Version 2 has its authentication type before whole seconds, version 3 has twelve bits of centiseconds.
    let interval = match version_and_type {
        0x21 => Duration::from_secs(u64::from(low)),
        0x31 => Duration::from_millis(10 * u64::from(u16::from_be_bytes([high & 0x0f, low]))),
        _ => return None,
    };
    let width = if packet.source.is_ipv4() { 4 } else { 16 };
    let addresses = packet.payload.get(8..8 + width * usize::from(count))?.chunks_exact(width);
    Some(Advert {
        time: frame.time,
        mac: mac(frame.bytes.get(6..12)?),
        source: packet.source,
        destination: packet.destination,
        ttl: packet.ttl,
        version: version_and_type >> 4,
        vrid,
        priority,
        interval,
        addresses: addresses.map(address).collect::<Option<_>>()?,
    })
}

/// A request or a reply whose sender asks for, or tells, its own address.
fn arp(frame: &Frame) -> Option<Claim> {
    let packet = frame.bytes.get(14..42).filter(|_| ether_type(&frame.bytes) == Some(ARP))?;
    let is_ethernet_ipv4 = packet.starts_with(&[0, 1, 8, 0, 6, 4]);
    let (sender, target) = (address(&packet[14..18])?, address(&packet[24..28])?);
    (is_ethernet_ipv4 && sender == target).then(|| Claim {
        time: frame.time,
        address: sender,
        mac: mac(&packet[8..14]),
    })
}

fn neighbour_advertisement(frame: &Frame) -> Option<Claim> {
    let packet = Packet::of(&frame.bytes).filter(|packet| packet.protocol == ICMPV6)?;
    let message = packet.payload;
    let solicited = message.get(4)? & 0x40 != 0;
    // The only option that one has: its type, its length in units of 8 bytes, the link-layer address.
    let at = message.get(24..32).filter(|option| option.starts_with(&[2, 1]))?;
    (message[0] == 136 && !solicited).then_some(())?;
    Some(Claim { time: frame.time, address: address(&message[8..24])?, mac: mac(&at[2..]) })
}

/// An IP packet without extension headers.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    protocol: u8,
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    fn of(frame: &'a [u8]) -> Option<Self> {
        let bytes = frame.get(14..)?;
        match ether_type(frame)? {
            IPV4 => {
                let header = usize::from(bytes.first()? & 0x0f) * 4;
                let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
                Some(Self {
                    source: address(bytes.get(12..16)?)?,
                    destination: address(bytes.get(16..20)?)?,
                    ttl: bytes[8],
                    protocol: bytes[9],
                    payload: bytes.get(header..length)?,
                })
            }
            IPV6 => {
                let length = usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
                Some(Self {
                    source: address(bytes.get(8..24)?)?,
                    destination: address(bytes.get(24..40)?)?,
                    ttl: bytes[7],
                    protocol: bytes[6],
                    payload: bytes.get(40..40 + length)?,
                })
            }
            _ => None,
        }
    }
}

fn ether_type(frame: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let ipv4 = || <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from).map(IpAddr::V4);
    let ipv6 = || <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from).map(IpAddr::V6);
    ipv4().or_else(ipv6)
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Frames of keepalived 2.2.7; what is expected of them is what tcpdump printed for the same bytes.
    const V2: &str = "01005e000012 025600000001 0800 45c0002800010000ff70e1dec0a8380be0000012 \
        213396010101 19f4 c0a83832 6c61623132333435";
    const V3: &str = "01005e000012 025600000001 0800 45c0002000010000ff70e1e6c0a8380be0000012 \
        31339601000a 66a3 c0a83832";
    const V3_IPV6: &str = "333300000012 025600000001 86dd 6c07130b001870ff fe80000000000000005600fffe000001 \
        ff020000000000000000000000000012 31339601000a 3da5 fd560000000000000000000000000050";
    const ARP_REQUEST: &str = "ffffffffffff 025600000001 0806 0001080006040001 025600000001 c0a83832 \
        ffffffffffff c0a83832";
    const NA: &str = "333300000001 025600000001 86dd 6000000000203aff fd560000000000000000000000000050 \
        ff020000000000000000000000000001 880058fb20000000 fd560000000000000000000000000050 0201025600000001";

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 56, 50));
    const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd56, 0, 0, 0, 0, 0, 0, 0x50));

    fn frame(hex: &str) -> Frame {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let text = |pair: &[u8]| String::from_utf8(pair.to_vec()).unwrap();
        let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).unwrap());
        let bytes: Vec<u8> = bytes.collect();
        let original_len = u32::try_from(bytes.len()).unwrap();
        Frame { time: Duration::from_secs(7), bytes, original_len }
    }

    fn v3() -> Advert {
        Advert {
            time: Duration::from_secs(7),
            mac: "02:56:00:00:00:01".into(),
            source: "192.168.56.11".parse().unwrap(),
            destination: "224.0.0.18".parse().unwrap(),
            ttl: 255,
            version: 3,
            vrid: 51,
            priority: 150,
            interval: Duration::from_millis(100),
            addresses: vec![VIP],
        }
    }

    #[test]
    fn version_3_counts_hundredths_of_a_second() {
        assert_eq!(adverts(&[frame(V3)]), [v3()]);
    }

    #[test]
    fn version_2_counts_seconds() {
        let expected = Advert { version: 2, interval: Duration::from_secs(1), ..v3() };
        assert_eq!(adverts(&[frame(V2)]), [expected]);
    }

    #[test]
    fn version_3_over_ipv6_has_ipv6_addresses() {
        let expected = Advert {
            source: "fe80::56:ff:fe00:1".parse().unwrap(),
            destination: "ff02::12".parse().unwrap(),
            addresses: vec![VIP6],
            ..v3()
        };
        assert_eq!(adverts(&[frame(V3_IPV6)]), [expected]);
    }

    #[test]
    fn a_request_for_the_own_address_is_a_claim() {
        let expected = Claim { time: Duration::from_secs(7), address: VIP, mac: "02:56:00:00:00:01".into() };
        assert_eq!(claims(&[frame(ARP_REQUEST)], VIP), [expected]);
        assert_eq!(claims(&[frame(ARP_REQUEST)], VIP6), []);
    }

    #[test]
    fn a_tagged_frame_belongs_to_its_vlan_only() {
        let untagged = frame(V3);
        let mut tagged = untagged.clone();
        tagged.bytes.splice(12..12, [0x81, 0x00, 0xe0, 100]);
        tagged.original_len += 4;
        let frames = [untagged.clone(), tagged];
        assert_eq!(within_vlan(&frames, 100), [untagged]);
        assert_eq!(within_vlan(&frames, 101), []);
        assert_eq!(adverts(&frames), [v3()]);
    }

    #[test]
    fn a_request_for_another_address_is_no_claim() {
        let mut other = frame(ARP_REQUEST);
        *other.bytes.last_mut().unwrap() = 51;
        assert_eq!(claims(&[other], VIP), []);
    }

    #[test]
    fn an_unsolicited_neighbour_advertisement_is_a_claim() {
        let expected = Claim { time: Duration::from_secs(7), address: VIP6, mac: "02:56:00:00:00:01".into() };
        assert_eq!(claims(&[frame(NA)], VIP6), [expected]);
    }

    #[test]
    fn an_answer_to_a_neighbour_solicitation_is_no_claim() {
        let mut answer = frame(NA);
        answer.bytes[58] |= 0x40;
        assert_eq!(claims(&[answer], VIP6), []);
    }

    #[test]
    fn segments_of_an_address_are_told_from_its_resets() {
        let segment = |flags: &str| {
            frame(&format!(
                "025600000004 025600000001 0800 450000280001000040060000 c0a83832 c0a8380e \
                192bc350 00000001 00000002 50{flags}1000 00000000"
            ))
        };
        let destination = "192.168.56.14".parse().unwrap();
        let sent_by = |is_syn| Sent {
            time: Duration::from_secs(7),
            mac: "02:56:00:00:00:01".into(),
            destination,
            source_port: 6443,
            is_syn,
        };
        let frames = [segment("02"), segment("14"), segment("12")];
        assert_eq!(sent(&frames, VIP), [sent_by(true), sent_by(false)]);
        assert_eq!(sent(&frames, destination), []);
    }

    #[test]
    fn an_answer_is_no_announcement() {
        let mut reply = frame(ARP_REQUEST);
        reply.bytes[21] = 2;
        assert_eq!(answers(&[reply.clone()], VIP), []);
        reply.bytes[41] = 14;
        let expected = Answer { time: Duration::from_secs(7), mac: "02:56:00:00:00:01".into() };
        assert_eq!(answers(&[reply], VIP), [expected]);
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_says_nothing() {
        for hex in [V2, V3, V3_IPV6, ARP_REQUEST, NA] {
            let whole = frame(hex);
            for length in 0..whole.bytes.len() {
                let cut = [Frame { bytes: whole.bytes[..length].to_vec(), ..whole.clone() }];
                assert_eq!((adverts(&cut), claims(&cut, VIP), claims(&cut, VIP6)), (vec![], vec![], vec![]));
            }
        }
    }

    #[test]
    fn an_unknown_version_or_type_is_no_advertisement() {
        for version_and_type in [0x11, 0x22, 0x32, 0x41] {
            let mut other = frame(V3);
            other.bytes[34] = version_and_type;
            assert_eq!(adverts(&[other]), []);
        }
    }
}
