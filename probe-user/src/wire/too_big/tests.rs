//! What real routers say, and what is refused. The corpus holds one packet a file, as the tap copies them: the kernel of a
//! router in a network namespace, caught on the device of the node that it refused.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::wire::encode::encode_too_big;
use crate::wire::property;

const SEED: u64 = 0x0576_1280;
const MUTATIONS: usize = 100_000;

/// Where the header of ICMP begins.
const ICMP_AT: usize = 20;
const ICMP6_AT: usize = 40;

fn all() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/wire/too_big/corpus");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

fn named(name: &str) -> Vec<u8> {
    all().into_iter().find(|(known, _)| known == name).unwrap().1
}

/// The length that a packet of the corpus had.
fn length(packet: &[u8]) -> usize {
    let number = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if packet[0] >> 4 == 4 { number(2) } else { 40 + number(4) }
}

fn told(router: &str, mtu: u32, source: &str, destination: &str) -> TooBig {
    let ip = |text: &str| text.parse().unwrap();
    TooBig { router: ip(router), mtu: Some(mtu), source: ip(source), destination: ip(destination) }
}

#[test]
fn every_packet_of_the_corpus_is_what_its_name_says() {
    let packets = all();
    assert!(packets.len() >= 8, "{}", packets.len());
    for (name, packet) in packets {
        let seen = parse(&packet, length(&packet)).unwrap();
        assert_eq!(seen.is_some(), name.starts_with("refusal-"), "{name}: {seen:?}");
    }
}

#[test]
fn a_router_tells_the_mtu_of_its_next_link_and_whose_packet_it_was() {
    for (name, expected) in [
        ("refusal-ipv4", told("192.168.56.1", 1_400, "192.168.56.11", "192.168.56.12")),
        ("refusal-ipv4-options", told("192.168.56.1", 1_400, "192.168.56.11", "192.168.56.12")),
        ("refusal-ipv4-pod", told("192.168.56.12", 1_400, "10.42.1.2", "10.42.2.2")),
        ("refusal-ipv6", told("fd56::1", 1_400, "fd56::11", "fd56::12")),
        ("refusal-ipv6-pod", told("fd56::12", 1_400, "fd42:0:0:1::3", "fd42:0:0:2::3")),
    ] {
        let packet = named(name);
        assert_eq!(parse(&packet, length(&packet)), Ok(Some(expected)), "{name}");
    }
}

/// A message of either family with one field replaced. Its checksum is right, or it is longer than what was captured.
fn changed(ipv6: bool, at: usize, value: &[u8]) -> Vec<u8> {
    let mut packet = named(if ipv6 { "refusal-ipv6" } else { "refusal-ipv4" });
    packet[at..at + value.len()].copy_from_slice(value);
    if !ipv6 {
        packet[10..12].fill(0);
        let sum = checksum::complement(checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum);
    }
    packet
}

fn mtu(packet: &[u8]) -> Option<u32> {
    parse(packet, length(packet)).unwrap().unwrap().mtu
}

#[test]
fn an_mtu_that_no_path_may_have_is_none() {
    let v4 = |mtu: u16| self::mtu(&changed(false, ICMP_AT + 6, &mtu.to_be_bytes()));
    assert_eq!([0, 67, 68, 1_500, u16::MAX].map(v4), [None, None, Some(68), Some(1_500), Some(65_535)]);
    let v6 = |mtu: u32| self::mtu(&changed(true, ICMP6_AT + 4, &mtu.to_be_bytes()));
    assert_eq!([0, 1_279, 1_280, 70_000].map(v6), [None, None, Some(1_280), Some(70_000)]);
}

#[test]
fn the_upper_half_of_the_field_that_is_unused_over_ipv4_says_nothing() {
    assert_eq!(mtu(&changed(false, ICMP_AT + 4, &[0xff, 0xff])), Some(1_400));
}

