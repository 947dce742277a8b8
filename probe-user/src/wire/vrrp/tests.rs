//! Advertisements of both versions by the figures of the RFCs, as keepalived sends them, and broken in every way.

use super::*;
use crate::wire::{
    Capture, Message, observe,
    tests::{corpus, fault, hex, seen},
};

const V4_SOURCE: [u8; 4] = [192, 0, 2, 1];

/// RFC 3768 section 5.1, field by field: two addresses, no authentication.
const V2: &str = "21 33 96 02 00 05 0000  c0000232 c0000233  0000000000000000";

/// RFC 5798 section 5.1: one address, 4.09 seconds; the four reserved bits are set, and mean nothing.
const V3: &str = "31 34 64 01 f199 0000  c0000232";

/// The sum of a pseudo-header from the source to a destination.
fn header(destination: [u8; 4], length: usize) -> u64 {
    checksum::pseudo_header(V4_SOURCE.into(), destination.into(), VRRP, length)
}

/// A frame over IPv4; `covered` bytes of the message and `sum` are under its checksum.
fn frame(destination: [u8; 4], ttl: u8, message: &str, covered: usize, sum: u64) -> Vec<u8> {
    let mut message = hex(message);
    let checksum = checksum::complement(sum + checksum::sum(&message[..covered]));
    message[6..8].copy_from_slice(&checksum);
    let length = 20 + message.len();
    let mut ip = hex(&format!("45c0 {length:04x} 0001 0000 {ttl:02x} 70 0000"));
    ip.extend(V4_SOURCE);
    ip.extend(destination);
    let checksum = checksum::complement(checksum::sum(&ip));
    ip[10..12].copy_from_slice(&checksum);
    [hex("01005e000012 020000005611 0800"), ip, message].concat()
}

fn v2(message: &str) -> Vec<u8> {
    frame(GROUP_V4.octets(), 255, message, hex(message).len(), 0)
}

fn v3(message: &str) -> Vec<u8> {
    let length = hex(message).len();
    frame(GROUP_V4.octets(), 255, message, length, header(GROUP_V4.octets(), length))
}

fn advertisement(frame: &[u8]) -> Advertisement {
    match seen(frame).message {
        Message::Vrrp(advertisement) => advertisement,
        other => panic!("{other:?}"),
    }
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn every_field_of_version_2_is_read_from_its_place() {
    assert_eq!(
        advertisement(&v2(V2)),
        Advertisement {
            source: V4_SOURCE.into(),
            destination: GROUP_V4.into(),
            ttl: 255,
            version: Version::V2,
            vrid: 51,
            priority: 150,
            interval: Some(Duration::from_secs(5)),
            authentication: Authentication::None,
            authentication_header: false,
            address_count: 2,
            addresses: ips(&["192.0.2.50", "192.0.2.51"]),
            hmac: false,
            checksum: Checksum::Plain,
        }
    );
}

#[test]
fn every_field_of_version_3_is_read_from_its_place() {
    assert_eq!(
        advertisement(&v3(V3)),
        Advertisement {
            source: V4_SOURCE.into(),
            destination: GROUP_V4.into(),
            ttl: 255,
            version: Version::V3,
            vrid: 52,
            priority: 100,
            interval: Some(Duration::from_millis(4090)),
            authentication: Authentication::None,
            authentication_header: false,
            address_count: 1,
            addresses: ips(&["192.0.2.50"]),
            hmac: false,
            checksum: Checksum::PseudoHeader,
        }
    );
}

/// Name, source and destination, then virtual router, priority and interval in milliseconds, then addresses.
type Real = (&'static str, [&'static str; 2], (u8, u8, u64), &'static [&'static str]);

const REAL: [Real; 11] = [
    ("v2-none", ["192.168.56.11", "224.0.0.18"], (51, 150, 1000), &["192.168.56.50"]),
    ("v2-pass", ["192.168.56.11", "224.0.0.18"], (52, 140, 1000), &["192.168.56.50", "192.168.56.51"]),
    ("v2-ah", ["192.168.56.11", "224.0.0.18"], (53, 130, 1000), &["192.168.56.50"]),
    ("v2-unicast", ["192.168.56.11", "192.168.56.12"], (54, 120, 1000), &["192.168.56.50"]),
    ("v3-ipv4", ["192.168.56.11", "224.0.0.18"], (61, 150, 100), &["192.168.56.50", "192.168.56.51"]),
    ("v3-ipv6", ["fe80::ff:fe00:5611", "ff02::12"], (62, 140, 250), &["fe80::50", "fd00:56::50"]),
    ("v3-unicast", ["192.168.56.11", "192.168.56.12"], (63, 130, 100), &["192.168.56.50"]),
    ("v3-unicast-old-checksum", ["192.168.56.11", "192.168.56.12"], (64, 120, 100), &["192.168.56.50"]),
    ("v3-ipv6-unicast", ["fd00:56::11", "fd00:56::12"], (65, 110, 100), &["fe80::50"]),
    ("v3-ipv4-vmac", ["192.168.56.11", "224.0.0.18"], (66, 100, 100), &["192.168.56.50"]),
    ("v3-ipv6-vmac", ["fe80::ff:fe00:5611", "ff02::12"], (67, 90, 100), &["fe80::50"]),
];

