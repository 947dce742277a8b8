//! Messages of routers that a packet of this node was too big for them: ICMP "fragmentation needed" and ICMPv6 "packet too
//! big", as they come in by an uplink. Other packets of ICMP are left after their type.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use probe_common::too_big::{PACKET_MAX, TooBigRecord};

use crate::frame::load;
use crate::maps::{TOO_BIG, count_loss};

const ETHERNET: u32 = 14;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
/// `PACKET_HOST` of `linux/if_packet.h`: for this device. IP drops what is for another station (`ip_rcv_core`).
const PACKET_HOST: u32 = 0;
/// The first bytes of a virtual router's MAC address (RFC 9568, 7.3): its device lies over this one and has no tap.
const VIRTUAL_ROUTER: [u8; 4] = [0x00, 0x00, 0x5e, 0x00];
/// Destination unreachable, fragmentation needed (RFC 792).
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// Packet too big (RFC 4443); receivers ignore the code.
const PACKET_TOO_BIG: u8 = 2;

/// Copies a received packet of ICMP or ICMPv6 without extension headers, if it is such a message.
///
/// # Safety
/// `skb` is the context of this program run.
#[inline(never)]
pub(crate) unsafe fn note(skb: *mut __sk_buff) {
    // SAFETY: fields of the context.
    let (kind, tag) = unsafe { ((*skb).pkt_type, (*skb).vlan_present) };
    // What has a tag is seen on the device of its VLAN as well.
    if tag == 0 && is_one(skb) == Some(true) && (kind == PACKET_HOST || load(skb, 0) == Some(VIRTUAL_ROUTER))
    {
        // SAFETY: the caller's promise.
        unsafe { copy(skb) };
    }
}

#[inline(always)]
fn is_one(skb: *mut __sk_buff) -> Option<bool> {
    let [first] = load::<1>(skb, ETHERNET)?;
    if first >> 4 != 4 {
        return Some(load::<1>(skb, ETHERNET + IPV6_HEADER)? == [PACKET_TOO_BIG]);
    }
    // Linux sends options back that the packet had.
    let header = u32::from(first & 0x0f) * 4;
    let fragment = u16::from_be_bytes(load::<2>(skb, ETHERNET + 6)?);
    let is_beginning = header >= IPV4_HEADER && fragment << 3 == 0;
    Some(is_beginning && load::<2>(skb, ETHERNET + header)? == FRAGMENTATION_NEEDED)
}

/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
unsafe fn copy(skb: *mut __sk_buff) {
    // SAFETY: fields of the context.
    let (device, length) = unsafe { ((*skb).ifindex, (*skb).len.saturating_sub(ETHERNET)) };
    let Some(mut entry) = TOO_BIG.reserve::<TooBigRecord>(0) else {
        count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).too_big_lost }
        });
        return;
    };
    let captured = if length < PACKET_MAX as u32 { length } else { PACKET_MAX as u32 };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is ours until it is submitted or discarded; every field is written, and of the packet
    // the part that `captured` names.
    let copied = unsafe {
        (*record).time = bpf_ktime_get_ns();
        (*record).device = device;
        (*record).length = length;
        (*record).captured = captured;
        (*record).padding = 0;
        // Both bounds are for the verifier: what was read above is not shorter.
        captured >= IPV4_HEADER
            && captured <= PACKET_MAX as u32
            && bpf_skb_load_bytes(skb.cast(), ETHERNET, (&raw mut (*record).packet).cast(), captured) == 0
    };
    if copied { entry.submit(0) } else { entry.discard(0) }
}
