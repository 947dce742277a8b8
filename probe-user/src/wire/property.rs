//! What holds for every input, for fuzzing and for the mutated corpus of the unit tests.

mod too_big;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub use self::too_big::too_big;

use super::{
    Capture, Link, MacAddress, Malformed, Medium, Message, Observation, Reason,
    arp::{Arp, Operation},
    checksum::Checksum,
    encode::encode,
    ndp::NeighbourAdvertisement,
    observe,
    stamp::{
        Authenticator, End, ErrorEstimate, Extent, FollowUp, Key, Mode, Reply, Request, Timestamp, mac_place,
        tlvs,
    },
    tunnel, vrrp,
    vrrp::{Advertisement, Authentication, Version},
};

/// A length that no capture reaches.
const MUCH: usize = 9000;

/// Any bytes: nothing panics, whatever the medium and however much of the frame was captured; and what the kernel says
/// of the VLAN changes nothing but the VLAN.
///
/// # Panics
/// When that is not so.
pub fn frame(data: &[u8]) {
    let whole = Capture::ethernet(data);
    let plain = observe(&whole);
    for medium in [Medium::Ethernet, Medium::Layer3] {
        drop(observe(&Capture { original_length: MUCH, medium, ..whole }));
    }
    drop(observe(&Capture { medium: Medium::Layer3, ..whole }));
    let tagged = observe(&Capture { vlan: Some(0x2005), ..whole });
    assert_eq!(message(&plain), message(&tagged));
    if let Ok(Some(Observation { link, message: Message::Vrrp(advertisement) })) = &plain {
        accepted(link, advertisement);
    }
}

/// Any bytes taken for a packet of a tunnel: nothing panics; what is accepted has two ends, and is still accepted, as the
/// same, when more of it was captured.
///
/// # Panics
/// When that is not so.
pub fn tunnel(data: &[u8]) {
    let Some(seen) = tunnel::observe(data) else { return };
    assert!(data.len() >= 28 + 8);
    assert_eq!(tunnel::observe(&[data, &[0x5a; 8]].concat()), Some(seen));
    assert_eq!(seen.source.is_ipv4(), seen.destination.is_ipv4());
}

/// What is true of every accepted advertisement.
fn accepted(link: &Link, advertisement: &Advertisement) {
    assert!(link.source.is_some());
    assert!(advertisement.vrid != 0 && advertisement.address_count != 0);
    assert_eq!(advertisement.addresses.len(), usize::from(advertisement.address_count));
    assert!(advertisement.ttl == 255 || !advertisement.is_multicast());
    assert_ne!(advertisement.checksum, Checksum::Unverified);
}

/// An ARP packet made from any bytes is read as what it was made from, and not at all when its end is missing.
///
/// # Panics
/// When that is not so.
pub fn arp(data: &[u8]) {
    let mut source = Source(data);
    let observation = Observation {
        link: source.link(),
        message: Message::Arp(Arp {
            operation: if source.flag() { Operation::Request } else { Operation::Reply },
            sender_mac: MacAddress(source.bytes()),
            sender: Ipv4Addr::from(source.bytes()),
            target_mac: MacAddress(source.bytes()),
            target: Ipv4Addr::from(source.bytes()),
        }),
    };
    round_trip(&observation, [0; 8]);
    cut(&observation, source.byte());
}

/// The same of neighbour advertisements; besides, one flipped bit of the message makes it invalid.
///
/// # Panics
/// When that is not so.
pub fn ndp(data: &[u8]) {
    let mut source = Source(data);
    let link = source.link_or_none();
    let multicast = source.flag();
    let advertisement = NeighbourAdvertisement {
        source: Ipv6Addr::from(source.bytes()),
        destination: source.ipv6(multicast),
        target: source.ipv6(false),
        router: source.flag(),
        solicited: source.flag() && !multicast,
        overrides: source.flag(),
        target_mac: source.flag().then(|| MacAddress(source.bytes())),
        checksum: Checksum::PseudoHeader,
    };
    let observation = Observation { link, message: Message::NeighbourAdvertisement(advertisement) };
    let frame = round_trip(&observation, [0; 8]);
    cut(&observation, source.byte());
    let message = if advertisement.target_mac.is_some() { 32 } else { 24 };
    let flipped = flip(&frame, message, source.number());
    let seen = observe(&capture(&flipped, &link));
    assert!(!matches!(seen, Ok(Some(_))), "accepted with a flipped bit: {seen:?}");
}

