//! Tags in the frame and beside it, devices without Ethernet, frames that are too short.

use super::*;
use crate::wire::{
    Message, observe,
    tests::{corpus, fault, hex, seen},
};

fn tagged(tags: &str) -> Vec<u8> {
    let frame = corpus("vrrp-v3-ipv4");
    [&frame[..12], &hex(tags), &frame[12..]].concat()
}

#[test]
fn a_tag_in_the_frame_names_the_vlan_and_not_the_priority() {
    let link = seen(&tagged("8100 e064")).link;
    assert_eq!((link.outer_vlan, link.vlan), (None, Some(100)));
}

#[test]
fn nested_tags_are_told_apart() {
    for outer in ["88a8", "8100", "9100"] {
        let link = seen(&tagged(&format!("{outer} 0007 8100 0064"))).link;
        assert_eq!((link.outer_vlan, link.vlan), (Some(7), Some(100)), "{outer}");
    }
}

#[test]
fn the_kernels_tag_is_outside_those_of_the_frame() {
    let frame = corpus("vrrp-v3-ipv4");
    let link = observe(&Capture { vlan: Some(0x6007), ..Capture::ethernet(&frame) }).unwrap().unwrap().link;
    assert_eq!((link.outer_vlan, link.vlan), (None, Some(7)));
    let frame = tagged("8100 0064");
    let link = observe(&Capture { vlan: Some(7), ..Capture::ethernet(&frame) }).unwrap().unwrap().link;
    assert_eq!((link.outer_vlan, link.vlan), (Some(7), Some(100)));
}

#[test]
fn of_three_vlans_the_outermost_and_the_innermost_count() {
    let frame = tagged("88a8 0008 8100 0064");
    let link = observe(&Capture { vlan: Some(7), ..Capture::ethernet(&frame) }).unwrap().unwrap().link;
    assert_eq!((link.outer_vlan, link.vlan), (Some(7), Some(100)));
}

#[test]
fn a_priority_tag_is_no_vlan() {
    let link = seen(&tagged("8100 e000")).link;
    assert_eq!((link.outer_vlan, link.vlan), (None, None));
}

#[test]
fn three_tags_are_not_looked_behind() {
    assert_eq!(observe(&Capture::ethernet(&tagged("88a8 0007 8100 0064 8100 0065"))), Ok(None));
}

#[test]
fn a_device_without_ethernet_begins_with_the_ip_header() {
    for name in ["vrrp-v3-ipv4", "vrrp-v3-ipv6"] {
        let frame = corpus(name);
        let capture = Capture { medium: Medium::Layer3, ..Capture::ethernet(&frame[14..]) };
        let observation = observe(&capture).unwrap().unwrap();
        assert_eq!(observation.link, Link::default());
        assert_eq!(observation.message, seen(&frame).message, "{name}");
    }
}

#[test]
fn other_bytes_on_such_a_device_are_none_of_ours() {
    for bytes in [&[][..], &[0x00], &[0x55; 40]] {
        let capture = Capture { medium: Medium::Layer3, ..Capture::ethernet(bytes) };
        assert_eq!(observe(&capture), Ok(None));
    }
}

#[test]
fn a_header_that_ends_early_is_truncated() {
    assert_eq!(fault(&corpus("arp-request")[..13]), ("ethernet", "truncated"));
    assert_eq!(fault(&tagged("8100 0064")[..17]), ("ethernet", "truncated"));
}

#[test]
fn the_sender_of_a_frame_is_known() {
    let link = seen(&corpus("arp-request")).link;
    assert_eq!(link.source.unwrap().to_string(), "02:00:00:00:56:11");
    assert_eq!(link.destination, Some(MacAddress::BROADCAST));
}

#[test]
fn virtual_routers_are_known_by_their_mac_addresses() {
    let router = |mac: [u8; 6]| MacAddress(mac).virtual_router();
    assert_eq!(router([0, 0, 0x5e, 0, 1, 0x33]), Some(51));
    assert_eq!(router([0, 0, 0x5e, 0, 2, 0xff]), Some(255));
    assert_eq!(router([0, 0, 0x5e, 0, 3, 0x33]), None);
    assert_eq!(router([0, 0, 0x5e, 0, 1, 0]), None);
    assert_eq!(router([2, 0, 0x5e, 0, 1, 0x33]), None);
}

#[test]
fn keepalived_with_a_virtual_mac_sends_everything_from_it() {
    for (name, vrid) in [
        ("vrrp-v3-ipv4-vmac", 66),
        ("arp-gratuitous-request-vmac", 66),
        ("vrrp-v3-ipv6-vmac", 67),
        ("na-unsolicited-vmac", 67),
    ] {
        assert_eq!(seen(&corpus(name)).link.source.unwrap().virtual_router(), Some(vrid), "{name}");
    }
}

#[test]
fn groups_are_told_by_their_first_bit() {
    assert!(MacAddress::BROADCAST.is_multicast());
    assert!(MacAddress([1, 0, 0x5e, 0, 0, 0x12]).is_multicast());
    assert!(!MacAddress([2, 0, 0, 0, 0x56, 0x11]).is_multicast());
}

#[test]
fn a_capture_does_not_show_its_bytes() {
    let frame = corpus("vrrp-v2-pass");
    let shown = format!("{:?}", Capture { vlan: Some(9), ..Capture::ethernet(&frame) });
    assert_eq!(shown, "Capture { captured: 58, original_length: 58, medium: Ethernet, vlan: Some(9) }");
}

#[test]
fn frames_of_other_kinds_are_none_of_ours() {
    for kind in ["88cc", "0026", "8847", "0000"] {
        let frame = [&corpus("arp-request")[..12], &hex(kind), &[0x45; 40]].concat();
        assert_eq!(observe(&Capture::ethernet(&frame)), Ok(None), "{kind}");
    }
}

#[test]
fn an_original_length_below_the_captured_one_is_not_believed() {
    let frame = corpus("vrrp-v3-ipv4");
    let observation = observe(&Capture { original_length: 0, ..Capture::ethernet(&frame) }).unwrap().unwrap();
    assert!(matches!(observation.message, Message::Vrrp(_)));
}
