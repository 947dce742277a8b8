//! tcx programs on an uplink: copies the rare frames that say who holds an address, those by which tunnels are kept up and
//! those by which routers refuse packets that are too big, notes who serves the watched addresses, and leaves everything
//! else after a few loads.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use probe_common::tap::{FRAME_MAX, TAGGED, TRANSMITTED, TapRecord};

use crate::frame::load;
use crate::maps::{FRAMES, WATCHED, count_loss};
use crate::{served, too_big, tunnel};

/// `TCX_NEXT`: hand the packet to whoever comes next. Anything else would end the chain.
const NEXT: i32 = -1;

const ETHERNET: u32 = 14;
const VLAN: u32 = 4;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_AH: u8 = 51;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_VRRP: u8 = 112;
const PACKET_TOO_BIG: u8 = 2;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Ethernet or IEEE 802, IPv4, addresses of 6 and 4 bytes, and a request (RFC 826).
const QUESTIONS: [[u8; 8]; 2] = [[0, 1, 8, 0, 6, 4, 0, 1], [0, 6, 8, 0, 6, 4, 0, 1]];

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

/// Leaves what nearly every packet is after a few loads, without a call and so without saving registers for one.
///
/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
unsafe fn watch(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: fields of the context.
    let (protocol, start, end) =
        unsafe { ((*skb).protocol as u16, (*skb).data as usize, (*skb).data_end as usize) };
    // An IP header in the linear part names what it carries and who sends it; anything else needs a closer look.
    if start + 38 <= end {
        let byte = |at: usize| {
            // SAFETY: the first 38 bytes from `start` are inside the packet.
            unsafe { *((start + at) as *const u8) }
        };
        let is_ipv4 = protocol == IPV4.to_be();
        let (is_ordinary, inner, sender) = if is_ipv4 {
            let inner = byte(23);
            (inner != IPPROTO_VRRP && inner != IPPROTO_AH, inner, byte(29))
        } else {
            let inner = byte(20);
            let is_ordinary = inner != IPPROTO_VRRP && inner != IPPROTO_ICMPV6;
            (is_ordinary && protocol == IPV6.to_be(), inner, byte(37))
        };
        if is_ordinary {
            if inner == IPPROTO_UDP {
                if tunnel::may_be_one(start, end, is_ipv4) {
                    // SAFETY: the caller's promise.
                    unsafe { tunnel::note(skb, egress) };
                }
            } else if !egress && is_ipv4 && inner == IPPROTO_ICMP {
                // SAFETY: the caller's promise.
                unsafe { too_big::note(skb) };
            }
            if is_watched(sender) {
                // SAFETY: the caller's promise.
                unsafe { served::note(skb, egress) };
            }
            return;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { inspect(skb, egress) };
}

/// Whether a watched address ends in this byte.
#[inline(always)]
fn is_watched(last: u8) -> bool {
    // SAFETY: within the four words, whatever the byte; the agent replaces the words while this runs, and an old one
    // only means one packet more or less.
    let word = unsafe { core::ptr::read_volatile(&raw const WATCHED.filter[usize::from(last >> 6)]) };
    word >> (last & 63) & 1 == 1
}

/// # Safety
/// `skb` is the context of this program run.
#[inline(never)]
unsafe fn inspect(skb: *mut __sk_buff, egress: bool) {
    // SAFETY: a field of the context.
    let protocol = unsafe { (*skb).protocol as u16 };
    let Some(wanted) = wanted(skb, u16::from_be(protocol)) else { return };
    // SAFETY: the caller's promise.
    unsafe {
        if wanted == Wanted::Refusal {
            if !egress {
                too_big::note(skb);
            }
            return;
        }
        served::announced(skb, wanted == Wanted::Advertisement);
        copy(skb, egress);
    }
}

/// What a frame is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Somebody says that it has an address.
    Announcement,
    /// A router of VRRP does.
    Advertisement,
    /// It may be a router's word of a packet that was too big.
    Refusal,
}

/// `None` of a frame that is of no use.
#[inline(always)]
fn wanted(skb: *mut __sk_buff, protocol: u16) -> Option<Wanted> {
    let (mut protocol, mut offset) = (protocol, ETHERNET);
    for _ in 0..2 {
        if protocol == DOT1Q || protocol == DOT1AD {
            let tag = load::<4>(skb, offset)?;
            protocol = u16::from_be_bytes([tag[2], tag[3]]);
            offset += VLAN;
        }
    }
    match protocol {
        ARP => (!is_question(skb, offset)).then_some(Wanted::Announcement),
        IPV4 => {
            let [inner] = load::<1>(skb, offset + 9)?;
            if inner == IPPROTO_ICMP {
                return (offset == ETHERNET).then_some(Wanted::Refusal);
            }
            // The header of AH names what it protects (RFC 4302); IPv4 options are no business of VRRP.
            let is_vrrp = inner == IPPROTO_VRRP
                || inner == IPPROTO_AH && load::<1>(skb, offset + 20) == Some([IPPROTO_VRRP]);
            is_vrrp.then_some(Wanted::Advertisement)
        }
        IPV6 => {
            let [inner] = load::<1>(skb, offset + 6)?;
            if inner == IPPROTO_ICMPV6 {
                return match load::<1>(skb, offset + 40)? {
                    [NEIGHBOUR_ADVERTISEMENT] => Some(Wanted::Announcement),
                    [PACKET_TOO_BIG] if offset == ETHERNET => Some(Wanted::Refusal),
                    _ => None,
                };
            }
            (inner == IPPROTO_VRRP).then_some(Wanted::Advertisement)
        }
        _ => None,
    }
}

/// Whether this is an ordinary ARP request, of which a large link has many and which say nothing of who owns what.
/// What breaks the rules is no question: it is counted.
#[inline(always)]
fn is_question(skb: *mut __sk_buff, offset: u32) -> bool {
    let (Some(header), Some([sender, target])) = (load::<8>(skb, offset), addresses(skb, offset)) else {
        return false;
    };
    QUESTIONS.contains(&header) && sender != target
}

/// Sender and target of an ARP packet for IPv4.
#[inline(always)]
fn addresses(skb: *mut __sk_buff, offset: u32) -> Option<[u32; 2]> {
    let sender = load::<4>(skb, offset + 14)?;
    let target = load::<4>(skb, offset + 24)?;
    Some([u32::from_ne_bytes(sender), u32::from_ne_bytes(target)])
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
        // The verifier wants to see both bounds, and before Linux 6.8 it learns nothing from "not 0". An Ethernet device
        // has no shorter frames.
        captured >= ETHERNET
            && captured <= FRAME_MAX as u32
            && bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*record).frame).cast(), captured) == 0
    };
    if copied { entry.submit(0) } else { entry.discard(0) }
}
