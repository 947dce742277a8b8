//! Who serves a watched address: one look-up for each packet that it sends, and a record only where another station
//! sends than before, where nobody had sent for a while, and for the first packet after an announcement. What a failover
//! cost is between two such packets.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use probe_common::served::{ServedRecord, Server, TRANSMITTED};

use crate::frame::load;
use crate::maps::{SERVED, SERVERS, WATCHED, count_loss};

/// A pause that is told of, in nanoseconds: more than the spacing of the agents' own questions during a failover.
const PAUSE: u64 = 25_000_000;

const ETHERNET: u32 = 14;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const ECHO_REPLY: u8 = 0;
const RST: u8 = 0x04;

/// Takes note of a packet whose sender may be a watched address.
///
/// # Safety
/// `skb` is the context of this program run.
#[inline(never)]
pub(crate) unsafe fn note(skb: *mut __sk_buff, egress: bool) {
    let Some(first) = load::<1>(skb, ETHERNET) else { return };
    let read = if first[0] >> 4 == 4 { ipv4(skb, first[0]) } else { ipv6(skb) };
    let Some((address, protocol, payload)) = read else { return };
    let Some(server) = SERVERS.get_ptr_mut(address) else { return };
    if !serves(skb, protocol, payload) {
        return;
    }
    let Some(mac) = load::<6>(skb, 6) else { return };
    // SAFETY: a pointer into the map's value. Two processors at once may both see a change: two records of one change
    // are harmless.
    let before = unsafe { core::ptr::read(server) };
    // SAFETY: takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let is_other = before.mac != mac || before.transmitted != u8::from(egress) || before.last == 0;
    // SAFETY: a word that other runs replace meanwhile; one that is just too old only costs a record.
    let announced = unsafe { core::ptr::read_volatile(&raw const WATCHED.announced) };
    if is_other || now - before.last > PAUSE || before.last < announced {
        // SAFETY: a field of the context.
        let device = unsafe { (*skb).ifindex };
        let (flags, previous) = (u32::from(egress) * TRANSMITTED, before.last);
        let record = ServedRecord { time: now, previous, address, mac, padding: 0, device, flags };
        match SERVED.reserve::<ServedRecord>(0) {
            Some(mut entry) => {
                entry.write(record);
                entry.submit(0);
            }
            None => count_loss(|control| {
                // SAFETY: a projection into the map value.
                unsafe { &raw mut (*control).served_lost }
            }),
        }
    }
    let after = Server { last: now, mac, transmitted: u8::from(egress), padding: 0 };
    // SAFETY: as above.
    unsafe { core::ptr::write(server, after) };
}

/// Takes note of a frame by which an address may have moved: an announcement, or an advertisement of another station than
/// the one before. Whoever serves next may be the station that served last, and is told of all the same.
///
/// # Safety
/// `skb` is the context of this program run.
#[inline(always)]
pub(crate) unsafe fn announced(skb: *mut __sk_buff, is_advertisement: bool) {
    let Some(mac) = load::<6>(skb, 6) else { return };
    let station = u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]);
    // SAFETY: words that other runs replace meanwhile: of two moves in one moment both are announced.
    unsafe {
        let is_same = core::ptr::read_volatile(&raw const WATCHED.advertiser) == station;
        if is_advertisement && is_same {
            return;
        }
        if is_advertisement {
            core::ptr::write_volatile(&raw mut WATCHED.advertiser, station);
        }
        core::ptr::write_volatile(&raw mut WATCHED.announced, bpf_ktime_get_ns());
    }
}

/// Sender as an IPv6 address, protocol, and where the payload begins; nothing of a later fragment.
#[inline(always)]
fn ipv4(skb: *mut __sk_buff, first: u8) -> Option<([u8; 16], u8, u32)> {
    let fragment = load::<2>(skb, ETHERNET + 6)?;
    if u16::from_be_bytes(fragment) & 0x1fff != 0 {
        return None;
    }
    let [protocol] = load::<1>(skb, ETHERNET + 9)?;
    let sender = load::<4>(skb, ETHERNET + 12)?;
    let mut address = [0; 16];
    address[10] = 0xff;
    address[11] = 0xff;
    address[12] = sender[0];
    address[13] = sender[1];
    address[14] = sender[2];
    address[15] = sender[3];
    let header = u32::from(first & 0x0f) * 4;
    (header >= IPV4_HEADER).then_some((address, protocol, ETHERNET + header))
}

#[inline(always)]
fn ipv6(skb: *mut __sk_buff) -> Option<([u8; 16], u8, u32)> {
    let [protocol] = load::<1>(skb, ETHERNET + 6)?;
    let address = load::<16>(skb, ETHERNET + 8)?;
    Some((address, protocol, ETHERNET + IPV6_HEADER))
}

/// Whether the packet is service: data, an answer to a connection or to a ping. A reset is what a station sends that has
/// the address and not the service.
#[inline(always)]
fn serves(skb: *mut __sk_buff, protocol: u8, payload: u32) -> bool {
    match protocol {
        IPPROTO_TCP => load::<1>(skb, payload + 13).is_some_and(|[flags]| flags & RST == 0),
        IPPROTO_ICMP => load::<1>(skb, payload) == Some([ECHO_REPLY]),
        IPPROTO_UDP => true,
        _ => false,
    }
}
