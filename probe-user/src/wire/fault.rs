//! Why a frame was refused: closed sets, fit for labels.

use std::{error::Error, fmt, net::IpAddr};

use super::frame::Link;

/// The protocol whose rules a frame breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Ethernet and its VLAN tags.
    Ethernet,
    /// IPv4 or IPv6, where it cannot be told what it carries.
    Ip,
    /// Address resolution, RFC 826.
    Arp,
    /// Neighbour discovery, RFC 4861.
    Ndp,
    /// Virtual router redundancy, RFC 3768, 5798 and 9568.
    Vrrp,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 5] = [Self::Ethernet, Self::Ip, Self::Arp, Self::Ndp, Self::Vrrp];

    /// The value of the label `protocol`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Ndp => "ndp",
            Self::Vrrp => "vrrp",
        }
    }
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The frame, or what was captured of it, ends within the fields that are needed.
    Truncated,
    /// Lengths or counts contradict each other.
    BadLength,
    /// The IP header says another version than the frame, or is shorter than its fixed part.
    BadIpHeader,
    /// The checksum of the IPv4 header is wrong.
    BadIpChecksum,
    /// A fragment of a message that must not be fragmented.
    Fragment,
    /// TTL or hop limit is not 255: the message may come from beyond the link.
    BadTtl,
    /// A VRRP version other than 2 and 3, or 2 over IPv6.
    BadVersion,
    /// A VRRP type other than advertisement.
    BadType,
    /// Virtual router 0, which does not exist.
    BadVrid,
    /// A VRRP advertisement without addresses.
    NoAddresses,
    /// An authentication type that VRRP version 2 does not have.
    BadAuthenticationType,
    /// The checksum of the message is wrong.
    BadChecksum,
    /// ARP for hardware other than Ethernet.
    BadHardwareType,
    /// ARP for a protocol other than IPv4.
    BadProtocolType,
    /// An ARP operation other than request and reply.
    BadOperation,
    /// A neighbour advertisement with an ICMPv6 code.
    BadCode,
    /// A neighbour advertisement for a multicast address.
    BadTarget,
    /// A neighbour advertisement that says it was solicited, and is multicast.
    BadFlags,
    /// A neighbour discovery option of a length that cannot be.
    BadOption,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::Truncated,
        Self::BadLength,
        Self::BadIpHeader,
        Self::BadIpChecksum,
        Self::Fragment,
        Self::BadTtl,
        Self::BadVersion,
        Self::BadType,
        Self::BadVrid,
        Self::NoAddresses,
        Self::BadAuthenticationType,
        Self::BadChecksum,
        Self::BadHardwareType,
        Self::BadProtocolType,
        Self::BadOperation,
        Self::BadCode,
        Self::BadTarget,
        Self::BadFlags,
        Self::BadOption,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::BadLength => "bad_length",
            Self::BadIpHeader => "bad_ip_header",
            Self::BadIpChecksum => "bad_ip_checksum",
            Self::Fragment => "fragment",
            Self::BadTtl => "bad_ttl",
            Self::BadVersion => "bad_version",
            Self::BadType => "bad_type",
            Self::BadVrid => "bad_vrid",
            Self::NoAddresses => "no_addresses",
            Self::BadAuthenticationType => "bad_authentication_type",
            Self::BadChecksum => "bad_checksum",
            Self::BadHardwareType => "bad_hardware_type",
            Self::BadProtocolType => "bad_protocol_type",
            Self::BadOperation => "bad_operation",
            Self::BadCode => "bad_code",
            Self::BadTarget => "bad_target",
            Self::BadFlags => "bad_flags",
            Self::BadOption => "bad_option",
        }
    }
}

/// A frame that claims to be one of ours and is not right, with what could still be read of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The link layer's part.
    pub link: Link,
    /// Whose rules it breaks.
    pub protocol: Protocol,
    /// What is wrong.
    pub reason: Reason,
    /// The source address of the packet.
    pub source: Option<IpAddr>,
    /// The virtual router that a VRRP packet speaks for.
    pub vrid: Option<u8>,
}

impl Malformed {
    /// A fault of which nothing else is known.
    pub(super) fn new(protocol: Protocol, reason: Reason) -> Self {
        Self { link: Link::default(), protocol, reason, source: None, vrid: None }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {} frame: {}", self.protocol.as_str(), self.reason.as_str())?;
        if let Some(vrid) = self.vrid {
            write!(f, ", vrid {vrid}")?;
        }
        match (self.source, self.link.source) {
            (Some(source), _) => write!(f, ", from {source}"),
            (None, Some(source)) => write!(f, ", from {source}"),
            (None, None) => Ok(()),
        }
    }
}

impl Error for Malformed {}
