//! Messages that nobody should believe, and those of strange routers.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use lab::frames::FrameSender;
use lab::{Backend, Node, Place as _};

use crate::{FULL, expect, others, send, start};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// A router that the lab does not have.
const ROUTER: [&str; 2] = ["198.51.100.254", "2001:db8::254"];
const FAR: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];
const NARROW: u32 = 1_300;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// The checksum of the Internet.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from_be_bytes([0, 0, word[0], *word.get(1).unwrap_or(&0)]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default()).to_be_bytes()
}

/// A packet of IP; over IPv4 with so many words of options that do nothing.
fn ip(source: IpAddr, destination: IpAddr, protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    if source.is_ipv6() {
        let [high, low] = length(payload.len());
        let fixed = [0x60, 0, 0, 0, high, low, protocol, 64];
        return [&fixed[..], &octets(source), &octets(destination), payload].concat();
    }
    let [high, low] = length(20 + options * 4 + payload.len());
    let first = u8::try_from(0x45 + options).unwrap_or_default();
    let fixed = [first, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0];
    let mut header = [&fixed[..], &octets(source), &octets(destination), &vec![1; options * 4]].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, payload.to_vec()].concat()
}

/// A message to a node.
pub(crate) struct Message {
    to: IpAddr,
    /// Ends of the quoted packet.
    quoted: [IpAddr; 2],
    mtu: u32,
    options: usize,
    /// Bytes of the quoted packet.
    kept: usize,
}

impl Message {
    /// One that is right, over IPv4 or IPv6.
    pub(crate) fn about(own: IpAddr, destination: IpAddr) -> Self {
        Self { to: own, quoted: [own, destination], mtu: NARROW, options: 0, kept: usize::MAX }
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let [source, destination] = self.quoted;
        let mut quoted = ip(source, destination, 17, 0, &[7; 64]);
        quoted.truncate(self.kept);
        let mtu = self.mtu.to_be_bytes();
        if self.to.is_ipv4() {
            let mut message = [&[3, 4, 0, 0, 0, 0, mtu[2], mtu[3]][..], &quoted].concat();
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum);
            return ip(router(false), self.to, ICMP, self.options, &message);
        }
        let mut message = [&[2, 0, 0, 0][..], &mtu, &quoted].concat();
        let length = u8::try_from(message.len()).unwrap_or_default();
        let pseudo = [octets(router(true)), octets(self.to), vec![0, 0, 0, length, 0, 0, 0, ICMPV6]].concat();
        let sum = checksum(&[&pseudo[..], &message].concat());
        message[2..4].copy_from_slice(&sum);
        ip(router(true), self.to, ICMPV6, 0, &message)
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0; 4]))
}

fn router(ipv6: bool) -> IpAddr {
    address(ROUTER[usize::from(ipv6)])
}

/// The frame of a packet, with what stands between the addresses and the type.
pub(crate) fn frame(to: [u8; 6], tag: &[u8], packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&to[..], &[2, 0x56, 0, 0, 0, 2], tag, &kind, packet].concat()
}

pub(crate) fn station(node: &Node) -> [u8; 6] {
    [2, 0x56, 0, 0, 0, node.index()]
}

#[test]
fn what_was_forged_or_makes_no_sense_is_not_counted_for_a_node() -> Result<()> {
    let (lab, agent) = start(Backend::Vxlan)?;
    let [node, other] = [lab.node(1)?, lab.node(2)?];
    let sender = FrameSender::open(other, "eth0")?;
    for ipv6 in [false, true] {
        let [own, peer, far] = [node.address(ipv6)?, other.address(ipv6)?, address(FAR[usize::from(ipv6)])];
        let about = |source, destination| Message {
            quoted: [source, destination],
            ..Message::about(own, destination)
        };
        let send = |packet: &[u8]| sender.send(&frame(station(node), &[], packet));
        // Of somebody else, to the node itself, to nobody who is known.
        for told in [about(peer, own), about(far, peer), about(own, far), about(own, own)] {
            send(&told.packet())?;
        }
        // Too short to say whose packet it was; and damaged.
        send(&Message { kept: 19, ..about(own, peer) }.packet())?;
        let mut damaged = Message { kept: 48, ..about(own, peer) }.packet();
        *damaged.last_mut().context("a packet")? ^= 1;
        send(&damaged)?;
        // For another station, and in a VLAN that this node is not on.
        let right = about(own, peer).packet();
        sender.send(&frame([2, 0x56, 0, 0, 0, 0x77], &[], &right))?;
        sender.send(&frame(station(node), &[0x81, 0, 0, 7], &right))?;
        // What this node sends itself.
        let foreign = FrameSender::open(node, "eth0")?;
        foreign.send(&frame(station(other), &[], &about(peer, own).packet()))?;
        // Another message of a router: the port, or that the packet has lived too long.
        let mut unreachable = right.clone();
        let kind = if ipv6 { 40 } else { 20 };
        unreachable[kind..kind + 2].copy_from_slice(if ipv6 { &[3, 0] } else { &[3, 3] });
        send(&unreachable)?;
        // Old routers name no MTU, and this one names one that no path may have: both are messages.
        for mtu in [0, if ipv6 { 1_279 } else { 67 }] {
            send(&Message { mtu, ..about(own, peer) }.packet())?;
        }
        let rounds = u64::from(ipv6) + 1;
        let page = expect(&agent, 2 * rounds, None)?;
        assert_eq!(others(&page), [2, 2, 2].map(|each| Some(each * rounds)), "IPv6 {ipv6}");
    }
    assert_eq!(agent.events("path_mtu_told")?, Vec::<serde_json::Value>::new());
    drop(agent);
    lab.shutdown()
}

#[test]
fn options_are_looked_behind_and_what_is_for_a_virtual_router_counts() -> Result<()> {
    let (lab, agent) = start(Backend::Vxlan)?;
    let [node, other] = [lab.node(1)?, lab.node(2)?];
    let sender = FrameSender::open(other, "eth0")?;
    let [own, peer] = [node.address(false)?, other.address(false)?];
    let told = Message::about(own, peer);
    sender.send(&frame(station(node), &[], &Message { options: 10, ..told }.packet()))?;
    expect(&agent, 1, Some(NARROW.into()))?;
    sender.send(&frame([0, 0, 0x5e, 0, 1, 51], &[], &told.packet()))?;
    let page = expect(&agent, 2, Some(NARROW.into()))?;
    assert_eq!(others(&page), [Some(0); 3]);
    drop(agent);
    lab.shutdown()
}

/// A real router's word about a packet that leaves the cluster.
#[test]
fn a_message_about_a_packet_to_the_outside_is_about_no_node() -> Result<()> {
    let (lab, agent) = start(Backend::Vxlan)?;
    let (node, router) = (lab.node(1)?, lab.switch()?);
    let far = address(FAR[0]);
    router.run(&["sh", "-ec", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
    router.ip(&format!("route add {far} dev br0 mtu lock 1400\n"))?;
    node.ip(&format!("route add {far} via 192.168.56.1\n"))?;
    send(node, far, FULL, 4)?;
    let counted = |page: &lab::scrape::Samples| {
        others(page) == [Some(4), Some(0), Some(0)] && crate::told(page).0 == Some(0)
    };
    agent.wait_page("four messages", crate::LIMIT, "leadline_path_too_big", counted)?;
    drop(agent);
    lab.shutdown()
}
