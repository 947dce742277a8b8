//! What the wire sees of an skb: number of packets and bytes after segmentation, addresses and protocol. All reads go
//! through `bpf_skb_load_bytes_relative` from the network header, so that they work in tc and cgroup programs alike.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET};
use aya_ebpf::helpers::generated::bpf_skb_load_bytes_relative;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_UDPLITE: u8 = 136;
/// IPv6 extension headers followed at most; more than any stack sends.
const EXTENSIONS_MAX: usize = 4;

/// Packets and layer 3 bytes on the wire.
#[derive(Clone, Copy)]
pub(crate) struct WireSize {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// Where the transport header is and which one it is.
#[derive(Clone, Copy)]
pub(crate) struct Transport {
    pub(crate) protocol: u8,
    /// From the network header.
    pub(crate) offset: u32,
    pub(crate) ipv6: bool,
}

/// Loads `N` bytes at `offset` from the network header.
#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    // Not zeroed first: that would be a call of memset, and the helper writes all of it, also when it fails.
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    let target = bytes.as_mut_ptr().cast();
    // SAFETY: `bytes` has N bytes; the helper checks the offset against the packet.
    let result =
        unsafe { bpf_skb_load_bytes_relative(skb.cast(), offset, target, N as u32, BPF_HDR_START_NET) };
    // SAFETY: written by the helper.
    (result == 0).then(|| unsafe { bytes.assume_init() })
}

/// Finds the transport header. `None`: the packet is too short, or is not IP.
#[inline(always)]
pub(crate) fn transport(skb: *mut __sk_buff) -> Option<Transport> {
    let head: [u8; 10] = load(skb, 0)?;
    match head[0] >> 4 {
        4 => Some(Transport { protocol: head[9], offset: u32::from(head[0] & 15) * 4, ipv6: false }),
        6 => extensions(skb, head[6]),
        _ => None,
    }
}

#[inline(always)]
fn extensions(skb: *mut __sk_buff, first: u8) -> Option<Transport> {
    let (mut protocol, mut offset) = (first, 40u32);
    for _ in 0..EXTENSIONS_MAX {
        let length = match protocol {
            // Hop-by-hop options, routing, destination options (RFC 8200 section 4).
            0 | 43 | 60 => {
                let next: [u8; 2] = load(skb, offset)?;
                protocol = next[0];
                (u32::from(next[1]) + 1) * 8
            }
            44 => {
                let next: [u8; 2] = load(skb, offset)?;
                protocol = next[0];
                8
            }
            _ => break,
        };
        offset += length;
    }
    Some(Transport { protocol, offset, ipv6: true })
}

/// Bytes of the headers that every segment of a GSO packet repeats, read from the linear part of a packet that begins
/// with its network header, as in `cgroup_skb`: a bulk transfer comes here for each packet, and calls cost more than
/// the rest of the program. `None`: something unusual, ask [`header_length`].
#[inline(always)]
unsafe fn linear_header_length(skb: *mut __sk_buff) -> Option<u32> {
    // SAFETY: fields of the context.
    let (start, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if start + 40 > end {
        return None;
    }
    // SAFETY: 40 bytes from `start` are inside the packet.
    let (first, ipv4_protocol, ipv6_next) =
        unsafe { (*(start as *const u8), *((start + 9) as *const u8), *((start + 6) as *const u8)) };
    let (protocol, offset) = match first >> 4 {
        4 => (ipv4_protocol, usize::from(first & 15) * 4),
        6 => (ipv6_next, 40),
        _ => return None,
    };
    if protocol != IPPROTO_TCP {
        return None;
    }
    let header = start + offset;
    if header + 13 > end {
        return None;
    }
    // SAFETY: checked against the end of the packet.
    let data_offset = unsafe { *((header + 12) as *const u8) };
    Some(offset as u32 + u32::from(data_offset >> 4) * 4)
}

/// Bytes of the headers that every segment of a GSO packet repeats.
#[inline(never)]
fn header_length(skb: *mut __sk_buff) -> u32 {
    let Some(transport) = transport(skb) else { return 0 };
    match transport.protocol {
        IPPROTO_TCP => match load::<1>(skb, transport.offset + 12) {
            Some(data_offset) => transport.offset + u32::from(data_offset[0] >> 4) * 4,
            None => 0,
        },
        IPPROTO_UDP | IPPROTO_UDPLITE => transport.offset + 8,
        _ => transport.offset,
    }
}

/// Size on the wire of an skb whose network header starts after `link_header` bytes of its length. `linear`: the
/// packet's data begin with the network header.
///
/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
pub(crate) unsafe fn wire_size(skb: *mut __sk_buff, link_header: u32, linear: bool) -> WireSize {
    // SAFETY: the caller's promise; these are fields of the program's context.
    let (length, gso_size, gso_segs) = unsafe { ((*skb).len, (*skb).gso_size, (*skb).gso_segs) };
    let length = u64::from(length.saturating_sub(link_header));
    if gso_size == 0 {
        return WireSize { packets: 1, bytes: length };
    }
    // SAFETY: the caller's promise.
    let known = if linear { unsafe { linear_header_length(skb) } } else { None };
    let header = u64::from(match known {
        Some(length) => length,
        None => header_length(skb),
    });
    let packets = if gso_segs != 0 {
        u64::from(gso_segs)
    } else {
        // From TUN and virtio: the sender gave a size and left the counting to whoever segments.
        let payload = length.saturating_sub(header);
        (payload + u64::from(gso_size) - 1).checked_div(u64::from(gso_size)).unwrap_or(1)
    };
    let packets = if packets == 0 { 1 } else { packets };
    WireSize { packets, bytes: length + (packets - 1) * header }
}

/// Address of the peer, IPv4 mapped into IPv6: the destination of what is sent, the source of what is received.
#[inline(always)]
pub(crate) fn peer_address(skb: *mut __sk_buff, ipv6: bool, egress: bool) -> Option<[u8; 16]> {
    if ipv6 {
        return load(skb, if egress { 24 } else { 8 });
    }
    let [a, b, c, d] = load::<4>(skb, if egress { 16 } else { 12 })?;
    Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
}

/// Whether this is neighbour discovery or multicast listener discovery (RFC 4861, 2710, 3810), which the kernel sends
/// by itself.
#[inline(always)]
pub(crate) fn is_neighbour_control(skb: *mut __sk_buff, transport: Transport) -> bool {
    const ICMPV6: u8 = 58;
    transport.protocol == ICMPV6
        && load::<1>(skb, transport.offset).is_some_and(|[kind]| matches!(kind, 130..=137 | 143))
}

/// Identifier of an echo request that is sent or of an echo reply that is received (RFC 792, RFC 4443).
#[inline(always)]
pub(crate) fn echo_identifier(skb: *mut __sk_buff, transport: Transport, egress: bool) -> Option<u16> {
    let (request, reply) = match transport.protocol {
        1 => (8, 0),
        58 => (128, 129),
        _ => return None,
    };
    let header: [u8; 6] = load(skb, transport.offset)?;
    (header[0] == if egress { request } else { reply }).then_some(u16::from_be_bytes([header[4], header[5]]))
}
