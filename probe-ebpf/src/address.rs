//! Addresses of a socket, IPv4 mapped into IPv6.

use aya_ebpf::bindings::bpf_sock;

const AF_INET: u32 = 2;

/// That of its peer.
///
/// # Safety
/// `socket` is a non-null socket pointer of this program run.
#[inline(always)]
pub(crate) unsafe fn of_peer(socket: *mut bpf_sock) -> [u8; 16] {
    // SAFETY: the caller's promise.
    unsafe { read(socket, &raw const (*socket).dst_ip4, &raw const (*socket).dst_ip6) }
}

/// Its own one.
///
/// # Safety
/// As above.
#[inline(always)]
pub(crate) unsafe fn of_self(socket: *mut bpf_sock) -> [u8; 16] {
    // SAFETY: the caller's promise.
    unsafe { read(socket, &raw const (*socket).src_ip4, &raw const (*socket).src_ip6) }
}

/// # Safety
/// As above; the addresses are fields of the socket.
#[inline(always)]
unsafe fn read(socket: *mut bpf_sock, ipv4: *const u32, ipv6: *const [u32; 4]) -> [u8; 16] {
    // All of them are read, one by one, whatever the family: the verifier takes no address that is computed.
    // SAFETY: the caller's promise; the words are in network order.
    let (family, ipv4, ipv6) = unsafe {
        let read = |word: *const u32| core::ptr::read_volatile(word);
        let ipv6 = ipv6.cast::<u32>();
        let ipv6 = [read(ipv6), read(ipv6.add(1)), read(ipv6.add(2)), read(ipv6.add(3))];
        (read(&raw const (*socket).family), read(ipv4), ipv6)
    };
    let words = if family == AF_INET { [0, 0, 0xffff_u32.to_be(), ipv4] } else { ipv6 };
    // SAFETY: any bytes are an address.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}
