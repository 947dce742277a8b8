//! The forms of ARP, and packets that are not ARP for IPv4 over Ethernet.

use super::*;
use crate::wire::{
    Message,
    tests::{corpus, fault, hex, seen},
};

const ETHERNET: &str = "ffffffffffff 020000005611 0806";

/// A packet by RFC 826, field by field.
const REPLY: &str = "0001 0800 06 04 0002  020304050607 c0000201  0a0b0c0d0e0f c0000202";

fn frame(packet: &str) -> Vec<u8> {
    hex(&format!("{ETHERNET} {packet}"))
}

fn arp(frame: &[u8]) -> Arp {
    match seen(frame).message {
        Message::Arp(arp) => arp,
        other => panic!("{other:?}"),
    }
}

fn kind(operation: u8, sender: &str, target: &str) -> Kind {
    arp(&frame(&format!("0001 0800 06 04 00{operation:02x} 020304050607 {sender} 000000000000 {target}")))
        .kind()
}

/// The reply with one part replaced.
fn broken(part: &str, by: &str) -> (&'static str, &'static str) {
    assert!(REPLY.contains(part));
    fault(&frame(&REPLY.replacen(part, by, 1)))
}

#[test]
fn every_field_is_read_from_its_place() {
    assert_eq!(
        arp(&frame(REPLY)),
        Arp {
            operation: Operation::Reply,
            sender_mac: MacAddress([2, 3, 4, 5, 6, 7]),
            sender: Ipv4Addr::new(192, 0, 2, 1),
            target_mac: MacAddress([10, 11, 12, 13, 14, 15]),
            target: Ipv4Addr::new(192, 0, 2, 2),
        }
    );
}

#[test]
fn the_form_follows_from_operation_and_addresses() {
    assert_eq!(kind(1, "c0000201", "c0000202"), Kind::Request);
    assert_eq!(kind(2, "c0000201", "c0000202"), Kind::Reply);
    assert_eq!(kind(1, "c0000201", "c0000201"), Kind::GratuitousRequest);
    assert_eq!(kind(2, "c0000201", "c0000201"), Kind::GratuitousReply);
    assert_eq!(kind(1, "00000000", "c0000202"), Kind::Probe);
}

#[test]
fn no_address_is_not_announced() {
    assert_eq!(kind(1, "00000000", "00000000"), Kind::Probe);
    assert_eq!(kind(2, "00000000", "00000000"), Kind::Reply);
}

#[test]
fn only_announcements_are_gratuitous() {
    let gratuitous =
        [Kind::Probe, Kind::GratuitousRequest, Kind::GratuitousReply, Kind::Request, Kind::Reply]
            .map(Kind::is_gratuitous);
    assert_eq!(gratuitous, [false, true, true, false, false]);
}

#[test]
fn real_packets_have_their_forms() {
    for (name, wanted, target) in [
        ("arp-gratuitous-request-keepalived", Kind::GratuitousRequest, [192, 168, 56, 50]),
        ("arp-gratuitous-request-arping", Kind::GratuitousRequest, [192, 168, 56, 50]),
        ("arp-gratuitous-reply-arping", Kind::GratuitousReply, [192, 168, 56, 50]),
        ("arp-probe-arping", Kind::Probe, [192, 168, 56, 99]),
        ("arp-request", Kind::Request, [192, 168, 56, 12]),
        ("arp-reply", Kind::Reply, [192, 168, 56, 11]),
    ] {
        let arp = arp(&corpus(name));
        assert_eq!((arp.kind(), arp.target), (wanted, Ipv4Addr::from(target)), "{name}");
    }
}

#[test]
fn a_sender_that_lies_about_its_mac_address_can_be_told() {
    let observation = seen(&frame(REPLY));
    assert_eq!(observation.link.source, Some(MacAddress([2, 0, 0, 0, 0x56, 0x11])));
    assert_ne!(observation.link.source, Some(arp(&frame(REPLY)).sender_mac));
}

#[test]
fn ieee_802_networks_are_ethernet_to_arp() {
    assert_eq!(arp(&frame(&REPLY.replacen("0001", "0006", 1))), arp(&frame(REPLY)));
}

#[test]
fn other_hardware_protocols_and_operations_are_refused() {
    assert_eq!(broken("0001 0800", "0020 0800"), ("arp", "bad_hardware_type"));
    assert_eq!(broken("0001 0800", "0001 0806"), ("arp", "bad_protocol_type"));
    assert_eq!(broken("0800 06", "0800 14"), ("arp", "bad_length"));
    assert_eq!(broken("06 04", "06 10"), ("arp", "bad_length"));
    for operation in ["0000", "0003", "0008", "0102"] {
        assert_eq!(broken("04 0002", &format!("04 {operation}")), ("arp", "bad_operation"));
    }
}

#[test]
fn a_packet_that_ends_early_is_truncated() {
    let frame = frame(REPLY);
    for end in 14..frame.len() {
        assert_eq!(fault(&frame[..end]), ("arp", "truncated"), "{end}");
    }
}
