//! Maps and load-time constants that more than one program uses. Sizes marked "set at load" are replaced by the agent.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_sock};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, generated::bpf_sk_storage_get};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LpmTrie, Queue, RingBuf};
use probe_common::ABI_VERSION;
use probe_common::control::Control;
use probe_common::overlay::{DEVICES_MAX, OverlayDevice};
use probe_common::prefix::{PREFIXES_MAX, PrefixValue};
use probe_common::served::{FILTER_WORDS, Server, WATCHED_MAX, Watched};
use probe_common::tcp::TcpCell;
use probe_common::traffic::{Cell, SlotKey, SocketState};

use crate::atomic;

/// Generation and losses.
#[map(name = "leadline_ctl")]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// What each slot counts; set at load.
#[map(name = "leadline_keys")]
pub(crate) static KEYS: Array<SlotKey> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Traffic, `shard * slots + slot`; set at load.
#[map(name = "leadline_cells")]
pub(crate) static CELLS: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// TCP health, `shard * slots + slot` with fewer shards; set at load.
#[map(name = "leadline_tcells")]
pub(crate) static TCP_CELLS: Array<TcpCell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Slot of a key; set at load.
#[map(name = "leadline_slots")]
pub(crate) static SLOT_OF: HashMap<SlotKey, u32> = HashMap::with_max_entries(1, 0);
/// Slots that are free; filled by the agent, set at load.
#[map(name = "leadline_free")]
pub(crate) static FREE: Queue<u32> = Queue::with_max_entries(1, 0);
/// Address to peer class and node.
#[map(name = "leadline_peers")]
pub(crate) static PREFIXES: LpmTrie<[u8; 16], PrefixValue> =
    LpmTrie::with_max_entries(PREFIXES_MAX, BPF_F_NO_PREALLOC);
/// Cgroups that come and go.
#[map(name = "leadline_events")]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);
/// Frames of the tap, apart from the cgroups: a flood of ARP must not cost a pod its name.
#[map(name = "leadline_tap")]
pub(crate) static FRAMES: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);
/// Served packets, apart from the frames: a flood of garbage must not cost a failover its times.
#[map(name = "leadline_served")]
pub(crate) static SERVED: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);
/// Packets of tunnels, apart from the frames: they say nothing of virtual addresses.
#[map(name = "leadline_tunnel")]
pub(crate) static TUNNEL_PACKETS: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);
/// Messages of routers, apart from the frames for the same reason.
#[map(name = "leadline_toobig")]
pub(crate) static TOO_BIG: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);
/// Who served an address last; the agent puts in what is watched.
#[map(name = "leadline_server")]
pub(crate) static SERVERS: HashMap<[u8; 16], Server> = HashMap::with_max_entries(WATCHED_MAX, 0);
/// The filter before the look-up of a server, and what it is compared with. Variables rather than maps, so that reading
/// them is no call.
#[unsafe(no_mangle)]
pub(crate) static mut WATCHED: Watched = Watched { filter: [0; FILTER_WORDS], announced: 0, advertiser: 0 };
/// What is remembered of a socket; freed by the kernel with the socket.
#[btf_map(name = "leadline_socks")]
pub(crate) static SOCKETS: SkStorage<SocketState> = SkStorage::new();
/// Overlay traffic, `(shard * devices + row) * nodes + node`; set at load.
#[map(name = "leadline_ovl")]
pub(crate) static OVERLAY_CELLS: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Overlay devices by interface index.
#[map(name = "leadline_ovdev")]
pub(crate) static OVERLAY_DEVICES: HashMap<u32, OverlayDevice> =
    HashMap::with_max_entries(DEVICES_MAX * 4, 0);

/// Compared by the agent before anything is attached.
#[unsafe(no_mangle)]
pub(crate) static LEADLINE_ABI: Global<u32> = Global::new(ABI_VERSION);
/// Slots per shard.
#[unsafe(no_mangle)]
pub(crate) static SLOTS: Global<u32> = Global::new(1);
/// Shards of `CELLS` minus one.
#[unsafe(no_mangle)]
pub(crate) static SHARD_MASK: Global<u32> = Global::new(0);
/// Shards of `TCP_CELLS` minus one.
#[unsafe(no_mangle)]
pub(crate) static TCP_SHARD_MASK: Global<u32> = Global::new(0);

/// The control record; `None` never happens, but the verifier wants it checked.
#[inline(always)]
pub(crate) fn control() -> Option<*mut Control> {
    CONTROL.get_ptr_mut(0)
}

/// Counts one loss of the given field.
#[inline(always)]
pub(crate) fn count_loss(field: impl FnOnce(*mut Control) -> *mut u64) {
    if let Some(control) = control() {
        // SAFETY: `field` projects into the map value.
        unsafe { atomic::add(field(control), 1) };
    }
}

/// Traffic cell of a slot in this CPU's shard.
#[inline(always)]
pub(crate) fn cell(slot: u32) -> Option<*mut Cell> {
    CELLS.get_ptr_mut((processor() & SHARD_MASK.load()) * SLOTS.load() + slot)
}

/// TCP cell of a slot in this CPU's shard.
#[inline(always)]
pub(crate) fn tcp_cell(slot: u32) -> Option<*mut TcpCell> {
    TCP_CELLS.get_ptr_mut((processor() & TCP_SHARD_MASK.load()) * SLOTS.load() + slot)
}

/// Number of the CPU this runs on; programs of these types do not migrate while they run.
#[inline(always)]
pub(crate) fn processor() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() }
}

/// Storage of a socket; null if there is none and none was to be made, or the kernel refused.
///
/// # Safety
/// `socket` is a non-null socket pointer that the kernel gave to this program run.
#[inline(always)]
pub(crate) unsafe fn socket_state(
    socket: *mut bpf_sock,
    initial: Option<&mut SocketState>,
) -> *mut SocketState {
    let map = (&raw const SOCKETS).cast_mut().cast();
    let (value, flags) = match initial {
        Some(state) => ((&raw mut *state).cast(), 1), // BPF_SK_STORAGE_GET_F_CREATE
        None => (core::ptr::null_mut(), 0),
    };
    // SAFETY: the caller's promise; the map is a socket storage of this value type.
    unsafe { bpf_sk_storage_get(map, socket.cast(), value, flags) }.cast()
}
