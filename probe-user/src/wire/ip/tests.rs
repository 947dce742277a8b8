//! Headers that lead to a message, and those that must not.

use super::*;
use crate::wire::{
    Capture, Checksum, Message, Observation, observe,
    tests::{corpus, fault, hex, seen},
    vrrp::Advertisement,
};

/// Where the IP header begins.
const IP: usize = 14;

/// A frame with its IPv4 header changed and its header checksum put right.
fn with_v4(name: &str, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = corpus(name);
    change(&mut frame);
    frame[IP + 10..IP + 12].fill(0);
    let header = usize::from(frame[IP] & 0x0f) * 4;
    let checksum = checksum::complement(checksum::sum(&frame[IP..IP + header]));
    frame[IP + 10..IP + 12].copy_from_slice(&checksum);
    frame
}

/// An IPv6 frame with extension headers put before its message; the first one's number comes first.
fn extended(name: &str, first: u8, headers: &str) -> Vec<u8> {
    let mut frame = corpus(name);
    let headers = hex(headers);
    frame[IP + 6] = first;
    frame[IP + 5] += u8::try_from(headers.len()).unwrap();
    frame.splice(IP + 40..IP + 40, headers);
    frame
}

fn advertisement(frame: &[u8]) -> Advertisement {
    match seen(frame) {
        Observation { message: Message::Vrrp(advertisement), .. } => advertisement,
        other => panic!("{other:?}"),
    }
}

fn other(frame: &[u8]) -> bool {
    observe(&Capture::ethernet(frame)) == Ok(None)
}

#[test]
fn options_of_ipv4_are_skipped() {
    let frame = with_v4("vrrp-v2-none", |frame| {
        frame[IP] = 0x46;
        frame[IP + 3] += 4;
        frame.splice(IP + 20..IP + 20, [0x94, 0x04, 0, 0]);
    });
    assert_eq!(advertisement(&frame), advertisement(&corpus("vrrp-v2-none")));
}

#[test]
fn a_header_of_another_version_or_size_is_refused() {
    for first in [0x65, 0x44, 0x40] {
        let frame = with_v4("vrrp-v2-none", |frame| frame[IP] = first);
        assert_eq!(fault(&frame), ("vrrp", "bad_ip_header"), "{first:x}");
    }
    let mut frame = corpus("vrrp-v3-ipv6");
    frame[IP] = 0x4c;
    assert_eq!(fault(&frame), ("vrrp", "bad_ip_header"));
}

#[test]
fn the_checksum_of_the_ipv4_header_is_verified() {
    let mut frame = corpus("vrrp-v2-none");
    frame[IP + 15] ^= 4;
    assert_eq!(fault(&frame), ("vrrp", "bad_ip_checksum"));
}

#[test]
fn fragments_are_refused() {
    for (high, low) in [(0x20, 0), (0, 1), (0x20, 1)] {
        let frame = with_v4("vrrp-v2-none", |frame| frame[IP + 6..IP + 8].copy_from_slice(&[high, low]));
        assert_eq!(fault(&frame), ("vrrp", "fragment"));
    }
    assert_eq!(fault(&extended("vrrp-v3-ipv6", 44, "70 00 0001 00000007")), ("vrrp", "fragment"));
    // RFC 6980: not even in one piece.
    assert_eq!(fault(&extended("na-unsolicited-keepalived", 44, "3a 00 0000 00000007")), ("ndp", "fragment"));
}

#[test]
fn a_later_fragment_of_icmpv6_is_not_taken_for_what_it_looks_like() {
    assert!(other(&extended("na-unsolicited-keepalived", 44, "3a 00 0008 00000007")));
}

#[test]
fn a_frame_shorter_than_its_packet_is_truncated() {
    let frame = with_v4("vrrp-v2-none", |frame| frame[IP + 3] += 1);
    assert_eq!(fault(&frame), ("vrrp", "truncated"));
    let mut frame = corpus("vrrp-v3-ipv6");
    frame[IP + 5] += 1;
    assert_eq!(fault(&frame), ("vrrp", "truncated"));
}