/// The same of VRRP advertisements. Authentication data changes nothing of what is read and shown.
///
/// # Panics
/// When that is not so.
pub fn vrrp(data: &[u8]) {
    let mut source = Source(data);
    let link = source.link_or_none();
    let advertisement = source.advertisement();
    let (first, second) = (source.bytes(), source.bytes());
    let observation = Observation { link, message: Message::Vrrp(advertisement.clone()) };
    let frame = round_trip(&observation, first);
    if advertisement.version == Version::V2 {
        let other = round_trip(&observation, second);
        let seen = [&frame, &other].map(|frame| format!("{:?}", observe(&capture(frame, &link))));
        assert_eq!(seen[0], seen[1], "the authentication data shows");
    }
    cut(&observation, source.byte());
    let length = vrrp::length(advertisement.version, advertisement.source, advertisement.address_count);
    let trailer = if advertisement.hmac { vrrp::HMAC } else { 0 };
    let covered = if advertisement.source.is_ipv4() { length } else { length + trailer };
    let message = frame.get(..frame.len() + covered - length - trailer).unwrap_or_default();
    let mut flipped = flip(message, covered, source.number());
    flipped.extend(frame.iter().skip(message.len()));
    refused(&advertisement, &observe(&capture(&flipped, &link)));
}

/// STAMP packets of both modes: a request is read as what it was made from, the answer to it as what that was made from;
/// an answer to anything at all is as long as what it answers, and no TLV ends beyond its packet.
///
/// # Panics
/// When that is not so.
pub fn stamp(data: &[u8]) {
    let mut source = Source(data);
    let mode = if source.flag() { Mode::Authenticated } else { Mode::Unauthenticated };
    let request = Request {
        sequence: u32::from_be_bytes(source.bytes()),
        timestamp: Timestamp(u64::from_be_bytes(source.bytes())),
        error: ErrorEstimate(u16::from_be_bytes(source.bytes()) | 1),
        ssid: u16::from_be_bytes(source.bytes()),
    };
    let packet = request.encode(mode);
    assert_eq!(Request::parse(&packet, mode), Ok(request));
    let reply = Reply {
        sequence: u32::from_be_bytes(source.bytes()),
        timestamp: Timestamp(u64::from_be_bytes(source.bytes())),
        error: ErrorEstimate(u16::from_be_bytes(source.bytes()) | 1),
        ssid: request.ssid,
        received: Timestamp(u64::from_be_bytes(source.bytes())),
        sender_sequence: request.sequence,
        sender_timestamp: request.timestamp,
        sender_error: request.error,
        sender_ttl: source.byte(),
    };
    let follow_up = FollowUp {
        sequence: u32::from_be_bytes(source.bytes()),
        timestamp: Timestamp(u64::from_be_bytes(source.bytes()) | 1),
    };
    let key = Authenticator::new(Some(Key::new(&source.bytes::<16>())));
    let bit = source.number();
    // Any bytes behind a right packet, then any bytes at all.
    let extended = [&packet, source.0].concat();
    for asked in [&packet, &extended] {
        let answer = reply.encode(asked, mode, follow_up);
        assert_eq!((answer.len(), Reply::parse(&answer, mode)), (asked.len(), Ok(reply)));
        let told: Vec<_> = tlvs(&answer, mode).collect();
        assert_eq!(told.first().and_then(|tlv| FollowUp::read(tlv.as_ref().ok()?)), Some(follow_up));
    }
    let _ = (Request::parse(data, mode).is_ok(), Reply::parse(data, mode).is_ok());
    assert_eq!(reply.encode(data, mode, follow_up).len(), data.len());
    if let Ok(Some(place)) = mac_place(data, mode) {
        assert!(place.code.end <= data.len() && place.covered.end + 4 == place.code.start);
    }
    assert!(![End::Sender, End::Reflector].iter().any(|end| key.accepts(data, *end)), "nobody had the key");
    assert_eq!(key.extent(data), None, "nobody had the key");
    let packet = request.encode(Mode::Authenticated);
    let extended = [&packet, source.0].concat();
    for asked in [packet, extended] {
        let answer = reply.encode(&asked, Mode::Authenticated, follow_up);
        sealed(&key, asked, End::Sender, bit);
        sealed(&key, answer, End::Reflector, bit);
    }
}