#[test]
fn advertisements_of_keepalived_are_read() {
    for (name, [source, destination], (vrid, priority, interval), addresses) in REAL {
        let seen = advertisement(&corpus(&format!("vrrp-{name}")));
        assert_eq!(ips(&[source, destination]), [seen.source, seen.destination], "{name}");
        assert_eq!((seen.vrid, seen.priority), (vrid, priority), "{name}");
        assert_eq!(seen.interval, Some(Duration::from_millis(interval)), "{name}");
        assert_eq!(seen.addresses, ips(addresses), "{name}");
        assert!(!seen.hmac, "{name}");
    }
}

#[test]
fn a_keepalived_that_stops_says_so() {
    for (name, _, (vrid, ..), addresses) in REAL {
        let seen = advertisement(&corpus(&format!("vrrp-{name}-priority-0")));
        assert!(seen.is_resignation(), "{name}");
        assert_eq!((seen.vrid, seen.addresses), (vrid, ips(addresses)), "{name}");
        assert!(!advertisement(&corpus(&format!("vrrp-{name}"))).is_resignation(), "{name}");
    }
}

#[test]
fn authentication_is_named() {
    for (name, wanted, header) in [
        ("vrrp-v2-none", Authentication::None, false),
        ("vrrp-v2-pass", Authentication::SimplePassword, false),
        ("vrrp-v2-ah", Authentication::AuthenticationHeader, true),
        ("vrrp-v3-ipv4", Authentication::None, false),
    ] {
        let seen = advertisement(&corpus(name));
        assert_eq!((seen.authentication, seen.authentication_header), (wanted, header), "{name}");
    }
}

#[test]
fn the_kind_of_checksum_is_reported() {
    for (name, wanted) in [
        ("vrrp-v2-pass", Checksum::Plain),
        ("vrrp-v3-ipv4", Checksum::PseudoHeader),
        ("vrrp-v3-unicast", Checksum::PseudoHeader),
        ("vrrp-v3-unicast-old-checksum", Checksum::GroupPseudoHeader),
        ("vrrp-v3-ipv6", Checksum::PseudoHeader),
        ("vrrp-v3-ipv6-unicast", Checksum::PseudoHeader),
    ] {
        assert_eq!(advertisement(&corpus(name)).checksum, wanted, "{name}");
    }
}

#[test]
fn version_3_without_a_pseudo_header_is_accepted_over_ipv4() {
    assert_eq!(advertisement(&frame(GROUP_V4.octets(), 255, V3, 12, 0)).checksum, Checksum::Plain);
}

#[test]
fn version_3_without_a_pseudo_header_is_refused_over_ipv6() {
    let mut frame = corpus("vrrp-v3-ipv6");
    frame[60..62].fill(0);
    let checksum = checksum::complement(checksum::sum(&frame[54..]));
    frame[60..62].copy_from_slice(&checksum);
    assert_eq!(fault(&frame), ("vrrp", "bad_checksum"));
}

#[test]
fn version_2_with_a_pseudo_header_is_refused() {
    let frame = frame(GROUP_V4.octets(), 255, V2, 24, header(GROUP_V4.octets(), 24));
    assert_eq!(fault(&frame), ("vrrp", "bad_checksum"));
}

#[test]
fn a_wrong_checksum_names_the_virtual_router_and_the_sender() {
    let mut frame = v3(V3);
    frame[36] ^= 1;
    let malformed = observe(&Capture::ethernet(&frame)).unwrap_err();
    assert_eq!(malformed.to_string(), "malformed vrrp frame: bad_checksum, vrid 52, from 192.0.2.1");
}

#[test]
fn a_multicast_message_from_beyond_the_link_is_refused() {
    let malformed = observe(&Capture::ethernet(&frame(GROUP_V4.octets(), 254, V2, 24, 0))).unwrap_err();
    assert_eq!((malformed.reason, malformed.vrid), (Reason::BadTtl, Some(51)));
    let mut frame = corpus("vrrp-v3-ipv6");
    frame[21] = 64;
    assert_eq!(fault(&frame), ("vrrp", "bad_ttl"));
}

#[test]
fn unicast_peers_may_be_routers_away() {
    assert_eq!(advertisement(&frame([192, 0, 2, 2], 64, V2, 24, 0)).ttl, 64);
    let seen = advertisement(&corpus("vrrp-v3-ipv6-unicast"));
    assert_eq!((seen.ttl, seen.is_multicast()), (64, false));
}

#[test]
fn the_hmac_of_keepalived_is_not_part_of_the_message() {
    let hmac = "01 07 0000 65000000 1234 0001  00112233445566778899aabbccddeeff";
    let trailing = format!("{V2} {hmac}");
    assert_eq!(hex(hmac).len(), 28);
    let seen = advertisement(&frame(GROUP_V4.octets(), 255, &trailing, 24, 0));
    assert_eq!(seen, Advertisement { hmac: true, ..advertisement(&v2(V2)) });
    let trailing = format!("{V3} {hmac}");
    let seen = advertisement(&frame(GROUP_V4.octets(), 255, &trailing, 12, header(GROUP_V4.octets(), 12)));
    assert_eq!(seen, Advertisement { hmac: true, ..advertisement(&v3(V3)) });
}

