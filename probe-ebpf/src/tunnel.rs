//! Packets by which the ends of a tunnel find and greet each other: Tailscale's disco, and the handshake of `WireGuard`,
//! bare or inside the Geneve header of a peer relay. They are known by their first bytes, on whatever port; data of a
//! tunnel is left after four of them.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use probe_common::tunnel::{PACKET_MAX, TRANSMITTED, TunnelRecord};

use crate::frame::load;
use crate::maps::{TUNNEL_PACKETS, count_loss};

const ETHERNET: u32 = 14;
/// Where the payload of UDP begins behind an IPv4 header without options.
const PAYLOAD4: usize = 42;
/// The same behind an IPv6 header.
const PAYLOAD6: usize = 62;
const UDP_HEADER: u32 = 8;
const GENEVE_HEADER: u32 = 8;

/// The first four bytes of disco, "TS" and a part of a speech bubble.
const DISCO: u32 = u32::from_be_bytes([0x54, 0x53, 0xf0, 0x9f]);
/// Initiation and response of `WireGuard`'s handshake: the type, and three zeros.
const HANDSHAKE: [u32; 2] = [u32::from_be_bytes([1, 0, 0, 0]), u32::from_be_bytes([2, 0, 0, 0])];
/// Geneve without options, with or without the bit of a control packet, and the protocols that Tailscale carries in it.
const GENEVE: u32 = u32::from_be_bytes([0x00, 0x00, 0x7a, 0x11]);
const GENEVE_ANY: u32 = u32::from_be_bytes([0x00, 0x80, 0x00, 0x03]);

/// Whether the payload's first bytes may be those of such a packet. Where they are not in the linear part the packet
/// needs a closer look.
#[inline(always)]
pub(crate) fn may_be_one(start: usize, end: usize, is_ipv4: bool) -> bool {
    let word = if is_ipv4 { word::<PAYLOAD4>(start, end) } else { word::<PAYLOAD6>(start, end) };
    word.is_none_or(|word| is_greeting(word) || is_relayed(word))
}

#[inline(always)]
fn word<const AT: usize>(start: usize, end: usize) -> Option<u32> {
    if start + AT + 4 > end {
        return None;
    }
    let byte = |at: usize| {
        // SAFETY: the four bytes are inside the packet by the comparison above.
        unsafe { *((start + AT + at) as *const u8) }
    };
    Some(u32::from_be_bytes([byte(0), byte(1), byte(2), byte(3)]))
}

#[inline(always)]
fn is_greeting(word: u32) -> bool {
    word == DISCO || HANDSHAKE.contains(&word)
}

#[inline(always)]
fn is_relayed(word: u32) -> bool {
    let protocol = word & 3;
    word & !GENEVE_ANY == GENEVE & !GENEVE_ANY && (protocol == 1 || protocol == 2)
}

/// Copies the packet if it is one of these.
///
/// # Safety
/// `skb` is the context of this program run.
#[inline(never)]
pub(crate) unsafe fn note(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: a field of the context.
    if unsafe { (*skb).vlan_present } != 0 {
        // It is seen on the device of its VLAN as well.
        return;
    }
    let Some(payload) = payload(skb) else { return };
    let Some(first) = load::<4>(skb, payload) else { return };
    let first = u32::from_be_bytes(first);
    let is_wanted = is_greeting(first)
        || is_relayed(first)
            && load::<4>(skb, payload + GENEVE_HEADER)
                .is_some_and(|inner| is_greeting(u32::from_be_bytes(inner)));
    if is_wanted {
        // SAFETY: the caller's promise.
        unsafe { copy(skb, egress) };
    }
}

/// Where the payload of UDP begins; none behind options, and in fragments but the first.
#[inline(always)]
fn payload(skb: *mut __sk_buff) -> Option<u32> {
    let [first] = load::<1>(skb, ETHERNET)?;
    if first == 0x45 {
        let fragment = u16::from_be_bytes(load::<2>(skb, ETHERNET + 6)?);
        return (fragment << 3 == 0).then_some(ETHERNET + 20 + UDP_HEADER);
    }
    (first >> 4 == 6).then_some(ETHERNET + 40 + UDP_HEADER)
}

/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
unsafe fn copy(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: a field of the context.
    let device = unsafe { (*skb).ifindex };
    let Some(mut entry) = TUNNEL_PACKETS.reserve::<TunnelRecord>(0) else {
        count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).tunnel_lost }
        });
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is ours until it is submitted or discarded; every field is written. What is
    // shorter than the bytes that are copied is none of these packets.
    let copied = unsafe {
        (*record).time = bpf_ktime_get_ns();
        (*record).device = device;
        (*record).flags = u32::from(egress) * TRANSMITTED;
        let packet = (&raw mut (*record).packet).cast();
        bpf_skb_load_bytes(skb.cast(), ETHERNET, packet, PACKET_MAX as u32) == 0
    };
    if copied { entry.submit(0) } else { entry.discard(0) }
}
