//! tcx programs on an overlay device: bytes and packets per peer node, by the inner address.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use probe_common::overlay::{DEVICES_MAX, NODES_MAX};

use crate::maps::{OVERLAY_CELLS, OVERLAY_DEVICES, PREFIXES, SHARD_MASK, count_loss, processor};
use crate::{atomic, packet};

/// `TCX_NEXT`: hand the packet to whoever comes next. Anything else would end the chain.
const NEXT: i32 = -1;

/// What arrives from other nodes.
#[classifier]
pub(crate) fn leadline_ovrx(ctx: TcContext) -> i32 {
    // SAFETY: the pointer is this run's context.
    unsafe { account(ctx.as_ptr().cast(), false) };
    NEXT
}

/// What leaves for other nodes.
#[classifier]
pub(crate) fn leadline_ovtx(ctx: TcContext) -> i32 {
    // SAFETY: the pointer is this run's context.
    unsafe { account(ctx.as_ptr().cast(), true) };
    NEXT
}

/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
unsafe fn account(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: a field of the context; the value is two plain integers.
    let Some(device) = (unsafe { OVERLAY_DEVICES.get((*skb).ifindex) }) else { return };
    let (row, link_header) = (device.row, device.link_header);
    let Some(transport) = packet::transport(skb) else {
        // ARP and the like have no peer node; only what claims to be IP and is not counts as malformed.
        // SAFETY: a field of the context.
        if unsafe { (*skb).protocol } == u32::from(0x0800_u16.to_be()) {
            count_loss(|control| {
                // SAFETY: a projection into the map value.
                unsafe { &raw mut (*control).malformed }
            });
        }
        return;
    };
    let Some(address) = packet::peer_address(skb, transport.ipv6, egress) else { return };
    let node = PREFIXES.get(Key::new(128, address)).map_or(0, |value| u32::from(value.node));
    let index = ((processor() & SHARD_MASK.load()) * DEVICES_MAX + (row & (DEVICES_MAX - 1))) * NODES_MAX
        + (node & (NODES_MAX - 1));
    // SAFETY: the context.
    let size = unsafe { packet::wire_size(skb, link_header, false) };
    if let Some(cell) = OVERLAY_CELLS.get_ptr_mut(index) {
        // SAFETY: a map value.
        unsafe { atomic::count(cell, size, egress) };
    }
}
