//! `sock_ops` at the root of cgroup v2, and samples of connections that are older than the agent.
//!
//! The round trip that tells of the network is the handshake's, and each connection's windowed minimum
//! (`tcp_sock.rtt_min`); what the kernel takes from ordinary acknowledgements includes delayed ones and, for answers
//! that carry the acknowledgement, the peer's thinking, and is kept apart.

mod older;
mod sample;

pub(crate) use older::OFFSET_SKC_STATE;
pub(crate) use sample::{Slots, note_least, observe};

use aya_ebpf::Global;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RETRANS_CB,
    BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock,
};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::{bpf_skc_to_tcp_sock, bpf_tcp_sock};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use probe_common::tcp::ConnectFailure;
use probe_common::traffic::{HANDSHAKE_PENDING, SocketState};

use self::sample::{bump, observe_handshake, observe_round_trip};
use crate::{atomic, maps, path_pod, slot, tcp_port};

/// A connection's minimum is sampled this often at most.
const SAMPLE_INTERVAL: u64 = 1_000_000_000;
/// `enum tcp_state`.
const TCP_ESTABLISHED: u32 = 1;
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;
const TCP_CLOSE_WAIT: u32 = 8;
const EACCES: u32 = 13;
const EPIPE: u32 = 32;
const ENONET: u32 = 64;
const ENETUNREACH: u32 = 101;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTDOWN: u32 = 112;
const EHOSTUNREACH: u32 = 113;

/// `OFFSET_SK_ERR` of a kernel without BTF.
const NO_OFFSET: u32 = u32::MAX;
/// Offset of `sk_err` in `struct sock`, from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_SK_ERR: Global<u32> = Global::new(NO_OFFSET);

/// A handshake that waited for its slot, and the minimum of a connection without callbacks.
///
/// # Safety
/// `socket` is a non-null socket of this run, `state` its storage.
#[inline(never)]
pub(crate) unsafe fn sample_connection(socket: *mut bpf_sock, state: *mut SocketState, slots: Slots) {
    // SAFETY: storage of the socket; projections into map values.
    unsafe {
        let now = bpf_ktime_get_ns();
        let handshake = (*state).handshake;
        if handshake != 0 {
            (*state).handshake = 0;
            let round_trip = handshake & !HANDSHAKE_PENDING;
            if round_trip != 0 {
                observe_handshake(slots, round_trip, now);
            }
            bump(slots, 1, |cell| &raw mut (*cell).accepts);
        }
        if (*state).callbacks != 0 {
            return;
        }
        if now - (*state).sampled < SAMPLE_INTERVAL {
            return;
        }
        let first = (*state).sampled == 0;
        let tcp = bpf_tcp_sock(socket);
        if tcp.is_null() {
            return;
        }
        (*state).sampled = now;
        let (minimum, retransmits) = ((*tcp).rtt_min, (*tcp).total_retrans);
        // ~0 is the kernel's word for "no sample yet" (tcp_init_sock).
        if minimum != 0 && minimum != u32::MAX {
            observe_round_trip(slots, minimum, now);
        }
        // What was sent again before the agent saw the connection is not counted.
        if !first {
            let more = u64::from(retransmits.wrapping_sub((*state).retransmits));
            bump(slots, more, |cell| &raw mut (*cell).retransmit_segments);
        }
        (*state).retransmits = retransmits;
    }
}

/// Callbacks of TCP sockets.
#[sock_ops]
pub(crate) fn leadline_tcp(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    // SAFETY: fields of the context.
    let (full, socket) = unsafe { ((*ops).is_fullsock, (*ops).__bindgen_anon_2.sk) };
    if full == 0 || socket.is_null() {
        return 1;
    }
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            // SAFETY: the socket was checked.
            if let Some(state) = unsafe { watch(&ctx, socket) } {
                // SAFETY: storage of the socket.
                unsafe {
                    (*state).connect_started = bpf_ktime_get_ns();
                    // A socket may connect a second time, to another class of peer: its SYN looks up.
                    (*state).generation = 0;
                }
            }
        }
        // SAFETY: the socket was checked, the context is this run's.
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => unsafe { active_established(&ctx, socket) },
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            // SAFETY: the socket was checked.
            if let Some(state) = unsafe { watch(&ctx, socket) } {
                // The slot comes with the first packet that is sent; until then the sample waits here.
                // SAFETY: storage of the socket, a field of the context.
                unsafe {
                    let round_trip = handshake(&ctx);
                    (*state).handshake = HANDSHAKE_PENDING | round_trip;
                    (*state).sampled = if round_trip == 0 { 0 } else { bpf_ktime_get_ns() };
                }
            }
        }
        op
        @ (BPF_SOCK_OPS_RTT_CB | BPF_SOCK_OPS_RETRANS_CB | BPF_SOCK_OPS_RTO_CB | BPF_SOCK_OPS_STATE_CB) => {
            // SAFETY: the socket was checked.
            let state = unsafe { maps::socket_state(socket, None) };
            if !state.is_null() {
                // SAFETY: storage of the socket.
                unsafe { callback(&ctx, op, socket, state) };
            }
        }
        _ => {}
    }
    1
}

