//! The network layer, as far as it leads to one of our messages: IPv4 and IPv6 headers, extension headers, and the
//! authentication header that VRRP version 2 may be wrapped in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    checksum,
    fault::{Malformed, Protocol, Reason},
    frame::Datagram,
};

/// The protocol number of VRRP.
pub(super) const VRRP: u8 = 112;
/// The protocol number of ICMPv6.
pub(super) const ICMP6: u8 = 58;
/// The ICMPv6 type of a neighbour advertisement.
pub(super) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const AUTHENTICATION: u8 = 51;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers that are looked behind; RFC 8200 knows fewer.
const MAX_EXTENSIONS: usize = 8;

/// Which message a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upper {
    Vrrp,
    NeighbourAdvertisement,
}

impl Upper {
    const fn protocol(self) -> Protocol {
        match self {
            Self::Vrrp => Protocol::Vrrp,
            Self::NeighbourAdvertisement => Protocol::Ndp,
        }
    }
}

/// An unfragmented packet that carries one of our messages.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) upper: Upper,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// TTL or hop limit.
    pub(super) hop_limit: u8,
    /// Whether an authentication header stood before the message.
    pub(super) authentication_header: bool,
    /// What was captured of the message and of whatever follows it in the packet.
    pub(super) payload: &'a [u8],
    /// Its length by the IP header, without the padding of the frame.
    pub(super) length: usize,
}

impl Packet<'_> {
    /// Whether the capture goes to the packet's end.
    pub(super) const fn is_whole(&self) -> bool {
        self.payload.len() == self.length
    }

    /// A fault of this packet's message.
    pub(super) fn malformed(&self, reason: Reason) -> Malformed {
        Malformed { source: Some(self.source), ..Malformed::new(self.upper.protocol(), reason) }
    }
}

/// The way through the headers of a packet to its message.
struct Walk<'a> {
    next: u8,
    rest: &'a [u8],
    /// Length of `rest` on the wire, by the IP header.
    length: usize,
    fragment: bool,
    /// Whether the fragment begins the packet, so that its first bytes are what they look like.
    beginning: bool,
    authentication_header: bool,
}

impl<'a> Walk<'a> {
    /// Goes behind a header of a known size.
    fn skip(&mut self, next: u8, size: usize) -> Option<()> {
        let length = self.length.checked_sub(size)?;
        self.rest = self.rest.get(size..)?;
        self.length = length;
        self.next = next;
        Some(())
    }

    /// What was captured of the packet, without the padding of the frame.
    fn payload(&self) -> &'a [u8] {
        self.rest.get(..self.length).unwrap_or(self.rest)
    }

    /// Goes behind the next extension header; `None` where it is not there as a whole.
    fn extension(&mut self) -> Option<()> {
        let (&[next, size], _) = self.rest.split_first_chunk::<2>()?;
        let size = usize::from(size);
        match self.next {
            AUTHENTICATION => {
                self.authentication_header = true;
                self.skip(next, (size + 2) * 4)
            }
            FRAGMENT => {
                let (&[_, _, high, low, ..], _) = self.rest.split_first_chunk::<8>()?;
                self.fragment = true;
                self.beginning &= u16::from_be_bytes([high, low]) >> 3 == 0;
                self.skip(next, 8)
            }
            _ => self.skip(next, (size + 1) * 8),
        }
    }

    /// Which of our messages follows.
    fn upper(&self) -> Option<Upper> {
        match self.next {
            VRRP => Some(Upper::Vrrp),
            ICMP6 if self.beginning && self.payload().first() == Some(&NEIGHBOUR_ADVERTISEMENT) => {
                Some(Upper::NeighbourAdvertisement)
            }
            _ => None,
        }
    }

    fn packet(&self, upper: Upper, source: IpAddr, destination: IpAddr, hop_limit: u8) -> Packet<'a> {
        Packet {
            upper,
            source,
            destination,
            hop_limit,
            authentication_header: self.authentication_header,
            payload: self.payload(),
            length: self.length,
        }
    }
}

