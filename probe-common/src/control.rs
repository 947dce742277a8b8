//! The one shared record between agent and programs: the generation, and counts of what was not counted.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Single element of the `CONTROL` array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// Written by the agent: raised whenever sockets must look their slot up again, because the prefixes changed or
    /// slots were retired. Never 0 while programs are attached.
    pub generation: u64,
    /// Packets counted into an overflow slot because no slot was free.
    pub slots_exhausted: u64,
    /// Packets counted without socket storage, because the kernel refused it.
    pub storage_refused: u64,
    /// Packets whose headers could not be read; counted nowhere else.
    pub malformed: u64,
    /// Records that found the ring buffer full.
    pub records_lost: u64,
    /// TCP callbacks of sockets whose slot was not known yet; the sample is dropped.
    pub tcp_unattributed: u64,
    /// Frames of the tap that found its ring buffer full.
    pub frames_lost: u64,
    /// Records of served packets that found their ring buffer full.
    pub served_lost: u64,
    /// Packets of tunnels that found their ring buffer full.
    pub tunnel_lost: u64,
    /// Look-ups of connections of a watched port that found no free slot.
    pub port_slots_exhausted: u64,
    /// Messages of routers that found their ring buffer full.
    pub too_big_lost: u64,
}
const _: () = assert!(size_of::<Control>() == 88);