/// A packet with codes is accepted as what it is, as long as nothing of it is malformed or without a code, and not at all
/// with a flipped bit.
fn sealed(key: &Authenticator, mut packet: Vec<u8>, end: End, number: usize) {
    key.seal(&mut packet);
    let Ok(Some(place)) = mac_place(&packet, Mode::Authenticated) else {
        assert!(!key.accepts(&packet, end), "what follows is covered by nothing");
        return;
    };
    assert!(
        key.accepts(&packet, end) && !Authenticator::new(Some(Key::new(b"another"))).accepts(&packet, end)
    );
    let (covered, padding) = packet.split_at(place.code.end);
    let flipped = [&flip(covered, covered.len(), number), padding].concat();
    // Flags that mean nothing, of the code's own TLV: they are ignored.
    let bit = number % (covered.len() * 8);
    let is_ignored = bit / 8 == place.covered.end && bit % 8 < 5;
    assert_eq!(key.accepts(&flipped, end), is_ignored, "bit {bit}");
    // Of an answer the fields alone may be believed, and never where one of their bits is another.
    let is_of_fields = bit < Mode::Authenticated.length() * 8;
    let believed = key.extent(&flipped).filter(|_| end == End::Reflector);
    assert!(
        believed.is_none() || !is_of_fields && (believed == Some(Extent::Fields)) != is_ignored,
        "bit {bit}"
    );
}

/// A flipped bit may pass only as a checksum over something else, where the pseudo-header happens to make up for it.
///
/// # Panics
/// When the frame is accepted.
pub fn refused(original: &Advertisement, flipped: &Result<Option<Observation>, Malformed>) {
    if let Ok(Some(Observation { message: Message::Vrrp(seen), .. })) = flipped {
        assert_ne!(seen.checksum, original.checksum, "accepted with a flipped bit: {seen:?}");
    }
}

/// A copy with one bit of its last `range` bytes flipped.
#[must_use]
pub fn flip(frame: &[u8], range: usize, number: usize) -> Vec<u8> {
    let mut flipped = frame.to_vec();
    let bit = number % (range * 8);
    let at = (frame.len() - range) + bit / 8;
    if let Some(byte) = flipped.get_mut(at) {
        *byte ^= 1 << (bit % 8);
    }
    flipped
}

/// Encodes, reads back and compares. A sum may fit several kinds of checksum; the first of them is reported.
fn round_trip(observation: &Observation, authentication_data: [u8; 8]) -> Vec<u8> {
    let frame = encode(observation, authentication_data);
    let seen = observe(&capture(&frame, &observation.link));
    let mut wanted = observation.clone();
    if let (Message::Vrrp(wanted), Ok(Some(Observation { message: Message::Vrrp(seen), .. }))) =
        (&mut wanted.message, &seen)
        && (wanted.version, wanted.source.is_ipv4()) == (Version::V3, true)
    {
        wanted.checksum = seen.checksum;
    }
    assert_eq!(seen, Ok(Some(wanted)), "{frame:02x?}");
    frame
}

/// Takes the end off: nothing is accepted that was cut on the wire, and what is read of a frame that only the capture
/// cut contains nothing false.
fn cut(observation: &Observation, keep: u8) {
    let frame = encode(observation, [0; 8]);
    let kept = frame.get(..usize::from(keep) % frame.len()).unwrap_or_default();
    let on_the_wire = capture(kept, &observation.link);
    let seen = observe(&on_the_wire);
    assert!(!matches!(seen, Ok(Some(_))), "{} of {} bytes: {seen:?}", kept.len(), frame.len());
    match observe(&Capture { original_length: frame.len(), ..on_the_wire }) {
        Ok(seen) => assert!(seen.is_none_or(|seen| agrees(&seen.message, &observation.message))),
        Err(malformed) => assert_eq!(malformed.reason, Reason::Truncated),
    }
}