#[test]
fn over_ipv6_the_hmac_is_under_the_checksum() {
    let original = corpus("vrrp-v3-ipv6");
    let with_checksum_over = |covered: usize| {
        let mut frame = original.clone();
        frame.extend([0x5a; HMAC]);
        frame[19] += 28;
        frame[60..62].fill(0);
        let seen = advertisement(&original);
        let sum = checksum::pseudo_header(seen.source, seen.destination, VRRP, covered)
            + checksum::sum(&frame[54..54 + covered]);
        frame[60..62].copy_from_slice(&checksum::complement(sum));
        frame
    };
    let wanted = Advertisement { hmac: true, ..advertisement(&original) };
    assert_eq!(advertisement(&with_checksum_over(68)), wanted);
    assert_eq!(fault(&with_checksum_over(40)), ("vrrp", "bad_checksum"));
}

#[test]
fn nothing_else_may_follow_a_message() {
    for size in [1, 4, 8, 27, 29, 32] {
        let frame = frame(GROUP_V4.octets(), 255, &format!("{V2} {}", "00".repeat(size)), 24, 0);
        assert_eq!(fault(&frame), ("vrrp", "bad_length"), "{size}");
    }
}

#[test]
fn a_damaged_count_does_not_pass_as_a_shorter_message() {
    // What leaves the sum with the second address is what the count lost.
    let three = "31 38 0b 03 0040 0000  00001270 00000000 0000fffd 00000000";
    let mut frame = frame([192, 0, 2, 2], 255, three, 20, 0);
    frame[37] = 1;
    assert_eq!(fault(&frame), ("vrrp", "bad_length"));
}

#[test]
fn an_interval_of_zero_is_unknown() {
    assert_eq!(advertisement(&v2(&V2.replacen("00 05", "00 00", 1))).interval, None);
    assert_eq!(advertisement(&v3(&V3.replacen("f199", "f000", 1))).interval, None);
}

#[test]
fn a_version_3_interval_has_twelve_bits_of_centiseconds() {
    let seen = advertisement(&v3(&V3.replacen("f199", "0fff", 1)));
    assert_eq!(seen.interval, Some(Duration::from_millis(40_950)));
}

#[test]
fn what_no_receiver_accepts_is_refused_with_its_reason() {
    for (part, by, reason) in [
        ("21 33", "11 33", "bad_version"),
        ("21 33", "41 33", "bad_version"),
        ("21 33", "22 33", "bad_type"),
        ("21 33", "20 33", "bad_type"),
        ("21 33", "21 00", "bad_vrid"),
        ("96 02", "96 00", "no_addresses"),
        ("96 02", "96 03", "bad_length"),
        ("02 00 05", "02 03 05", "bad_authentication_type"),
    ] {
        assert!(V2.contains(part));
        assert_eq!(fault(&v2(&V2.replacen(part, by, 1))), ("vrrp", reason), "{part} -> {by}");
    }
}

#[test]
fn version_2_does_not_exist_over_ipv6() {
    let mut frame = corpus("vrrp-v3-ipv6");
    frame[54] = 0x21;
    assert_eq!(fault(&frame), ("vrrp", "bad_version"));
}

#[test]
fn version_2_without_its_authentication_data_is_too_short() {
    assert_eq!(fault(&v2(&V2[..V2.len() - 16])), ("vrrp", "bad_length"));
}

#[test]
fn a_message_that_ends_within_its_header_is_truncated() {
    let frame = frame([192, 0, 2, 2], 255, V3, 12, 0);
    let capture = Capture { original_length: frame.len(), ..Capture::ethernet(&frame[..41]) };
    let malformed = observe(&capture).unwrap_err();
    assert_eq!((malformed.reason, malformed.vrid), (Reason::Truncated, Some(52)));
}

#[test]
fn the_most_addresses_that_a_message_can_have_are_read() {
    let message = format!("31 34 64 ff 0064 0000 {}", "c0000232".repeat(255));
    let seen = advertisement(&v3(&message));
    assert_eq!((seen.address_count, seen.addresses.len()), (255, 255));
}

#[test]
fn groups_are_told_from_peers() {
    assert!(advertisement(&v2(V2)).is_multicast());
    assert!(advertisement(&corpus("vrrp-v3-ipv6")).is_multicast());
    assert!(!advertisement(&corpus("vrrp-v3-unicast")).is_multicast());
    assert_eq!(advertisement(&corpus("vrrp-v3-ipv6")).destination, IpAddr::V6(GROUP_V6));
}

#[test]
fn authentication_data_decides_nothing_but_the_checksum() {
    let with = |data: &str| advertisement(&v2(&V2.replacen("0000000000000000", data, 1)));
    assert_eq!(with("7365637265743132"), with("ffffffffffffffff"));
}
