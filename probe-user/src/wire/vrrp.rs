//! VRRP advertisements: version 2 (RFC 3768, with the authentication of RFC 2338) and version 3 (RFC 5798, RFC 9568)
//! over IPv4 and IPv6. Passwords are checksummed and otherwise left where they are: no value here can hold one.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{
    checksum::{self, Checksum},
    fault::{Malformed, Reason},
    ip::{Packet, VRRP},
};

/// The multicast group of IPv4; the first address of a pseudo-header that older keepalived makes.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The multicast group of IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// The TTL that shows that a packet comes from this link.
const LINK_TTL: u8 = 255;
const ADVERTISEMENT: u8 = 1;
const HEADER: usize = 8;
/// Behind the addresses of version 2, whatever the authentication type.
const AUTHENTICATION_DATA: usize = 8;
/// Behind the message where keepalived's `auth_hmac` is in use: key, time, counter and half a SHA-256.
pub(super) const HMAC: usize = 28;
/// The part of version 3's interval field that is the interval.
const INTERVAL: u16 = 0x0fff;

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 3768: IPv4 only, seconds.
    V2,
    /// RFC 5798 and RFC 9568: both families, centiseconds.
    V3,
}

/// How a version 2 advertisement is authenticated. None of it proves anything to a bystander.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// Not at all; always so in version 3.
    None,
    /// By a password in clear text.
    SimplePassword,
    /// By an IP authentication header.
    AuthenticationHeader,
}

/// A VRRP advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The primary address of the router that sends it.
    pub source: IpAddr,
    /// The group, or one of the configured peers.
    pub destination: IpAddr,
    /// TTL or hop limit; always 255 where the destination is multicast.
    pub ttl: u8,
    /// The protocol's version.
    pub version: Version,
    /// The virtual router.
    pub vrid: u8,
    /// The sender's priority: 0 means that it stops being master, 255 that it owns the addresses.
    pub priority: u8,
    /// How often it advertises; `None` where the field is 0, as routers with other timers than the version's leave it.
    pub interval: Option<Duration>,
    /// The authentication that the message names.
    pub authentication: Authentication,
    /// Whether an IP authentication header was there.
    pub authentication_header: bool,
    /// How many addresses the message says it has.
    pub address_count: u8,
    /// The addresses of the virtual router, as far as they were captured.
    pub addresses: Vec<IpAddr>,
    /// Whether keepalived's HMAC (`auth_hmac`) follows the message.
    pub hmac: bool,
    /// What the checksum was verified over.
    pub checksum: Checksum,
}

impl Advertisement {
    /// Whether it goes to a group and not to configured peers.
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        self.destination.is_multicast()
    }

    /// Whether the sender says that it stops being master.
    #[must_use]
    pub const fn is_resignation(&self) -> bool {
        self.priority == 0
    }
}

/// Reads an advertisement and checks what the RFCs demand of every receiver.
///
/// The TTL counts only where the destination is multicast: unicast peers may be routers away, and keepalived sends
/// unicast over IPv6 with hop limit 64.
pub(super) fn parse(packet: &Packet<'_>) -> Result<Advertisement, Malformed> {
    let vrid = packet.payload.get(1).copied();
    fields(packet).map_err(|reason| Malformed { vrid, ..packet.malformed(reason) })
}

fn fields(packet: &Packet<'_>) -> Result<Advertisement, Reason> {
    if packet.destination.is_multicast() && packet.hop_limit != LINK_TTL {
        return Err(Reason::BadTtl);
    }
    let (&header, rest) = packet.payload.split_first_chunk::<HEADER>().ok_or(Reason::Truncated)?;
    let [version_type, vrid, priority, count, third, fourth, _, _] = header;
    let version = version(version_type >> 4, packet.source)?;
    if version_type & 0x0f != ADVERTISEMENT {
        return Err(Reason::BadType);
    }
    if vrid == 0 {
        return Err(Reason::BadVrid);
    }
    if count == 0 {
        return Err(Reason::NoAddresses);
    }
    let length = length(version, packet.source, count);
    let hmac = has_hmac(packet.length, length)?;
    let (authentication, interval) = match version {
        Version::V2 => (authentication(third)?, Duration::from_secs(fourth.into())),
        Version::V3 => {
            let centiseconds = u16::from_be_bytes([third, fourth]) & INTERVAL;
            (Authentication::None, Duration::from_millis(u64::from(centiseconds) * 10))
        }
    };
    Ok(Advertisement {
        source: packet.source,
        destination: packet.destination,
        ttl: packet.hop_limit,
        version,
        vrid,
        priority,
        interval: Some(interval).filter(|interval| !interval.is_zero()),
        authentication,
        authentication_header: packet.authentication_header,
        address_count: count,
        addresses: addresses(rest, packet.source, count),
        hmac,
        checksum: verify(packet, version, length)?,
    })
}

