//! Packets by which the ends of a tunnel find and greet each other, copied from an uplink: Tailscale's disco, and the
//! handshake of `WireGuard`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::tap::TRANSMITTED;

/// Bytes of a packet that are copied: headers of IPv6, UDP and Geneve with what disco says in the clear. None of these
/// packets is shorter.
pub const PACKET_MAX: usize = 96;

/// One record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunnelRecord {
    /// `bpf_ktime_get_ns` when the packet passed.
    pub time: u64,
    /// Interface index of the device that the tap is attached to.
    pub device: u32,
    /// [`TRANSMITTED`] or 0.
    pub flags: u32,
    /// The packet from its IP header on.
    pub packet: [u8; PACKET_MAX],
}
const _: () = assert!(size_of::<TunnelRecord>() == 112);
