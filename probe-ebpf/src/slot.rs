//! Which slot a packet belongs to: the slow path, taken once per socket and generation, and for every packet of
//! sockets without a fixed peer.

use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_fullsock, bpf_skb_cgroup_id};
use aya_ebpf::maps::lpm_trie::Key;
use probe_common::peer::PeerClass;
use probe_common::prefix::PrefixValue;
use probe_common::traffic::{CGROUP_KERNEL, Protocol, SlotKey, SocketState};

use crate::maps::{FREE, KEYS, PREFIXES, SLOT_OF, count_loss, socket_state};
use crate::packet;

const SOCK_STREAM: u32 = 1;
const SOCK_RAW: u32 = 3;
/// `enum tcp_state`: UDP sockets use it too, ESTABLISHED meaning that `connect(2)` fixed the peer.
const TCP_ESTABLISHED: u32 = 1;
const TCP_LISTEN: u32 = 10;
/// Index of the loopback device in every network namespace (include/net/flow.h, `LOOPBACK_IFINDEX`).
const LOOPBACK_IFINDEX: u32 = 1;

/// Set in `SocketState::peer` of a raw socket beside the identifier of its last echo request.
const ECHO: u32 = 1 << 16;

/// The packet must not be counted.
pub(crate) const NONE: u32 = u32::MAX;

/// Finds or makes the slot of a key. When no slot is free the class's overflow slot is taken.
#[inline(never)]
pub(crate) fn slot_of(cgroup: u64, class: u8, protocol: u8) -> u32 {
    let key = SlotKey::new(cgroup, class, protocol);
    // SAFETY: values are plain integers; a slot that is removed meanwhile is in quarantine (ledger.rs).
    if let Some(slot) = unsafe { SLOT_OF.get(key) } {
        return *slot;
    }
    let overflow = u32::from(class & 15);
    let Ok(Some(slot)) = FREE.pop() else {
        count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).slots_exhausted }
        });
        return overflow;
    };
    if let Some(entry) = KEYS.get_ptr_mut(slot) {
        // SAFETY: a map value; both words were zero, so that a reader that sees one of them only waits for the other.
        unsafe { *entry = key };
    }
    if SLOT_OF.insert(key, slot, u64::from(BPF_NOEXIST)).is_ok() {
        return slot;
    }
    // Another CPU was faster, or the table is full: give the slot back.
    if let Some(entry) = KEYS.get_ptr_mut(slot) {
        // SAFETY: as above; nothing was counted into the slot.
        unsafe { *entry = SlotKey::new(0, 0, 0) };
    }
    if FREE.push(slot, 0).is_err() {
        count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).slots_exhausted }
        });
    }
    // SAFETY: as above.
    unsafe { SLOT_OF.get(key) }.copied().unwrap_or(overflow)
}

/// Class of a peer address.
#[inline(always)]
fn class_of(address: [u8; 16]) -> u8 {
    let value: Option<&PrefixValue> = PREFIXES.get(Key::new(128, address));
    value.map_or(PeerClass::Unknown.number(), |value| value.class)
}

/// The peer of a UDP socket as one word. A collision leaves the class of the former peer, nothing worse.
///
/// # Safety
/// `socket` is a non-null socket pointer of this program run.
#[inline(always)]
pub(crate) unsafe fn peer_word(socket: *mut bpf_sock) -> u32 {
    // SAFETY: the caller's promise; the verifier rewrites these to loads from struct sock_common.
    unsafe { (*socket).dst_ip4 ^ (*socket).dst_ip6[0] ^ (*socket).dst_ip6[1] ^ (*socket).dst_ip6[3] }
}

/// What the slow path knows of a packet.
struct Facts {
    cgroup: u64,
    class: u8,
    protocol: u8,
    /// The socket has one peer for good, or until it connects again.
    fixed_peer: bool,
    peer: u32,
}

/// Remembers the identifier of an echo request with the raw socket that sends it, and tells whether what a raw socket
/// receives answers it. Every raw socket gets a copy of every packet of its protocol: only the asker counts it.
///
/// # Safety
/// `skb` is the context, `socket` its non-null raw socket.
#[inline(always)]
unsafe fn echo_identifier(
    skb: *mut __sk_buff,
    socket: *mut bpf_sock,
    transport: packet::Transport,
    egress: bool,
) -> bool {
    let Some(identifier) = packet::echo_identifier(skb, transport, egress) else { return false };
    let peer = ECHO | u32::from(identifier);
    let mut initial = SocketState { peer, ..SocketState::default() };
    // SAFETY: the caller's promise.
    let state = unsafe { socket_state(socket, egress.then_some(&mut initial)) };
    if state.is_null() {
        return false;
    }
    // SAFETY: storage of the socket, valid for this program run.
    unsafe {
        if egress {
            (*state).peer = peer;
        }
        (*state).peer == peer
    }
}

