//! What a neighbour advertisement says, and what RFC 4861 section 7.1.2 makes invalid.

use super::*;
use crate::wire::{
    Capture, Message, Observation, checksum, observe,
    tests::{corpus, fault, hex, seen},
};

/// To all nodes, with the option: field by field.
const SOURCE: &str = "20010db8000000000000000000000011";
const ALL_NODES: &str = "ff020000000000000000000000000001";
const TARGET: &str = "20010db8000000000000000000000050";
const OPTION: &str = "02 01 020304050607";

/// A frame with the checksum that belongs to its message.
fn frame(destination: &str, hop_limit: u8, code: u8, flags: &str, rest: &str) -> Vec<u8> {
    let message = hex(&format!("88 {code:02x} 0000 {flags} {rest}"));
    let addresses = hex(&format!("{SOURCE} {destination}"));
    let length = message.len();
    let header = hex(&format!("333300000001 020000005611 86dd 60000000 {length:04x} 3a {hop_limit:02x}"));
    let mut frame = [header, addresses.clone(), message.clone()].concat();
    let sum = checksum::sum(&addresses) + checksum::sum(&message) + 58 + length as u64;
    let at = frame.len() - length + 2;
    frame[at..at + 2].copy_from_slice(&checksum::complement(sum));
    frame
}

fn valid() -> Vec<u8> {
    frame(ALL_NODES, 255, 0, "20000000", &format!("{TARGET} {OPTION}"))
}

fn advertisement(frame: &[u8]) -> NeighbourAdvertisement {
    match seen(frame).message {
        Message::NeighbourAdvertisement(advertisement) => advertisement,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_is_read_from_its_place() {
    assert_eq!(
        advertisement(&valid()),
        NeighbourAdvertisement {
            source: "2001:db8::11".parse().unwrap(),
            destination: "ff02::1".parse().unwrap(),
            target: "2001:db8::50".parse().unwrap(),
            router: false,
            solicited: false,
            overrides: true,
            target_mac: Some(MacAddress([2, 3, 4, 5, 6, 7])),
            checksum: Checksum::PseudoHeader,
        }
    );
}

#[test]
fn flags_are_read_one_by_one() {
    for (flags, wanted) in [
        ("80000000", (true, false, false)),
        ("40000000", (false, true, false)),
        ("20000000", (false, false, true)),
    ] {
        let seen = advertisement(&frame(SOURCE, 255, 0, flags, TARGET));
        assert_eq!((seen.router, seen.solicited, seen.overrides), wanted, "{flags}");
        assert_eq!(seen.target_mac, None);
    }
}

#[test]
fn only_multicast_without_a_question_is_unsolicited() {
    assert!(advertisement(&valid()).is_unsolicited());
    assert!(!advertisement(&frame(SOURCE, 255, 0, "40000000", TARGET)).is_unsolicited());
    assert!(!advertisement(&frame(SOURCE, 255, 0, "00000000", TARGET)).is_unsolicited());
}

#[test]
fn real_advertisements_are_read() {
    for (name, target, unsolicited, option) in [
        ("na-unsolicited-keepalived", "fe80::50", true, true),
        ("na-unsolicited-vmac", "fe80::50", true, true),
        ("na-solicited", "fd00:56::12", false, true),
        ("na-solicited-without-option", "fe80::ff:fe00:5612", false, false),
    ] {
        let observation = seen(&corpus(name));
        let seen = advertisement(&corpus(name));
        assert_eq!(seen.target, target.parse::<Ipv6Addr>().unwrap(), "{name}");
        assert_eq!((seen.is_unsolicited(), seen.solicited), (unsolicited, !unsolicited), "{name}");
        let mac = observation.link.source.filter(|_| option);
        assert_eq!(seen.target_mac, mac, "{name}");
    }
}

#[test]
fn a_message_from_beyond_the_link_is_refused() {
    let frame = frame(ALL_NODES, 254, 0, "20000000", TARGET);
    assert_eq!(fault(&frame), ("ndp", "bad_ttl"));
}

#[test]
fn a_wrong_checksum_is_refused_and_its_sender_named() {
    let mut frame = valid();
    frame[54 + 8 + 15] ^= 1;
    let malformed = observe(&Capture::ethernet(&frame)).unwrap_err();
    assert_eq!(malformed.to_string(), "malformed ndp frame: bad_checksum, from 2001:db8::11");
}

#[test]
fn what_a_receiver_must_not_accept_is_refused() {
    let multicast = "ff020000000000000000000000000050";
    for (frame, reason) in [
        (frame(ALL_NODES, 255, 1, "20000000", TARGET), "bad_code"),
        (frame(ALL_NODES, 255, 0, "20000000", multicast), "bad_target"),
        (frame(ALL_NODES, 255, 0, "60000000", TARGET), "bad_flags"),
        (frame(ALL_NODES, 255, 0, "20000000", &TARGET[..30]), "bad_length"),
    ] {
        assert_eq!(fault(&frame), ("ndp", reason));
    }
}

#[test]
fn options_are_searched_and_unknown_ones_skipped() {
    let rest = format!("{TARGET} 0e 01 000000000000 c8 02 {} {OPTION}", "00".repeat(14));
    let seen = advertisement(&frame(ALL_NODES, 255, 0, "20000000", &rest));
    assert_eq!(seen.target_mac, Some(MacAddress([2, 3, 4, 5, 6, 7])));
}

#[test]
fn options_of_impossible_lengths_are_refused() {
    for option in ["02 00 020304050607", "02 02 020304050607", "02", "02 01 0203", "0e 01 000000000000 05"] {
        let frame = frame(ALL_NODES, 255, 0, "20000000", &format!("{TARGET} {option}"));
        assert_eq!(fault(&frame), ("ndp", "bad_option"), "{option}");
    }
    let long = format!("{TARGET} 02 02 {}", "00".repeat(14));
    assert_eq!(fault(&frame(ALL_NODES, 255, 0, "20000000", &long)), ("ndp", "bad_option"));
}

#[test]
fn an_option_that_the_capture_cut_off_is_missing() {
    let frame = valid();
    let capture = Capture { original_length: frame.len(), ..Capture::ethernet(&frame[..frame.len() - 3]) };
    let Ok(Some(Observation { message: Message::NeighbourAdvertisement(seen), .. })) = observe(&capture)
    else {
        panic!("not read")
    };
    assert_eq!((seen.target_mac, seen.checksum), (None, Checksum::Unverified));
}

#[test]
fn a_target_that_the_capture_cut_off_is_a_fault() {
    let frame = valid();
    let capture = Capture { original_length: frame.len(), ..Capture::ethernet(&frame[..54 + 23]) };
    assert_eq!(observe(&capture).unwrap_err().reason, Reason::Truncated);
}

#[test]
fn other_messages_of_icmpv6_are_none_of_ours() {
    for name in
        ["other-router-solicitation", "other-neighbour-solicitation", "other-parameter-problem-quoting-vrrp"]
    {
        assert_eq!(observe(&Capture::ethernet(&corpus(name))), Ok(None), "{name}");
    }
}