fn version(number: u8, source: IpAddr) -> Result<Version, Reason> {
    match (number, source) {
        (2, IpAddr::V4(_)) => Ok(Version::V2),
        (3, _) => Ok(Version::V3),
        _ => Err(Reason::BadVersion),
    }
}

fn authentication(number: u8) -> Result<Authentication, Reason> {
    match number {
        0 => Ok(Authentication::None),
        1 => Ok(Authentication::SimplePassword),
        2 => Ok(Authentication::AuthenticationHeader),
        _ => Err(Reason::BadAuthenticationType),
    }
}

/// Length of a message, which version and count determine.
pub(super) fn length(version: Version, source: IpAddr, count: u8) -> usize {
    let address = if source.is_ipv4() { 4 } else { 16 };
    let authentication = if version == Version::V2 { AUTHENTICATION_DATA } else { 0 };
    HEADER + usize::from(count) * address + authentication
}

/// Nothing but the HMAC may follow a message. Were any bytes let through, a damaged version or count could move the
/// message's end to where the checksum happens to be right.
fn has_hmac(packet: usize, message: usize) -> Result<bool, Reason> {
    match packet.checked_sub(message) {
        Some(0) => Ok(false),
        Some(HMAC) => Ok(true),
        _ => Err(Reason::BadLength),
    }
}

/// At most `count` addresses; the bytes behind the last one are not looked at.
fn addresses(bytes: &[u8], source: IpAddr, count: u8) -> Vec<IpAddr> {
    let count = usize::from(count);
    if source.is_ipv4() {
        bytes.as_chunks::<4>().0.iter().take(count).map(|octets| IpAddr::from(*octets)).collect()
    } else {
        bytes.as_chunks::<16>().0.iter().take(count).map(|octets| IpAddr::from(*octets)).collect()
    }
}

/// Finds out what the sender computed the checksum over.
///
/// RFC 5798 leaves open whether IPv4 has a pseudo-header, RFC 9568 says no, keepalived says yes unless told otherwise.
/// Accepting each makes the check weaker only for pairs of addresses whose pseudo-header sums to a power of two.
fn verify(packet: &Packet<'_>, version: Version, length: usize) -> Result<Checksum, Reason> {
    if !packet.is_whole() {
        return Ok(Checksum::Unverified);
    }
    let message = packet.payload.get(..length).ok_or(Reason::BadLength)?;
    let sum = checksum::sum(message);
    let header = |destination| checksum::pseudo_header(packet.source, destination, VRRP, length);
    let candidates = match (version, packet.source) {
        (Version::V2, _) => [Some((Checksum::Plain, sum)), None, None],
        (Version::V3, IpAddr::V4(_)) => [
            Some((Checksum::PseudoHeader, sum + header(packet.destination))),
            Some((Checksum::Plain, sum)),
            Some((Checksum::GroupPseudoHeader, sum + header(GROUP_V4.into()))),
        ],
        // The sender's kernel computes it, to which all of the packet is the message.
        (Version::V3, IpAddr::V6(_)) => {
            let header = checksum::pseudo_header(packet.source, packet.destination, VRRP, packet.length);
            [Some((Checksum::PseudoHeader, checksum::sum(packet.payload) + header)), None, None]
        }
    };
    let right = candidates.into_iter().flatten().find(|(_, sum)| checksum::is_right(*sum));
    right.map(|(kind, _)| kind).ok_or(Reason::BadChecksum)
}

#[cfg(test)]
mod tests;
