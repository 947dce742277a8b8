//! Bytes of a frame, wherever they lie.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;

/// Loads `N` bytes of the frame.
#[inline(always)]
pub(crate) fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: `bytes` has N bytes; the helper checks the offset against the packet.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(bytes)
}
