//! Connections between pods of this node and pods of another one: which node that is, decided once for each socket and
//! generation, the round trips to it, and the segments that are sent there again.
//!
//! Whether an end is a pod its address says, so that pods in the host's namespace are none.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_sock};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::maps::lpm_trie::Key;
use probe_common::overlay::NODES_MAX;
use probe_common::path_pod::PodPathCell;
use probe_common::peer::PeerClass;

use crate::maps::{PREFIXES, TCP_SHARD_MASK, processor};
use crate::{address, atomic, tcp};

/// Counters, `shard * nodes + node`; set at load.
#[map(name = "leadline_ppods")]
static CELLS: Array<PodPathCell> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Number of the node of a connection's peer; 0: one of the ends is no pod, or the node is not known. The class is that of
/// the socket's peer.
///
/// # Safety
/// `socket` is a non-null TCP socket pointer of this program run.
#[inline(never)]
pub(crate) unsafe fn look_up(socket: *mut bpf_sock, class: u8) -> u16 {
    if class != PeerClass::PodRemote.number() {
        return 0;
    }
    // SAFETY: the caller's promise.
    let Some(peer) = PREFIXES.get(Key::new(128, unsafe { address::of_peer(socket) })) else { return 0 };
    let node = peer.node;
    // SAFETY: as above.
    let Some(own) = PREFIXES.get(Key::new(128, unsafe { address::of_self(socket) })) else { return 0 };
    if own.class == PeerClass::PodLocal.number() { node } else { 0 }
}

#[inline(always)]
fn cell(node: u16) -> Option<*mut PodPathCell> {
    let shard = processor() & TCP_SHARD_MASK.load();
    CELLS.get_ptr_mut(shard * NODES_MAX + (u32::from(node) & (NODES_MAX - 1)))
}

/// Takes a round trip to a node, which may be the least one.
#[inline(never)]
pub(crate) fn round_trip(node: u16, microseconds: u32, now: u64) -> u32 {
    let Some(cell) = cell(node) else { return 0 };
    // SAFETY: a map value.
    unsafe { tcp::note_least(&raw mut (*cell).least, microseconds, now) };
    1
}

/// Counts the round trip of a handshake.
#[inline(never)]
pub(crate) fn handshake(node: u16, microseconds: u32) -> u32 {
    let Some(cell) = cell(node) else { return 0 };
    // SAFETY: a map value.
    unsafe { tcp::observe(&raw mut (*cell).handshake, microseconds) };
    1
}

/// Counts segments that are sent again. Of `segments` in one buffer all but the last one are full; that one is, if there
/// are as many bytes from the buffer's beginning to the end of all that was sent.
#[inline(never)]
pub(crate) fn retransmit(node: u16, segments: u32, bytes: u32, full_size: u32) -> u32 {
    let Some(cell) = cell(node) else { return 0 };
    let is_last_full = u64::from(bytes) >= u64::from(segments) * u64::from(full_size);
    let smaller = u32::from(!is_last_full && segments != 0);
    // SAFETY: a map value.
    unsafe {
        atomic::add(&raw mut (*cell).full_retransmits, u64::from(segments - smaller));
        atomic::add(&raw mut (*cell).smaller_retransmits, u64::from(smaller));
    }
    1
}
