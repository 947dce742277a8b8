//! `cgroup_skb` at the root of cgroup v2: every packet of every local socket, once per end.
//!
//! A connected socket costs one storage look-up and one inlined array look-up per packet. Packets that are merely
//! forwarded have no socket here and are counted by the ends that own them.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use probe_common::traffic::{Protocol, SocketState};

use crate::tcp::Slots;
use crate::{atomic, maps, packet, slot, tcp, tcp_port};

/// Let the packet pass: an observer never says anything else.
const ALLOW: i32 = 1;

/// Received packets.
#[cgroup_skb(ingress)]
pub(crate) fn leadline_rx(ctx: SkBuffContext) -> i32 {
    // SAFETY: the pointer is this run's context.
    unsafe { account(ctx.as_ptr().cast(), false) };
    ALLOW
}

/// Sent packets.
#[cgroup_skb(egress)]
pub(crate) fn leadline_tx(ctx: SkBuffContext) -> i32 {
    // SAFETY: the pointer is this run's context.
    unsafe { account(ctx.as_ptr().cast(), true) };
    ALLOW
}

/// Counts one skb.
///
/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
unsafe fn account(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: a field of the context.
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    let Some(control) = maps::control() else { return };
    // SAFETY: a map value; the agent is its only writer.
    let generation = unsafe { core::ptr::read_volatile(&raw const (*control).generation) } as u32;
    // SAFETY: checked not to be null.
    let mut state = unsafe { maps::socket_state(socket, None) };
    // SAFETY: `state` is storage of `socket`, or null.
    let current = !state.is_null() && unsafe { is_current(state, socket, generation) };
    let slot = if current {
        // SAFETY: checked not to be null.
        unsafe { (*state).slot }
    } else {
        // SAFETY: as the function asks.
        let slot = unsafe { slot::look_up(skb, socket, state, egress) };
        if egress {
            // Not in there: together they would need more stack than Linux 6.1 allows.
            // SAFETY: checked not to be null.
            state = unsafe { tcp_port::decide(socket, state) };
        }
        slot
    };
    if slot == slot::NONE {
        return;
    }
    // SAFETY: the context.
    let size = unsafe { packet::wire_size(skb, 0, true) };
    if let Some(cell) = maps::cell(slot) {
        // SAFETY: a map value.
        unsafe { atomic::count(cell, size, egress) };
    }
    if egress && !state.is_null() {
        // SAFETY: storage of the socket.
        let (protocol, callbacks, handshake, port_slot) =
            unsafe { ((*state).protocol, (*state).callbacks, (*state).handshake, (*state).port_slot) };
        if port_slot != 0 {
            tcp_port::transmitted(port_slot, size.packets);
        }
        if protocol == Protocol::Tcp.number() && (callbacks == 0 || handshake != 0) {
            // SAFETY: non-null socket and its storage.
            unsafe {
                let slots = Slots { own: slot, port: port_slot, node: (*state).node };
                tcp::sample_connection(socket, state, slots);
            }
        }
    }
}

/// Whether the slot remembered with a socket still holds.
///
/// # Safety
/// `state` is non-null storage of the non-null `socket`.
#[inline(always)]
unsafe fn is_current(state: *mut SocketState, socket: *mut bpf_sock, generation: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        (*state).generation == generation
            && ((*state).protocol != Protocol::Udp.number() || (*state).peer == slot::peer_word(socket))
    }
}