/// Reads the facts; `None`: the packet is not to be counted here.
#[inline(always)]
unsafe fn facts(skb: *mut __sk_buff, socket: *mut bpf_sock, egress: bool) -> Option<Facts> {
    // SAFETY: the caller gives the context and its socket.
    let full = unsafe { bpf_sk_fullsock(socket) };
    if full.is_null() {
        return None;
    }
    let Some(transport) = packet::transport(skb) else {
        count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).malformed }
        });
        return None;
    };
    // SAFETY: checked not to be null.
    let (kind, number, state) = unsafe { ((*full).type_, (*full).protocol, (*full).state) };
    let protocol = Protocol::from_ip(transport.protocol);
    if !egress && number != u32::from(transport.protocol) {
        // A raw socket of all protocols got a copy of a packet that another socket counts.
        return None;
    }
    if kind == SOCK_RAW {
        // SAFETY: the caller gives the context and its socket.
        let is_own = unsafe { echo_identifier(skb, socket, transport, egress) };
        if !egress && !is_own {
            return None;
        }
    }
    let address = packet::peer_address(skb, transport.ipv6, egress)?;
    // SAFETY: fields of the context.
    let (ifindex, cgroup) = unsafe { ((*skb).ifindex, bpf_skb_cgroup_id(skb)) };
    let by_kernel = egress && kind == SOCK_RAW && packet::is_neighbour_control(skb, transport);
    let connected =
        kind != SOCK_RAW && if kind == SOCK_STREAM { state != TCP_LISTEN } else { state == TCP_ESTABLISHED };
    Some(Facts {
        // Discovery is charged to whoever made the network namespace (a container runtime), not to the pod.
        cgroup: if by_kernel { CGROUP_KERNEL } else { cgroup },
        class: if ifindex == LOOPBACK_IFINDEX { PeerClass::Loopback.number() } else { class_of(address) },
        protocol: protocol.number(),
        fixed_peer: connected && (protocol == Protocol::Tcp || protocol == Protocol::Udp),
        // SAFETY: the caller's promise.
        peer: if kind == SOCK_STREAM { 0 } else { unsafe { peer_word(socket) } },
    })
}

/// The slot of this packet, remembered with the socket where it will not change. [`NONE`]: do not count.
///
/// The class of a connected socket is that of its first *egress* packet for both directions: behind DNAT the two
/// differ. What a socket receives before it sends anything is looked up and not remembered.
///
/// # Safety
/// `skb` is the context, `socket` its non-null socket, `state` the socket's storage or null.
#[inline(never)]
pub(crate) unsafe fn look_up(
    skb: *mut __sk_buff,
    socket: *mut bpf_sock,
    state: *mut SocketState,
    egress: bool,
) -> u32 {
    // SAFETY: the caller's promise.
    let Some(mut facts) = (unsafe { facts(skb, socket, egress) }) else { return NONE };
    if !facts.fixed_peer {
        return slot_of(facts.cgroup, facts.class, facts.protocol);
    }
    let Some(control) = crate::maps::control() else { return NONE };
    // Read before the slot is looked up: if the agent raises it meanwhile, the socket looks up once more.
    // SAFETY: a map value; the agent is its only writer.
    let generation = unsafe { core::ptr::read_volatile(&raw const (*control).generation) } as u32;
    if !egress {
        if !state.is_null() {
            // SAFETY: storage of the socket, valid for this program run.
            let (known, class) = unsafe { ((*state).generation != 0, (*state).class) };
            if known {
                facts.class = class;
            }
        }
        return slot_of(facts.cgroup, facts.class, facts.protocol);
    }
    let slot = slot_of(facts.cgroup, facts.class, facts.protocol);
    let mut state = state;
    if state.is_null() {
        let mut initial = SocketState::default();
        // SAFETY: the caller's promise.
        state = unsafe { socket_state(socket, Some(&mut initial)) };
    }
    if state.is_null() {
        count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).storage_refused }
        });
        return slot;
    }
    // SAFETY: storage of the socket, valid for this program run.
    unsafe {
        (*state).slot = slot;
        (*state).cgroup = facts.cgroup;
        (*state).class = facts.class;
        (*state).protocol = facts.protocol;
        (*state).peer = facts.peer;
        (*state).generation = generation;
    }
    slot
}
