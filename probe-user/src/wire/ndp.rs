//! Neighbour advertisements (RFC 4861 section 4.4): how the owner of an IPv6 address makes itself known.

use std::net::{IpAddr, Ipv6Addr};

use super::{
    checksum::{self, Checksum},
    fault::{Malformed, Reason},
    frame::MacAddress,
    ip::{ICMP6, Packet},
};

/// The fixed part: ICMPv6 header, flags, target.
const FIXED: usize = 24;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// A neighbour advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourAdvertisement {
    /// Who sends it.
    pub source: Ipv6Addr,
    /// Whom it is for: all nodes, or whoever asked.
    pub destination: Ipv6Addr,
    /// The address that is advertised.
    pub target: Ipv6Addr,
    /// The sender is a router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// It replaces what neighbours have in their caches.
    pub overrides: bool,
    /// The MAC address of the target, where the option is there.
    pub target_mac: Option<MacAddress>,
    /// What the checksum was verified over.
    pub checksum: Checksum,
}

impl NeighbourAdvertisement {
    /// Whether it was sent without a question: what gratuitous ARP is to IPv4.
    #[must_use]
    pub const fn is_unsolicited(&self) -> bool {
        !self.solicited && self.destination.is_multicast()
    }
}

/// Reads a neighbour advertisement and checks what RFC 4861 section 7.1.2 demands.
pub(super) fn parse(packet: &Packet<'_>) -> Result<NeighbourAdvertisement, Malformed> {
    fields(packet).map_err(|reason| packet.malformed(reason))
}

fn fields(packet: &Packet<'_>) -> Result<NeighbourAdvertisement, Reason> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
        return Err(Reason::BadIpHeader);
    };
    if packet.hop_limit != 255 {
        return Err(Reason::BadTtl);
    }
    if packet.length < FIXED {
        return Err(Reason::BadLength);
    }
    let (&[_, code, _, _, flags, ..], rest) =
        packet.payload.split_first_chunk::<8>().ok_or(Reason::Truncated)?;
    let (target, options) = rest.split_first_chunk::<16>().ok_or(Reason::Truncated)?;
    let checksum = verify(packet)?;
    let target = Ipv6Addr::from(*target);
    let solicited = flags & SOLICITED != 0;
    if code != 0 {
        return Err(Reason::BadCode);
    }
    if target.is_multicast() {
        return Err(Reason::BadTarget);
    }
    if solicited && destination.is_multicast() {
        return Err(Reason::BadFlags);
    }
    Ok(NeighbourAdvertisement {
        source,
        destination,
        target,
        router: flags & ROUTER != 0,
        solicited,
        overrides: flags & OVERRIDE != 0,
        target_mac: target_mac(options, packet.is_whole())?,
        checksum,
    })
}

fn verify(packet: &Packet<'_>) -> Result<Checksum, Reason> {
    if !packet.is_whole() {
        return Ok(Checksum::Unverified);
    }
    let header = checksum::pseudo_header(packet.source, packet.destination, ICMP6, packet.length);
    let right = checksum::is_right(header + checksum::sum(packet.payload));
    right.then_some(Checksum::PseudoHeader).ok_or(Reason::BadChecksum)
}

/// The first such option. What the capture cut off is not there; in a whole packet it is a fault.
fn target_mac(mut options: &[u8], whole: bool) -> Result<Option<MacAddress>, Reason> {
    let mut found = None;
    while let Some((&kind, rest)) = options.split_first() {
        let Some(&units) = rest.first() else {
            return if whole { Err(Reason::BadOption) } else { Ok(found) };
        };
        if units == 0 {
            return Err(Reason::BadOption);
        }
        let Some((option, rest)) = options.split_at_checked(usize::from(units) * 8) else {
            return if whole { Err(Reason::BadOption) } else { Ok(found) };
        };
        if kind == TARGET_LINK_LAYER_ADDRESS && found.is_none() {
            let &[_, _, mac @ ..] = option.as_array::<8>().ok_or(Reason::BadOption)?;
            found = Some(MacAddress(mac));
        }
        options = rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
