//! The link layer: Ethernet with VLAN tags in the frame or in the kernel's metadata, or none at all.

use std::fmt;

use super::fault::{Malformed, Protocol, Reason};

/// Ethertypes of VLAN tags: 802.1Q, 802.1ad, and what switches used before it.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// The part of a tag that is the VLAN's number; the rest is priority.
const VLAN_ID: u16 = 0x0fff;

/// Tags within the frame; a deeper stack carries nobody's control messages.
const MAX_TAGS: usize = 2;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Every station of the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it addresses a group of stations; all of them are one.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The virtual router whose MAC address this is (RFC 9568 section 7.3), for IPv4 or IPv6.
    #[must_use]
    pub const fn virtual_router(self) -> Option<u8> {
        match self.0 {
            [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, vrid] if vrid != 0 => Some(vrid),
            _ => None,
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a device's frames begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Medium {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// The IP header itself, as on tunnel devices.
    Layer3,
}

/// A frame as the tap copied it.
#[derive(Clone, Copy)]
pub struct Capture<'a> {
    /// The first bytes of the frame.
    pub bytes: &'a [u8],
    /// Length of the whole frame.
    pub original_length: usize,
    /// What its first byte belongs to.
    pub medium: Medium,
    /// The tag that the kernel or the network card took out of the frame, priority bits allowed.
    pub vlan: Option<u16>,
}

impl<'a> Capture<'a> {
    /// A whole untagged Ethernet frame.
    #[must_use]
    pub const fn ethernet(bytes: &'a [u8]) -> Self {
        Self { bytes, original_length: bytes.len(), medium: Medium::Ethernet, vlan: None }
    }
}

/// Frames may carry passwords: their bytes are not shown.
impl fmt::Debug for Capture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("captured", &self.bytes.len())
            .field("original_length", &self.original_length)
            .field("medium", &self.medium)
            .field("vlan", &self.vlan)
            .finish()
    }
}

/// What the link layer says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Link {
    /// The station that sent it.
    pub source: Option<MacAddress>,
    /// Whom it is for.
    pub destination: Option<MacAddress>,
    /// The VLAN; of nested ones the innermost.
    pub vlan: Option<u16>,
    /// The outermost of nested VLANs.
    pub outer_vlan: Option<u16>,
}

impl Link {
    /// Enters one VLAN more; tags with number 0 carry only a priority.
    fn nest(&mut self, tag: u16) {
        let id = tag & VLAN_ID;
        if id != 0 {
            self.outer_vlan = self.outer_vlan.or(self.vlan);
            self.vlan = Some(id);
        }
    }
}

/// A network layer datagram, maybe cut by the capture and maybe followed by padding.
#[derive(Clone, Copy)]
pub(super) struct Datagram<'a> {
    /// What was captured.
    pub(super) bytes: &'a [u8],
    /// What there was on the wire.
    pub(super) original_length: usize,
}

/// What a frame carries.
#[derive(Clone, Copy)]
pub(super) enum Network<'a> {
    Arp(&'a [u8]),
    Ip4(Datagram<'a>),
    Ip6(Datagram<'a>),
    Other,
}

/// Takes the link layer off.
pub(super) fn split<'a>(capture: &Capture<'a>) -> Result<(Link, Network<'a>), Malformed> {
    let mut link = Link::default();
    if let Some(tag) = capture.vlan {
        link.nest(tag);
    }
    let original_length = capture.original_length.max(capture.bytes.len());
    let whole = Datagram { bytes: capture.bytes, original_length };
    let network = match capture.medium {
        Medium::Ethernet => ethernet(&whole, &mut link)
            .ok_or(Malformed { link, ..Malformed::new(Protocol::Ethernet, Reason::Truncated) })?,
        Medium::Layer3 => match whole.bytes.first().map(|first| first >> 4) {
            Some(4) => Network::Ip4(whole),
            Some(6) => Network::Ip6(whole),
            _ => Network::Other,
        },
    };
    Ok((link, network))
}

/// `None` where the frame ends too early.
fn ethernet<'a>(frame: &Datagram<'a>, link: &mut Link) -> Option<Network<'a>> {
    let (destination, rest) = frame.bytes.split_first_chunk::<6>()?;
    let (source, rest) = rest.split_first_chunk::<6>()?;
    let (kind, mut rest) = rest.split_first_chunk::<2>()?;
    let mut kind = u16::from_be_bytes(*kind);
    link.destination = Some(MacAddress(*destination));
    link.source = Some(MacAddress(*source));
    for _ in 0..MAX_TAGS {
        if !TAGS.contains(&kind) {
            break;
        }
        let (&[high, low, next_high, next_low], inner) = rest.split_first_chunk::<4>()?;
        link.nest(u16::from_be_bytes([high, low]));
        kind = u16::from_be_bytes([next_high, next_low]);
        rest = inner;
    }
    let header = frame.bytes.len() - rest.len();
    let datagram = Datagram { bytes: rest, original_length: frame.original_length.saturating_sub(header) };
    Some(match kind {
        ARP => Network::Arp(rest),
        IPV4 => Network::Ip4(datagram),
        IPV6 => Network::Ip6(datagram),
        _ => Network::Other,
    })
}

#[cfg(test)]
mod tests;
