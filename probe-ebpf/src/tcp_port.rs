//! Connections of watched ports: whether a connection is one, decided once for each socket and generation, and the
//! counters of its port and peer.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_NOEXIST, bpf_sock};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, Queue};
use probe_common::peer::PeerClass;
use probe_common::tcp_port::{PORTS_MAX, PortCell, PortKey};
use probe_common::traffic::{Protocol, SocketState};

use crate::maps::{TCP_SHARD_MASK, count_loss, processor, socket_state};
use crate::{address, atomic, path_pod, tcp};

/// `enum tcp_state`, which UDP sockets use too.
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

/// What each slot counts; set at load.
#[map(name = "leadline_pkeys")]
static PORT_KEYS: Array<PortKey> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Counters, `shard * slots + slot`; set at load.
#[map(name = "leadline_pcells")]
static PORT_CELLS: Array<PortCell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Slot of a key; set at load.
#[map(name = "leadline_pslots")]
static PORT_SLOT_OF: HashMap<PortKey, u32> = HashMap::with_max_entries(1, 0);
/// Slots that are free; filled by the agent, set at load.
#[map(name = "leadline_pfree")]
static PORT_FREE: Queue<u32> = Queue::with_max_entries(1, 0);

/// The watched ports in host order; 0 is none.
#[unsafe(no_mangle)]
static TCP_PORTS: Global<[u16; PORTS_MAX]> = Global::new([0; PORTS_MAX]);
/// Slots per shard.
#[unsafe(no_mangle)]
static PORT_SLOT_COUNT: Global<u32> = Global::new(1);

/// Counters of a slot in this CPU's shard; `port_slot` as in a socket's storage.
#[inline(always)]
pub(crate) fn cell(port_slot: u16) -> Option<*mut PortCell> {
    if port_slot == 0 {
        return None;
    }
    let shard = processor() & TCP_SHARD_MASK.load();
    PORT_CELLS.get_ptr_mut(shard * PORT_SLOT_COUNT.load() + u32::from(port_slot) - 1)
}

#[inline(always)]
fn is_watched(port: u16) -> bool {
    let mut found = false;
    for watched in TCP_PORTS.load() {
        found |= watched == port;
    }
    found && port != 0
}

/// Decides whether a connection is watched and to which node's pod it leads, when its slot was looked up for a packet that
/// it sends; answers with the storage of its socket.
///
/// # Safety
/// `socket` is a non-null socket pointer of this program run, `state` its storage or null.
#[inline(always)]
pub(crate) unsafe fn decide(socket: *mut bpf_sock, state: *mut SocketState) -> *mut SocketState {
    // SAFETY: the caller's promise.
    let kind = unsafe { (*socket).state };
    if kind == TCP_CLOSE || kind == TCP_LISTEN {
        // No connection, or a UDP socket without a peer, which comes here for each packet.
        return state;
    }
    // The look-up may have made it.
    // SAFETY: as above.
    let state = unsafe { socket_state(socket, None) };
    if !state.is_null() {
        // SAFETY: storage of the socket, valid for this program run.
        unsafe {
            if (*state).protocol == Protocol::Tcp.number() {
                (*state).port_slot = look_up(socket, (*state).class);
                (*state).node = path_pod::look_up(socket, (*state).class);
            }
        }
    }
    state
}

/// Slot plus 1 of a connection of a watched port; 0: it is none, its peer is of this node or not known yet, or there is
/// no slot left. The class is that of the socket's peer.
///
/// # Safety
/// `socket` is a non-null TCP socket pointer of this program run.
#[inline(never)]
pub(crate) unsafe fn look_up(socket: *mut bpf_sock, class: u8) -> u16 {
    // SAFETY: the caller's promise; the verifier rewrites these to loads from struct sock_common.
    let (local, remote) = unsafe { ((*socket).src_port as u16, u16::from_be((*socket).dst_port)) };
    let port = match (is_watched(remote), is_watched(local)) {
        (true, _) => remote,
        (false, true) => local,
        (false, false) => return 0,
    };
    let own = [PeerClass::Unknown, PeerClass::Loopback, PeerClass::Host, PeerClass::PodLocal];
    if own.iter().any(|own| own.number() == class) {
        return 0;
    }
    // SAFETY: as above.
    let address = unsafe { address::of_peer(socket) };
    slot_of(&PortKey { address, port, padding: [0; 6] })
}

/// Finds or makes the slot of a key, and adds 1; 0: there is none left.
#[inline(always)]
fn slot_of(key: &PortKey) -> u16 {
    // SAFETY: values are plain integers.
    if let Some(slot) = unsafe { PORT_SLOT_OF.get(key) } {
        return *slot as u16 + 1;
    }
    let Ok(Some(slot)) = PORT_FREE.pop() else {
        count_exhausted();
        return 0;
    };
    if let Some(entry) = PORT_KEYS.get_ptr_mut(slot) {
        // SAFETY: a map value; nobody reads the key before something was counted.
        unsafe { *entry = *key };
    }
    if PORT_SLOT_OF.insert(key, slot, u64::from(BPF_NOEXIST)).is_ok() {
        return slot as u16 + 1;
    }
    // Another CPU was faster: give the slot back.
    if PORT_FREE.push(slot, 0).is_err() {
        count_exhausted();
    }
    // SAFETY: as above.
    unsafe { PORT_SLOT_OF.get(key) }.map_or(0, |slot| *slot as u16 + 1)
}

fn count_exhausted() {
    count_loss(|control| {
        // SAFETY: a projection into the map value.
        unsafe { &raw mut (*control).port_slots_exhausted }
    });
}

/// Counts segments that a connection sent.
#[inline(always)]
pub(crate) fn transmitted(port_slot: u16, segments: u64) {
    if let Some(cell) = cell(port_slot) {
        // SAFETY: a counter of the map value.
        unsafe { atomic::add(&raw mut (*cell).transmit_segments, segments) };
    }
}

/// Takes a round trip of a connection.
#[inline(never)]
pub(crate) fn round_trip(port_slot: u16, microseconds: u32, now: u64) -> u32 {
    let Some(cell) = cell(port_slot) else { return 0 };
    // SAFETY: a map value.
    unsafe {
        tcp::observe(&raw mut (*cell).tcp.rtt, microseconds);
        tcp::note_least(&raw mut (*cell).least, microseconds, now);
    }
    1
}
