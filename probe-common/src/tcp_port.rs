//! TCP connections of watched ports: what is counted for each pair of port and peer address.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tcp::TcpCell;

/// Ports that are watched at most.
pub const PORTS_MAX: usize = 8;

/// Pairs of port and peer address that are told apart at most.
pub const PORT_SLOTS: u32 = 256;

/// What a slot counts.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PortKey {
    /// The peer as the socket sees it, IPv4 as an IPv4-mapped address.
    pub address: [u8; 16],
    /// The watched port in host order, of the peer or else of this end; 0: slot not in use.
    pub port: u16,
    /// Zero.
    pub padding: [u8; 6],
}
const _: () = assert!(size_of::<PortKey>() == 24);

/// Counters of a slot in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct PortCell {
    /// As those of a pod; `ack` and `connect` stay empty.
    pub tcp: TcpCell,
    /// Segments sent by connections, those sent again included.
    pub transmit_segments: u64,
    /// The least round trip of this window and of the one before: [`crate::least`].
    pub least: [u64; 2],
    /// Zero.
    pub padding: [u64; 5],
}
const _: () = assert!(size_of::<PortCell>() == 448);
