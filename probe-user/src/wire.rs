//! Packet parsers: bytes that the tap copied in, one typed observation or one named fault out. Pure functions without
//! I/O, clock or state; they use nothing of ours and are fuzzed (`cargo xtask fuzz`). STAMP comes through a socket instead.
//!
//! What a frame is not is no fault: whatever is neither ARP, a neighbour advertisement nor VRRP gives `None`.
//! Packets of tunnels and messages of routers (`too_big`) are copied apart from these, from their IP header on, and have
//! entries of their own.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod arp;
pub mod checksum;
pub mod disco;
#[cfg(any(test, fuzzing))]
pub mod encode;
pub mod fault;
pub mod frame;
mod ip;
pub mod ndp;
#[cfg(any(test, fuzzing))]
pub mod property;
pub mod stamp;
#[cfg(test)]
mod tests;
pub mod too_big;
pub mod tunnel;
mod udp;
pub mod vrrp;
pub mod wireguard;

pub use checksum::Checksum;
pub use fault::{Malformed, Protocol, Reason};
pub use frame::{Capture, Link, MacAddress, Medium};

use frame::Network;
use ip::Upper;

/// What one frame says, and how it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The link layer's part: who sent the frame, on which VLAN.
    pub link: Link,
    /// What it says.
    pub message: Message,
}

/// The control messages by which the owner of a virtual address makes itself known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An ARP request or reply.
    Arp(arp::Arp),
    /// An IPv6 neighbour advertisement.
    NeighbourAdvertisement(ndp::NeighbourAdvertisement),
    /// A VRRP advertisement.
    Vrrp(vrrp::Advertisement),
}

/// Reads one captured frame; `None` is a frame that is none of ours.
///
/// # Errors
/// When the frame claims to be one of ours and breaks the rules of its protocol.
pub fn observe(capture: &Capture<'_>) -> Result<Option<Observation>, Malformed> {
    let (link, network) = frame::split(capture)?;
    let message = read(&network).map_err(|malformed| Malformed { link, ..malformed })?;
    Ok(message.map(|message| Observation { link, message }))
}

fn read(network: &Network<'_>) -> Result<Option<Message>, Malformed> {
    let packet = match network {
        Network::Other => return Ok(None),
        Network::Arp(bytes) => return arp::parse(bytes).map(|arp| Some(Message::Arp(arp))),
        Network::Ip4(datagram) => ip::parse_v4(datagram)?,
        Network::Ip6(datagram) => ip::parse_v6(datagram)?,
    };
    let Some(packet) = packet else { return Ok(None) };
    match packet.upper {
        Upper::Vrrp => vrrp::parse(&packet).map(Message::Vrrp),
        Upper::NeighbourAdvertisement => ndp::parse(&packet).map(Message::NeighbourAdvertisement),
    }
    .map(Some)
}
