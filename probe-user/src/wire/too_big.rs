//! Messages of routers that a packet was too big for their next link: ICMP "destination unreachable, fragmentation needed"
//! (RFC 792, with the next hop's MTU since RFC 1191) and ICMPv6 "packet too big" (RFC 4443). They quote the packet, so that
//! its sender knows which path has that MTU.
//!
//! Of a message the beginning is captured. Its checksum is verified where that is all of it; that of the IPv4 header always.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum;
use super::fault::Reason;
use super::ip::ICMP6;

const ICMP: u8 = 1;
/// Type and code.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// The type; receivers ignore the code.
const PACKET_TOO_BIG: u8 = 2;
/// Bytes of the headers of ICMP and ICMPv6.
const HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// No host may take a path for smaller: RFC 1191 section 3, RFC 8201 section 4.
const IPV4_LEAST: u32 = 68;
const IPV6_LEAST: u32 = 1_280;

/// What a router says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// Who says it.
    pub router: IpAddr,
    /// Bytes of the largest packet that its next link takes. `None`: it names none (RFC 1191 section 5), or one that is
    /// less than every path takes.
    pub mtu: Option<u32>,
    /// Source of the packet that was too big.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
}

/// Reads the beginning of a packet of `length` bytes, from its IP header on, maybe with the padding of its frame; `None` is
/// a packet that is no such message.
///
/// # Errors
/// When it is one and breaks the rules of its protocol.
pub fn parse(packet: &[u8], length: usize) -> Result<Option<TooBig>, Reason> {
    match packet.first().map(|first| first >> 4) {
        None => Err(Reason::Truncated),
        Some(4) => v4(packet, length),
        Some(6) => v6(packet, length),
        Some(_) => Err(Reason::BadIpHeader),
    }
}

fn v4(packet: &[u8], length: usize) -> Result<Option<TooBig>, Reason> {
    let (fixed, _) = packet.split_first_chunk::<IPV4_HEADER>().ok_or(Reason::Truncated)?;
    let &[first, _, size_high, size_low, _, _, offset_high, offset_low, _, protocol, ..] = fixed;
    if protocol != ICMP {
        return Ok(None);
    }
    let size = usize::from(first & 0x0f) * 4;
    if size < IPV4_HEADER {
        return Err(Reason::BadIpHeader);
    }
    let (header, message) = packet.split_at_checked(size).ok_or(Reason::Truncated)?;
    if !checksum::is_right(checksum::sum(header)) {
        return Err(Reason::BadIpChecksum);
    }
    // The bit against fragmentation is cut off. No such message is so long that it comes in pieces.
    if u16::from_be_bytes([offset_high, offset_low]) << 2 != 0 {
        return Err(Reason::Fragment);
    }
    let total = usize::from(u16::from_be_bytes([size_high, size_low]));
    let body = Body { message, length: total.checked_sub(size).ok_or(Reason::BadLength)? };
    let (&[kind, code, _, _, _, _, mtu_high, mtu_low], quoted) = body.split()?;
    if [kind, code] != FRAGMENTATION_NEEDED {
        return Ok(None);
    }
    body.check(0, total > length, IPV4_HEADER)?;
    let (source, destination) = addresses_v4(quoted)?;
    let mtu = u32::from(u16::from_be_bytes([mtu_high, mtu_low]));
    let (router, _) = addresses_v4(packet)?;
    Ok(Some(TooBig { router, mtu: Some(mtu).filter(|mtu| *mtu >= IPV4_LEAST), source, destination }))
}

fn v6(packet: &[u8], length: usize) -> Result<Option<TooBig>, Reason> {
    let (fixed, message) = packet.split_first_chunk::<IPV6_HEADER>().ok_or(Reason::Truncated)?;
    let &[_, _, _, _, size_high, size_low, next, ..] = fixed;
    if next != ICMP6 {
        return Ok(None);
    }
    let body = Body { message, length: usize::from(u16::from_be_bytes([size_high, size_low])) };
    let (&[kind, _, _, _, mtu @ ..], quoted) = body.split()?;
    if kind != PACKET_TOO_BIG {
        return Ok(None);
    }
    let (router, to) = addresses_v6(packet)?;
    let pseudo_header = checksum::pseudo_header(router, to, ICMP6, body.length);
    body.check(pseudo_header, IPV6_HEADER + body.length > length, IPV6_HEADER)?;
    let (source, destination) = addresses_v6(quoted)?;
    let mtu = u32::from_be_bytes(mtu);
    Ok(Some(TooBig { router, mtu: Some(mtu).filter(|mtu| *mtu >= IPV6_LEAST), source, destination }))
}

/// A message of ICMP, maybe cut by the capture, maybe with padding behind it.
struct Body<'a> {
    message: &'a [u8],
    /// Its length by the IP header.
    length: usize,
}

impl<'a> Body<'a> {
    /// Its header, and what was captured of what follows.
    fn split(&self) -> Result<(&'a [u8; HEADER], &'a [u8]), Reason> {
        if self.length < HEADER {
            return Err(Reason::BadLength);
        }
        self.message.split_first_chunk().ok_or(Reason::Truncated)
    }

    /// Whether it holds the header of a packet, came as a whole, and is what was sent as far as that can be told.
    fn check(&self, pseudo_header: u64, is_cut: bool, quoted: usize) -> Result<(), Reason> {
        if self.length < HEADER + quoted {
            return Err(Reason::BadLength);
        }
        if is_cut {
            return Err(Reason::Truncated);
        }
        let whole = self.message.get(..self.length);
        match whole.map(|message| checksum::is_right(pseudo_header + checksum::sum(message))) {
            Some(false) => Err(Reason::BadChecksum),
            Some(true) | None => Ok(()),
        }
    }
}

fn addresses_v4(header: &[u8]) -> Result<(IpAddr, IpAddr), Reason> {
    let (&[first, _, _, _, _, _, _, _, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3], _) =
        header.split_first_chunk::<IPV4_HEADER>().ok_or(Reason::Truncated)?;
    if first >> 4 != 4 || first & 0x0f < 5 {
        return Err(Reason::BadIpHeader);
    }
    Ok((Ipv4Addr::new(s0, s1, s2, s3).into(), Ipv4Addr::new(d0, d1, d2, d3).into()))
}

fn addresses_v6(header: &[u8]) -> Result<(IpAddr, IpAddr), Reason> {
    let (&[first, ..], rest) = header.split_first_chunk::<8>().ok_or(Reason::Truncated)?;
    let (source, rest) = rest.split_first_chunk::<16>().ok_or(Reason::Truncated)?;
    let (destination, _) = rest.split_first_chunk::<16>().ok_or(Reason::Truncated)?;
    if first >> 4 != 6 {
        return Err(Reason::BadIpHeader);
    }
    Ok((Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into()))
}

#[cfg(test)]
mod tests;
