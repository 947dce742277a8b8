//! Frames as announcers and routers send them that the lab has no daemon for.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lab::Node;
use lab::frames::FrameSender;

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const ICMPV6: u8 = 58;
const VRRP: u8 = 112;

/// The MAC address of a node's `eth0`.
pub(crate) fn station(node: &Node) -> [u8; 6] {
    [2, 0x56, 0, 0, 0, node.index()]
}

/// The two forms of gratuitous ARP: a request for the own address, and a reply that nobody asked for.
pub(crate) fn garps(station: [u8; 6], address: Ipv4Addr) -> [Vec<u8>; 2] {
    let address = address.octets();
    [1, 2].map(|operation| {
        let fixed = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
        [&BROADCAST[..], &station, &fixed, &station, &address, &BROADCAST, &address].concat()
    })
}

/// An unsolicited neighbour advertisement that overrides what neighbours know.
pub(crate) fn neighbour_advertisement(station: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let fixed = [136, 0, 0, 0, 0x20, 0, 0, 0];
    let mut message = [&fixed[..], &address.octets(), &[2, 1], &station].concat();
    let pseudo = [&address.octets()[..], &ALL_NODES.octets(), &[0, 0, 0, 32, 0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum);
    let header = [0x60, 0, 0, 0, 0, 32, ICMPV6, 255];
    let ethernet = [&[0x33, 0x33, 0, 0, 0, 1][..], &station, &[0x86, 0xdd]].concat();
    [&ethernet[..], &header, &address.octets(), &ALL_NODES.octets(), &message].concat()
}

/// A router that advertises one address by version 3, once a second by its own word.
#[derive(Clone, Copy)]
pub(crate) struct Router {
    pub(crate) station: [u8; 6],
    pub(crate) source: Ipv4Addr,
    pub(crate) vrid: u8,
    pub(crate) address: Ipv4Addr,
}

impl Router {
    /// Its advertisement; priority 0 is a goodbye.
    pub(crate) fn advert(&self, priority: u8) -> Vec<u8> {
        let fixed = [0x31, self.vrid, priority, 1, 0, 100, 0, 0];
        let mut message = [&fixed[..], &self.address.octets()].concat();
        let (source, group) = (self.source.octets(), ALL_ROUTERS.octets());
        let sum = checksum(&[&source, &group, &[0, VRRP, 0, 12], &message]);
        message[6..8].copy_from_slice(&sum);
        let fixed = [0x45, 0xc0, 0, 32, 0, 1, 0, 0, 255, VRRP, 0, 0];
        let mut header = [&fixed[..], &source, &group].concat();
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum);
        let ethernet = [&[1, 0, 0x5e, 0, 0, 18][..], &self.station, &[8, 0]].concat();
        [ethernet, header, message].concat()
    }
}

/// The frame in a VLAN.
pub(crate) fn tagged(frame: &[u8], vlan: u8) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, vlan], &frame[12..]].concat()
}

/// The checksum of the Internet over parts of even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!u16::try_from(folded).unwrap_or_default()).to_be_bytes()
}

/// Sends frames by a node's `eth0` in turn, one each period, until it is stopped or dropped.
pub(crate) struct Repeater {
    end: Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Repeater {
    pub(crate) fn start(node: &Node, frames: Vec<Vec<u8>>, period: Duration) -> Result<Self> {
        let sender = FrameSender::open(node, "eth0")?;
        let (end, ended) = channel();
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now();
            for frame in frames.iter().cycle() {
                sender.send(frame)?;
                due += period;
                match ended.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            Ok(())
        });
        Ok(Self { end, thread })
    }

    pub(crate) fn stop(self) -> Result<()> {
        drop(self.end);
        match self.thread.join() {
            Ok(sent) => sent,
            Err(_) => bail!("the sender of frames has panicked"),
        }
    }
}

/// Sends frames once, one right after the other.
pub(crate) fn send(node: &Node, frames: &[Vec<u8>]) -> Result<()> {
    let sender = FrameSender::open(node, "eth0")?;
    frames.iter().try_for_each(|frame| sender.send(frame))
}
