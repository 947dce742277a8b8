//! tcx programs on an uplink: copies the rare frames that say who holds an address, and leaves everything else after a
//! few loads.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use probe_common::tap::{FRAME_MAX, TAGGED, TRANSMITTED, TapRecord};

use crate::maps::{FRAMES, count_loss};

/// `TCX_NEXT`: hand the packet to whoever comes next. Anything else would end the chain.
const NEXT: i32 = -1;

const ETHERNET: u32 = 14;
const VLAN: u32 = 4;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;
const IPPROTO_AH: u8 = 51;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_VRRP: u8 = 112;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Received frames.
#[classifier]
pub(crate) fn leadline_taprx(ctx: TcContext) -> i32 {
    // SAFETY: the pointer is this run's context.
    unsafe { watch(ctx.as_ptr().cast(), false) };
    NEXT
}

/// Sent frames.
#[classifier]
pub(crate) fn leadline_taptx(ctx: TcContext) -> i32 {
    // SAFETY: the pointer is this run's context.
    unsafe { watch(ctx.as_ptr().cast(), true) };
    NEXT
}

/// Loads `N` bytes of the frame.
#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: `bytes` has N bytes; the helper checks the offset against the packet.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(bytes)
}

/// Leaves what nearly every packet is after a few loads, without a call and so without saving registers for one.
///
/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
unsafe fn watch(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: fields of the context.
    let (protocol, start, end) =
        unsafe { ((*skb).protocol as u16, (*skb).data as usize, (*skb).data_end as usize) };
    // An IP header in the linear part names what it carries; anything else needs a closer look.
    if start + 24 <= end {
        // SAFETY: 24 bytes from `start` are inside the packet.
        let (ipv4, ipv6) = unsafe { (*((start + 23) as *const u8), *((start + 20) as *const u8)) };
        let is_ordinary = if protocol == IPV4.to_be() {
            ipv4 != IPPROTO_VRRP && ipv4 != IPPROTO_AH
        } else {
            protocol == IPV6.to_be() && ipv6 != IPPROTO_VRRP && ipv6 != IPPROTO_ICMPV6
        };
        if is_ordinary {
            return;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { inspect(skb, egress) };
}

/// # Safety
/// `skb` is the context of this program run.
#[inline(never)]
unsafe fn inspect(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: a field of the context.
    let protocol = unsafe { (*skb).protocol as u16 };
    if is_wanted(skb, u16::from_be(protocol)) {
        // SAFETY: the caller's promise.
        unsafe { copy(skb, egress) };
    }
}

/// Whether a frame is one of those that are copied.
#[inline(always)]
fn is_wanted(skb: *mut __sk_buff, protocol: u16) -> bool {
    let (mut protocol, mut offset) = (protocol, ETHERNET);
    for _ in 0..2 {
        if protocol == DOT1Q || protocol == DOT1AD {
            let Some(tag) = load::<4>(skb, offset) else { return false };
            protocol = u16::from_be_bytes([tag[2], tag[3]]);
            offset += VLAN;
        }
    }
    match protocol {
        ARP => true,
        IPV4 => load::<1>(skb, offset + 9).is_some_and(|[inner]| {
            // The header of AH names what it protects (RFC 4302); IPv4 options are no business of VRRP.
            inner == IPPROTO_VRRP
                || inner == IPPROTO_AH && load::<1>(skb, offset + 20) == Some([IPPROTO_VRRP])
        }),
        IPV6 => load::<1>(skb, offset + 6).is_some_and(|[inner]| {
            inner == IPPROTO_VRRP
                || inner == IPPROTO_ICMPV6 && load::<1>(skb, offset + 40) == Some([NEIGHBOUR_ADVERTISEMENT])
        }),
        _ => false,
    }
}

/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
unsafe fn copy(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: fields of the context.
    let (length, device, present, tag) =
        unsafe { ((*skb).len, (*skb).ifindex, (*skb).vlan_present, (*skb).vlan_tci) };
    let Some(mut entry) = FRAMES.reserve::<TapRecord>(0) else {
        count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).frames_lost }
        });
        return;
    };
    let captured = if length < FRAME_MAX as u32 { length } else { FRAME_MAX as u32 };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is ours until it is submitted or discarded; every field is written, and of the frame
    // the part that `captured` names.
    let copied = unsafe {
        (*record).time = bpf_ktime_get_ns();
        (*record).device = device;
        (*record).flags = u32::from(egress) * TRANSMITTED + u32::from(present != 0) * TAGGED;
        (*record).vlan = tag;
        (*record).length = length;
        (*record).captured = captured;
        (*record).padding = 0;
        // The verifier wants to see both bounds.
        captured > 0
            && captured <= FRAME_MAX as u32
            && bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*record).frame).cast(), captured) == 0
    };
    if copied { entry.submit(0) } else { entry.discard(0) }
}
