//! Packets that virtual addresses send: who serves an address, and since when.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Addresses that are watched at most.
pub const WATCHED_MAX: u32 = 256;

/// Words of the filter over the last byte of an address: one bit for each value.
pub const FILTER_WORDS: usize = 4;

/// Variables that the programs share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Watched {
    /// A bit for each last byte of a watched address; written by the agent.
    pub filter: [u64; FILTER_WORDS],
    /// `bpf_ktime_get_ns` of the last frame by which an address may have moved; written by the programs.
    pub announced: u64,
    /// The station that advertised last; written by the programs.
    pub advertiser: u64,
}
const _: () = assert!(size_of::<Watched>() == 48);

/// Bit of [`ServedRecord::flags`]: the packet leaves this node.
pub const TRANSMITTED: u32 = 1;

/// Who served an address last; all zero before anybody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Server {
    /// `bpf_ktime_get_ns` of its last packet, 0 before the first one.
    pub last: u64,
    /// The station that sent it.
    pub mac: [u8; 6],
    /// 1 if that was this node.
    pub transmitted: u8,
    /// Zero.
    pub padding: u8,
}
const _: () = assert!(size_of::<Server>() == 16);

/// A packet of an address that another station serves than before, or that served nobody for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServedRecord {
    /// `bpf_ktime_get_ns` when the packet passed.
    pub time: u64,
    /// The same of the packet of the address before it; 0 where there was none.
    pub previous: u64,
    /// The address, IPv4 as an IPv4-mapped one.
    pub address: [u8; 16],
    /// The station that sent the packet.
    pub mac: [u8; 6],
    /// Zero.
    pub padding: u16,
    /// Interface index of the uplink.
    pub device: u32,
    /// [`TRANSMITTED`].
    pub flags: u32,
}
const _: () = assert!(size_of::<ServedRecord>() == 48);
