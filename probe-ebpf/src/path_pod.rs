//! Connections between pods of this node and pods of another one: which node that is, decided once for each socket and
//! generation, the round trips to it, and the segments that are sent there again.
//!
//! Whether an end is a pod its address says, so that pods in the host's namespace are none.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_sock};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::maps::lpm_trie::Key;
use probe_common::overlay::NODES_MAX;
use probe_common::path_pod::PodPathCell;
use probe_common::peer::PeerClass;

use crate::maps::{PREFIXES, TCP_SHARD_MASK, processor};
use crate::{address, atomic, maps, tcp};

/// Bytes of a full segment that options may take now and then: its acknowledgement of what came out of order.
const OPTIONS: u32 = 40;

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

/// `struct sk_buff.len` and `struct tcp_sock.mss_cache`, from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_SKB_LEN: Global<u32> = Global::new(0);
/// See above.
#[unsafe(no_mangle)]
static OFFSET_MSS_CACHE: Global<u32> = Global::new(0);

/// Runs for each buffer that was sent again, after the callback and within the same call (`__tcp_retransmit_skb`): only
/// here is it known how many bytes it has.
#[unsafe(no_mangle)]
#[unsafe(link_section = "tp_btf/tcp_retransmit_skb")]
extern "C" fn leadline_resent(arguments: *mut [*mut c_void; 2]) -> u32 {
    // SAFETY: the context of this run.
    let [socket, buffer] = unsafe { [(*arguments)[0], (*arguments)[1]] };
    if !socket.is_null() && !buffer.is_null() {
        // SAFETY: checked not to be null.
        unsafe { resent(socket, buffer) };
    }
    0
}

/// # Safety
/// Both are the tracepoint's non-null arguments, of which the first is a TCP socket.
#[inline(always)]
unsafe fn resent(socket: *mut c_void, buffer: *const c_void) {
    // SAFETY: the caller's promise.
    let state = unsafe { maps::socket_state(socket.cast(), None) };
    if state.is_null() {
        return;
    }
    // SAFETY: storage of the socket, which is locked.
    let (node, segments) = unsafe { ((*state).resent_node, u32::from((*state).resent_segments)) };
    if node == 0 {
        return;
    }
    // SAFETY: as above; null if it is none of TCP.
    let tcp = unsafe {
        (*state).resent_node = 0;
        bpf_skc_to_tcp_sock(socket)
    };
    let Some(cell) = cell(node) else { return };
    if tcp.is_null() {
        return;
    }
    // SAFETY: direct loads through BTF pointers: the verifier knows the frozen offsets and checks that words are there.
    #[expect(clippy::cast_ptr_alignment, reason = "BTF says that words are there, and words are aligned")]
    let (bytes, full) = unsafe {
        let at = |base: *const c_void, offset: u32| {
            core::ptr::read_volatile(base.cast::<u8>().add(offset as usize).cast::<u32>())
        };
        (at(buffer, OFFSET_SKB_LEN.load()), at(tcp.cast(), OFFSET_MSS_CACHE.load()))
    };
    // All but the last one are full.
    let is_last_full = bytes + OPTIONS * segments >= full * segments;
    let smaller = u32::from(!is_last_full && segments != 0);
    // SAFETY: a map value.
    unsafe {
        atomic::add(&raw mut (*cell).full_retransmits, u64::from(segments - smaller));
        atomic::add(&raw mut (*cell).smaller_retransmits, u64::from(smaller));
    }
}
