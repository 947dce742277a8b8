//! Where something is heard, and of what: interfaces, virtual routers, announced addresses.

use std::net::IpAddr;
use std::sync::Arc;

use super::happening::{Happening, Nanos};
use crate::wire::MacAddress;

/// Address family of a virtual router: one number is two routers where both families are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The value of the `family` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// A virtual router as this node hears it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualRouter {
    /// The uplink, with the VLAN behind a dot where the frames are tagged.
    pub interface: Arc<str>,
    /// Its number.
    pub vrid: u8,
    /// Address family.
    pub family: Family,
    /// Routers of one number that have no address in common are parties of their own, numbered as they came.
    pub party: u8,
}

/// An address that is only announced, on one link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claimed {
    /// The uplink, as in [`VirtualRouter`].
    pub interface: Arc<str>,
    /// The address.
    pub address: IpAddr,
}

/// Where something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The uplink, as in [`VirtualRouter`].
    pub interface: Arc<str>,
    /// The number of the virtual router, where there is one.
    pub vrid: Option<u8>,
}

/// How a frame came.
#[derive(Clone, Debug)]
pub struct Passage {
    /// When it passed the tap.
    pub time: Nanos,
    /// The uplink's name.
    pub interface: Arc<str>,
    /// Sent by this node.
    pub transmitted: bool,
}

/// A happening, with what it happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where.
    pub place: Place,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// What happened.
    pub happening: Happening,
}

/// The hardware addresses of a virtual router (RFC 9568, 7.3).
pub(super) fn virtual_macs(vrid: u8) -> [MacAddress; 2] {
    [1, 2].map(|family| MacAddress([0, 0, 0x5e, 0, family, vrid]))
}

/// The interface as people name it: a tagged frame belongs to the VLAN's.
pub(super) fn interface(uplink: &Arc<str>, vlan: Option<u16>) -> Arc<str> {
    match vlan {
        None | Some(0) => Arc::clone(uplink),
        Some(vlan) => format!("{uplink}.{vlan}").into(),
    }
}
