//! Messages of routers that a packet was too big for them, copied from an uplink: ICMP "fragmentation needed" (RFC 792,
//! RFC 1191) and ICMPv6 "packet too big" (RFC 4443).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a message that are copied: the longest header of IPv4, that of ICMP, and the part of the quoted header that has
/// its addresses. With IPv6 it is as much without any options.
pub const PACKET_MAX: usize = 96;

/// One record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TooBigRecord {
    /// `bpf_ktime_get_ns` when the message passed.
    pub time: u64,
    /// Interface index of the device that the tap is attached to.
    pub device: u32,
    /// Bytes of the whole packet, from its IP header on, with what pads the frame.
    pub length: u32,
    /// Bytes of `packet` in use.
    pub captured: u32,
    /// Zero.
    pub padding: u32,
    /// The packet from its IP header on.
    pub packet: [u8; PACKET_MAX],
}
const _: () = assert!(size_of::<TooBigRecord>() == 120);