#[test]
fn a_packet_shorter_than_its_header_has_a_bad_length() {
    let frame = with_v4("vrrp-v2-none", |frame| frame[IP + 3] = 19);
    assert_eq!(fault(&frame), ("vrrp", "bad_length"));
}

#[test]
fn a_packet_without_a_message_is_truncated() {
    let frame = with_v4("vrrp-v2-none", |frame| frame[IP + 3] = 20);
    assert_eq!(fault(&frame), ("vrrp", "truncated"));
}

#[test]
fn what_the_capture_cut_off_is_not_verified() {
    let frame = corpus("vrrp-v3-ipv6");
    let capture = Capture { original_length: frame.len(), ..Capture::ethernet(&frame[..IP + 40 + 8 + 20]) };
    let Ok(Some(Observation { message: Message::Vrrp(seen), .. })) = observe(&capture) else { panic!() };
    assert_eq!((seen.address_count, seen.addresses.len(), seen.checksum), (2, 1, Checksum::Unverified));
    assert_eq!(seen.addresses[0].to_string(), "fe80::50");
    assert_eq!((seen.vrid, seen.priority, seen.hmac), (62, 140, false));
}

#[test]
fn an_authentication_header_is_looked_behind() {
    let seen = advertisement(&corpus("vrrp-v2-ah"));
    assert!(seen.authentication_header);
    assert_eq!((seen.vrid, seen.hmac), (53, false));
    let seen = advertisement(&extended("vrrp-v3-ipv6", 51, &format!("70 04 {}", "ee".repeat(22))));
    assert!(seen.authentication_header);
}

#[test]
fn other_traffic_with_an_authentication_header_is_none_of_ours() {
    assert!(other(&with_v4("vrrp-v2-ah", |frame| frame[IP + 20] = 6)));
    // Not the beginning: what stands in the place of the next header means nothing.
    assert!(other(&with_v4("vrrp-v2-ah", |frame| frame[IP + 7] = 8)));
}

#[test]
fn an_authentication_header_that_does_not_fit_is_truncated() {
    let frame = with_v4("vrrp-v2-ah", |frame| frame[IP + 21] = 200);
    assert_eq!(fault(&frame), ("vrrp", "truncated"));
}

#[test]
fn extension_headers_of_ipv6_are_skipped() {
    let plain = advertisement(&corpus("vrrp-v3-ipv6"));
    for (first, headers) in [
        (0, "70 00 050200000000"),
        (60, "70 01 010c000000000000000000000000"),
        (0, "2b 00 010400000000 3c 00 000000000000 70 00 010400000000"),
    ] {
        assert_eq!(advertisement(&extended("vrrp-v3-ipv6", first, headers)), plain, "{headers}");
    }
}

#[test]
fn extension_headers_without_end_are_none_of_ours() {
    assert!(other(&extended("vrrp-v3-ipv6", 0, &"00 00 010400000000".repeat(9))));
}

#[test]
fn an_extension_header_that_does_not_fit_is_truncated() {
    assert_eq!(fault(&extended("vrrp-v3-ipv6", 0, "70 ff 050200000000")), ("ip", "truncated"));
}

#[test]
fn a_header_that_ends_early_is_truncated() {
    assert_eq!(fault(&corpus("vrrp-v2-none")[..IP + 19]), ("ip", "truncated"));
    assert_eq!(fault(&corpus("vrrp-v3-ipv6")[..IP + 39]), ("ip", "truncated"));
}

#[test]
fn other_protocols_are_none_of_ours_even_when_broken() {
    for protocol in [1, 2, 6, 17, 50, 58, 89] {
        let mut frame = corpus("vrrp-v2-none");
        frame[IP + 9] = protocol;
        assert!(other(&frame), "{protocol}");
    }
    for protocol in [6, 17, 50, 59, 89] {
        let mut frame = corpus("vrrp-v3-ipv6");
        frame[IP + 6] = protocol;
        assert!(other(&frame), "{protocol}");
    }
}

#[test]
fn the_padding_of_a_frame_is_no_message() {
    let mut frame = corpus("na-unsolicited-keepalived");
    frame[IP + 5] = 0;
    assert!(other(&frame));
}