/// Turns callbacks on, leaving on what others turned on, and gives the socket storage.
///
/// # Safety
/// `socket` is the non-null socket of the context.
#[inline(always)]
unsafe fn watch(ctx: &SockOpsContext, socket: *mut bpf_sock) -> Option<*mut SocketState> {
    let mut initial = SocketState::default();
    // SAFETY: the caller's promise.
    let state = unsafe { maps::socket_state(socket, Some(&mut initial)) };
    if state.is_null() {
        maps::count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).storage_refused }
        });
        return None;
    }
    if ctx.set_cb_flags((ctx.cb_flags() | older::CALLBACKS).cast_signed()).is_ok() {
        // SAFETY: storage of the socket.
        unsafe { (*state).callbacks = 1 };
    }
    Some(state)
}

/// Round trip of the handshake in microseconds; 0: none. If a part of it was sent again the kernel takes the time from
/// the timestamp option, in whole milliseconds: too coarse to be a round trip.
#[inline(always)]
fn handshake(ctx: &SockOpsContext) -> u32 {
    // SAFETY: fields of the context; a connection begins with the retransmissions of its SYN or SYN-ACK.
    let (retransmits, smoothed) = unsafe { ((*ctx.ops).total_retrans, (*ctx.ops).srtt_us) };
    if retransmits == 0 { smoothed >> 3 } else { 0 }
}