/// An IPv4 datagram; `None` if it carries none of our messages.
pub(super) fn parse_v4<'a>(datagram: &Datagram<'a>) -> Result<Option<Packet<'a>>, Malformed> {
    let truncated = Malformed::new(Protocol::Ip, Reason::Truncated);
    let (fixed, _) = datagram.bytes.split_first_chunk::<20>().ok_or(truncated)?;
    let [first, _, size_high, size_low, _, _, offset_high, offset_low, ttl, protocol, _, _, addresses @ ..] =
        *fixed;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    let offset = u16::from_be_bytes([offset_high, offset_low]);
    let mut walk = Walk {
        next: protocol,
        rest: datagram.bytes,
        length: usize::from(u16::from_be_bytes([size_high, size_low])),
        // The more-fragments bit and the offset; above them is the bit against fragmentation.
        fragment: offset << 2 != 0,
        beginning: offset << 3 == 0,
        authentication_header: false,
    };
    let header = usize::from(first & 0x0f) * 4;
    let behind = walk.skip(protocol, header);
    let wrapped = protocol == AUTHENTICATION
        && behind.is_some()
        && walk.beginning
        && walk.payload().first() == Some(&VRRP);
    if protocol != VRRP && !wrapped {
        return Ok(None);
    }
    let source = IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3));
    let refuse = |reason| Malformed { source: Some(source), ..Malformed::new(Protocol::Vrrp, reason) };
    if first >> 4 != 4 || header < fixed.len() {
        return Err(refuse(Reason::BadIpHeader));
    }
    let bytes = datagram.bytes.get(..header).ok_or_else(|| refuse(Reason::Truncated))?;
    if !checksum::is_right(checksum::sum(bytes)) {
        return Err(refuse(Reason::BadIpChecksum));
    }
    if behind.is_none() {
        return Err(refuse(Reason::BadLength));
    }
    if walk.fragment {
        return Err(refuse(Reason::Fragment));
    }
    if walk.length > datagram.original_length - header {
        return Err(refuse(Reason::Truncated));
    }
    if wrapped && walk.extension().is_none() {
        return Err(refuse(Reason::Truncated));
    }
    Ok(Some(walk.packet(Upper::Vrrp, source, IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)), ttl)))
}

/// An IPv6 datagram; `None` if it carries none of our messages.
pub(super) fn parse_v6<'a>(datagram: &Datagram<'a>) -> Result<Option<Packet<'a>>, Malformed> {
    let truncated = Malformed::new(Protocol::Ip, Reason::Truncated);
    let (&[first, _, _, _, size_high, size_low, next, hop_limit], rest) =
        datagram.bytes.split_first_chunk::<8>().ok_or(truncated)?;
    let (source, rest) = rest.split_first_chunk::<16>().ok_or(truncated)?;
    let (destination, rest) = rest.split_first_chunk::<16>().ok_or(truncated)?;
    let source = IpAddr::V6(Ipv6Addr::from(*source));
    let destination = IpAddr::V6(Ipv6Addr::from(*destination));
    let length = usize::from(u16::from_be_bytes([size_high, size_low]));
    let mut walk =
        Walk { next, rest, length, fragment: false, beginning: true, authentication_header: false };
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(walk.next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
            || !walk.beginning
        {
            break;
        }
        walk.extension().ok_or(Malformed { source: Some(source), ..truncated })?;
    }
    let Some(upper) = walk.upper() else { return Ok(None) };
    let refuse = |reason| Malformed { source: Some(source), ..Malformed::new(upper.protocol(), reason) };
    if first >> 4 != 6 {
        return Err(refuse(Reason::BadIpHeader));
    }
    if walk.fragment {
        return Err(refuse(Reason::Fragment));
    }
    let headers = datagram.bytes.len() - walk.rest.len();
    if walk.length > datagram.original_length - headers {
        return Err(refuse(Reason::Truncated));
    }
    Ok(Some(walk.packet(upper, source, destination, hop_limit)))
}

#[cfg(test)]
mod tests;