/// Whether a message read from the beginning of a frame is that of the whole.
fn agrees(part: &Message, whole: &Message) -> bool {
    match (part, whole) {
        (Message::Vrrp(part), Message::Vrrp(whole)) => {
            let known = part.addresses.len();
            let wanted = Advertisement {
                addresses: whole.addresses.iter().take(known).copied().collect(),
                checksum: Checksum::Unverified,
                ..whole.clone()
            };
            *part == wanted
        }
        (Message::NeighbourAdvertisement(part), Message::NeighbourAdvertisement(whole)) => {
            let wanted =
                NeighbourAdvertisement { target_mac: None, checksum: Checksum::Unverified, ..*whole };
            *part == wanted
        }
        _ => false,
    }
}

fn capture<'a>(frame: &'a [u8], link: &Link) -> Capture<'a> {
    let medium = if link.source.is_some() { Medium::Ethernet } else { Medium::Layer3 };
    Capture { medium, ..Capture::ethernet(frame) }
}

fn message(seen: &Result<Option<Observation>, Malformed>) -> Result<Option<&Message>, Malformed> {
    match seen {
        Ok(observation) => Ok(observation.as_ref().map(|observation| &observation.message)),
        Err(malformed) => Err(Malformed { link: Link::default(), ..*malformed }),
    }
}

/// Turns the fuzzer's bytes into values; zeros where they have run out.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        [0; N].map(|_| self.byte())
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes(self.bytes()))
    }

    fn vlan(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes()) & 0x0fff).filter(|vlan| *vlan != 0)
    }

    fn link(&mut self) -> Link {
        let (source, destination) = (Some(MacAddress(self.bytes())), Some(MacAddress(self.bytes())));
        let vlan = self.flag().then(|| self.vlan()).flatten();
        let outer_vlan = vlan.and_then(|_| self.vlan());
        Link { source, destination, vlan, outer_vlan }
    }

    fn link_or_none(&mut self) -> Link {
        if self.flag() { self.link() } else { Link::default() }
    }

    fn ipv4(&mut self, multicast: bool) -> Ipv4Addr {
        let [first, b, c, d] = self.bytes();
        Ipv4Addr::new(if multicast { first & 0x0f | 0xe0 } else { first & 0x7f }, b, c, d)
    }

    fn ipv6(&mut self, multicast: bool) -> Ipv6Addr {
        let mut octets: [u8; 16] = self.bytes();
        octets[0] = if multicast { 0xff } else { octets[0] & 0x7f };
        Ipv6Addr::from(octets)
    }

    fn ip(&mut self, is_ipv4: bool, multicast: bool) -> IpAddr {
        if is_ipv4 { self.ipv4(multicast).into() } else { self.ipv6(multicast).into() }
    }

    fn advertisement(&mut self) -> Advertisement {
        let version = if self.flag() { Version::V2 } else { Version::V3 };
        let is_ipv4 = version == Version::V2 || self.flag();
        let multicast = self.flag();
        let address_count = self.byte().max(1);
        let units = match version {
            Version::V2 => Duration::from_secs(self.byte().into()),
            Version::V3 => Duration::from_millis(u64::from(u16::from_be_bytes(self.bytes()) & 0x0fff) * 10),
        };
        let number = self.byte();
        Advertisement {
            source: self.ip(is_ipv4, false),
            destination: self.ip(is_ipv4, multicast),
            ttl: if multicast { 255 } else { self.byte() },
            version,
            vrid: self.byte().max(1),
            priority: self.byte(),
            interval: Some(units).filter(|interval| !interval.is_zero()),
            authentication: match (version, number % 3) {
                (Version::V3, _) | (_, 0) => Authentication::None,
                (_, 1) => Authentication::SimplePassword,
                _ => Authentication::AuthenticationHeader,
            },
            authentication_header: self.flag(),
            address_count,
            addresses: (0..address_count).map(|_| self.ip(is_ipv4, false)).collect(),
            hmac: self.flag(),
            checksum: match (version, is_ipv4, number % 3) {
                (Version::V2, ..) | (_, true, 0) => Checksum::Plain,
                (_, true, 1) => Checksum::GroupPseudoHeader,
                _ => Checksum::PseudoHeader,
            },
        }
    }
}