#[test]
fn other_messages_are_none_of_these() {
    for (at, value) in [(ICMP_AT, 11), (ICMP_AT, 5), (ICMP_AT + 1, 3), (ICMP_AT + 1, 13), (9, 17)] {
        let packet = changed(false, at, &[value]);
        assert_eq!(parse(&packet, length(&packet)), Ok(None), "{value} at {at}");
    }
    for (at, value) in [(ICMP6_AT, 1), (ICMP6_AT, 3), (ICMP6_AT, 136), (6, 17)] {
        let packet = changed(true, at, &[value]);
        assert_eq!(parse(&packet, length(&packet)), Ok(None), "{value} at {at} over IPv6");
    }
    // RFC 4443: the code is ignored by the receiver.
    assert!(parse(&changed(true, ICMP6_AT + 1, &[9]), 1_280).unwrap().is_some());
}

#[test]
fn what_breaks_the_rules_says_how() {
    let v4 = |at, value: &[u8]| parse(&changed(false, at, value), 576);
    for (what, seen, reason) in [
        ("a header of four words", v4(0, &[0x44]), Reason::BadIpHeader),
        ("a fragment", v4(6, &[0x20, 0]), Reason::Fragment),
        ("a later fragment", v4(6, &[0, 9]), Reason::Fragment),
        ("a packet shorter than its header", v4(2, &[0, 19]), Reason::BadLength),
        ("half a header of ICMP", v4(2, &[0, 27]), Reason::BadLength),
        ("half a quoted header", v4(2, &[0, 47]), Reason::BadLength),
        ("more than came", v4(2, &[2, 65]), Reason::Truncated),
        ("another family inside", v4(28, &[0x65]), Reason::BadIpHeader),
        ("a quoted header of four words", v4(28, &[0x44]), Reason::BadIpHeader),
        ("no version", parse(&[0x55; 96], 96), Reason::BadIpHeader),
        ("nothing", parse(&[], 0), Reason::Truncated),
    ] {
        assert_eq!(seen, Err(reason), "{what}");
    }
    let mut damaged = named("refusal-ipv4");
    damaged[16] ^= 1;
    assert_eq!(parse(&damaged, 576), Err(Reason::BadIpChecksum));
    let v6 = |at, value: &[u8]| parse(&changed(true, at, value), 1_280);
    for (what, seen, reason) in [
        ("half a header of ICMPv6", v6(4, &[0, 7]), Reason::BadLength),
        ("half a quoted header", v6(4, &[0, 47]), Reason::BadLength),
        ("more than came", v6(4, &[5, 0]), Reason::Truncated),
        ("another family inside", v6(48, &[0x45]), Reason::BadIpHeader),
    ] {
        assert_eq!(seen, Err(reason), "{what} over IPv6");
    }
}

#[test]
fn the_checksum_of_a_message_that_was_captured_as_a_whole_is_verified() {
    for (router, source, destination) in
        [("192.0.2.9", "192.0.2.1", "192.0.2.2"), ("2001:db8::9", "2001:db8::1", "2001:db8::2")]
    {
        let told = told(router, 1_400, source, destination);
        let packet = encode_too_big(&told, &[]);
        assert_eq!(parse(&packet, packet.len()), Ok(Some(told)));
        let mut damaged = packet.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&damaged, damaged.len()), Err(Reason::BadChecksum));
    }
}

#[test]
fn what_was_captured_of_less_than_the_addresses_is_truncated() {
    for (name, least) in [("refusal-ipv4", 48), ("refusal-ipv4-options", 88), ("refusal-ipv6", 88)] {
        let packet = named(name);
        for end in 0..packet.len() {
            let seen = parse(&packet[..end], length(&packet));
            assert_eq!(seen.is_ok(), end >= least, "{name}, {end} bytes: {seen:?}");
        }
    }
}

#[test]
fn no_mutation_of_a_real_packet_panics() {
    let mut seed = SEED;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed & 0xffff).unwrap()
    };
    let packets = all();
    for _ in 0..MUTATIONS {
        let mut packet = packets[next() % packets.len()].1.clone();
        for _ in 0..=next() % 4 {
            let at = next() % packet.len();
            packet[at] = u8::try_from(next() & 0xff).unwrap();
        }
        packet.truncate(next() % (packet.len() + 1));
        property::too_big(&packet);
    }
}
