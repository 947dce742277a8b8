//! Bytes per peer node on an overlay device. The cells are those of `traffic`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Nodes told apart, index 0 (unknown) included; a power of two.
pub const NODES_MAX: u32 = 1_024;

/// Overlay devices told apart.
pub const DEVICES_MAX: u32 = 4;

/// What the overlay program knows of a device, by interface index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OverlayDevice {
    /// Row of the device in the cell array, below [`DEVICES_MAX`].
    pub row: u32,
    /// Bytes before the network header: 14 for an Ethernet device, 0 for a point-to-point one.
    pub link_header: u32,
}
const _: () = assert!(size_of::<OverlayDevice>() == 8);
