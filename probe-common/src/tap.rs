//! Frames that the tap copies from an uplink: ARP, neighbour advertisements and VRRP.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a frame that are copied at most: a VRRP advertisement with twenty IPv6 addresses and two VLAN tags.
pub const FRAME_MAX: usize = 400;

/// Bit of [`TapRecord::flags`]: the frame leaves this node.
pub const TRANSMITTED: u32 = 1;
/// Bit of [`TapRecord::flags`]: [`TapRecord::vlan`] holds a tag that the device had taken off.
pub const TAGGED: u32 = 1 << 1;

/// One record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TapRecord {
    /// `bpf_ktime_get_ns` when the frame passed.
    pub time: u64,
    /// Interface index of the device that the tap is attached to.
    pub device: u32,
    /// [`TRANSMITTED`] and [`TAGGED`].
    pub flags: u32,
    /// 802.1Q tag control information from the packet's metadata, in host order.
    pub vlan: u32,
    /// Bytes of the whole frame.
    pub length: u32,
    /// Bytes of `frame` in use.
    pub captured: u32,
    /// Zero.
    pub padding: u32,
    /// The frame from its Ethernet header on.
    pub frame: [u8; FRAME_MAX],
}
const _: () = assert!(size_of::<TapRecord>() == 432);