/// Slots of a socket in a callback; `None` before its first packet.
///
/// # Safety
/// `socket` is the non-null socket of the context, `state` its storage.
#[inline(always)]
unsafe fn slots_in_callback(socket: *mut bpf_sock, state: *mut SocketState) -> Option<Slots> {
    let control = maps::control()?;
    // SAFETY: storage and map value; the agent is the only writer of the generation.
    let (current, known) =
        unsafe { (core::ptr::read_volatile(&raw const (*control).generation) as u32, (*state).generation) };
    if known == 0 {
        // SAFETY: a counter of the map value.
        unsafe { atomic::add(&raw mut (*control).tcp_unattributed, 1) };
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe {
        if known == current {
            Some(Slots { own: (*state).slot, port: (*state).port_slot, node: (*state).node })
        } else {
            let class = (*state).class;
            let own = slot::slot_of((*state).cgroup, class, (*state).protocol);
            let port = tcp_port::look_up(socket, class);
            Some(Slots { own, port, node: path_pod::look_up(socket, class) })
        }
    }
}

/// # Safety
/// `socket` is the non-null socket of the context.
#[inline(always)]
unsafe fn active_established(ctx: &SockOpsContext, socket: *mut bpf_sock) {
    // SAFETY: the caller's promise.
    let Some(state) = (unsafe { watch(ctx, socket) }) else { return };
    // SAFETY: the socket and its storage.
    let Some(slots) = (unsafe { slots_in_callback(socket, state) }) else { return };
    let Some(cell) = maps::tcp_cell(slots.own) else { return };
    // SAFETY: storage of the socket, fields of the context, a map value.
    unsafe {
        bump(slots, 1, |cell| &raw mut (*cell).connects);
        let round_trip = handshake(ctx);
        let now = bpf_ktime_get_ns();
        if round_trip != 0 {
            observe_handshake(slots, round_trip, now);
            (*state).sampled = now;
        }
        if (*state).connect_started != 0 {
            let microseconds = (now - (*state).connect_started) / 1_000;
            let limit = u64::from(u32::MAX);
            observe(
                &raw mut (*cell).connect,
                if microseconds > limit { u32::MAX } else { microseconds as u32 },
            );
            (*state).connect_started = 0;
        }
    }
}

/// # Safety
/// `socket` is the non-null socket of the context, `state` its storage.
#[inline(always)]
unsafe fn callback(ctx: &SockOpsContext, op: u32, socket: *mut bpf_sock, state: *mut SocketState) {
    if op == BPF_SOCK_OPS_STATE_CB && ctx.arg(1) != TCP_CLOSE {
        // Only the end is told; an accepted socket becomes established before it has a slot.
        return;
    }
    // SAFETY: the caller's promise.
    let Some(slots) = (unsafe { slots_in_callback(socket, state) }) else { return };
    match op {
        // SAFETY: as above.
        BPF_SOCK_OPS_RTT_CB => unsafe { round_trip(ctx, state, slots) },
        // SAFETY: as above.
        BPF_SOCK_OPS_RETRANS_CB => unsafe { retransmitted(ctx, state, slots) },
        // SAFETY: as above.
        BPF_SOCK_OPS_RTO_CB => bump(slots, 1, |cell| unsafe { &raw mut (*cell).retransmit_timeouts }),
        // SAFETY: as above.
        _ => unsafe { closed(ctx, socket, slots) },
    }
}

/// Counts segments that were sent again, and leaves them to the tracepoint that follows (`path_pod`).
///
/// # Safety
/// `state` is storage of the context's socket.
#[inline(always)]
unsafe fn retransmitted(ctx: &SockOpsContext, state: *mut SocketState, slots: Slots) {
    let segments = ctx.arg(1);
    // SAFETY: a projection into a map value.
    bump(slots, u64::from(segments), |cell| unsafe { &raw mut (*cell).retransmit_segments });
    if slots.node != 0 {
        // SAFETY: storage of the socket. A buffer has 64 KiB at most, or 512 with BIG TCP.
        unsafe {
            (*state).resent_segments = segments as u16;
            (*state).resent_node = slots.node;
        }
    }
}

/// # Safety
/// `state` is storage of the context's socket.
#[inline(always)]
unsafe fn round_trip(ctx: &SockOpsContext, state: *mut SocketState, slots: Slots) {
    let Some(cell) = maps::tcp_cell(slots.own) else { return };
    // SAFETY: a map value, storage of the socket, fields of the context.
    unsafe {
        // args[0] is this sample in microseconds (tcp_rtt_estimator). Older kernels pass no arguments: the smoothed
        // time is the nearest that they tell.
        let sample = ctx.arg(0);
        let smoothed = (*ctx.ops).srtt_us >> 3;
        observe(&raw mut (*cell).ack, if sample == 0 { smoothed } else { sample });
        // The SYN-ACK is acknowledged before the connection counts as established, where the handshake is sampled.
        let now = bpf_ktime_get_ns();
        if (*state).connect_started != 0 || now - (*state).sampled < SAMPLE_INTERVAL {
            return;
        }
        (*state).sampled = now;
        let minimum = (*ctx.ops).rtt_min;
        if minimum != 0 && minimum != u32::MAX {
            observe_round_trip(slots, minimum, now);
        }
    }
}

/// # Safety
/// `socket` is the non-null socket of the context.
#[inline(always)]
unsafe fn closed(ctx: &SockOpsContext, socket: *mut bpf_sock, slots: Slots) {
    let from = ctx.arg(0);
    // SAFETY: the caller's promise.
    let error = unsafe { socket_error(socket) };
    if from == TCP_SYN_SENT {
        let reason = match error {
            Some(ECONNREFUSED) => ConnectFailure::Refused,
            Some(ETIMEDOUT) => ConnectFailure::TimedOut,
            // What the kernel makes of ICMP: icmp_err_convert, and tab_unreach for ICMPv6, where "administratively
            // prohibited" is EACCES. A permission that this end lacks fails before a SYN is sent.
            Some(EHOSTUNREACH | ENETUNREACH | EHOSTDOWN | ENONET | EACCES) => ConnectFailure::Unreachable,
            Some(0) => ConnectFailure::Aborted,
            _ => ConnectFailure::Other,
        };
        // SAFETY: a projection into the map value; reasons index the array by definition.
        bump(slots, 1, |cell| unsafe {
            (&raw mut (*cell).connect_failures).cast::<u64>().add(reason as usize)
        });
        return;
    }
    // Only these two states are an established connection (EstabResets). Once this end has closed, tcp_reset() also
    // runs where this end refuses late data and sends the RST itself (TCPAbortOnData): it would read as received.
    if from != TCP_ESTABLISHED && from != TCP_CLOSE_WAIT {
        return;
    }
    match error {
        // SAFETY: projections into the map value.
        Some(ECONNRESET | EPIPE) => bump(slots, 1, |cell| unsafe { &raw mut (*cell).resets_received }),
        Some(0) => {
            // SAFETY: a projection into the map value.
            bump(slots, 1, |cell| unsafe { &raw mut (*cell).resets_sent });
        }
        _ => {}
    }
}

/// `sk->sk_err`, which the kernel sets before it closes the socket (`tcp_reset`, `tcp_write_err`); `None` without BTF.
///
/// # Safety
/// `socket` is a non-null socket of this run.
#[inline(always)]
unsafe fn socket_error(socket: *mut bpf_sock) -> Option<u32> {
    let offset = OFFSET_SK_ERR.load();
    if offset == NO_OFFSET {
        return None;
    }
    // SAFETY: the caller's promise.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
    if tcp.is_null() {
        return None;
    }
    // SAFETY: a direct load through a BTF pointer: struct tcp_sock begins with its struct sock, and the verifier
    // knows the frozen offset and checks that an int is there.
    #[expect(clippy::cast_ptr_alignment, reason = "BTF says that an int is there, and ints are aligned")]
    Some(unsafe { core::ptr::read_volatile(tcp.cast::<u8>().add(offset as usize).cast::<u32>()) })
}
