//! Connections that are older than the agent: an iterator over the TCP sockets of the agent's network namespace (the
//! host's) turns their callbacks on. Those in the pods' namespaces are out of its reach and are sampled instead.

use aya_ebpf::Global;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_RTT_CB_FLAG,
    BPF_SOCK_OPS_STATE_CB_FLAG,
};
use aya_ebpf::cty::{c_int, c_void};
use aya_ebpf::helpers::generated::{bpf_getsockopt, bpf_setsockopt, bpf_skc_to_tcp_sock};
use probe_common::traffic::SocketState;

use crate::maps;

const SOL_TCP: c_int = 6;
/// `enum` of include/uapi/linux/bpf.h, since Linux 6.12.
const TCP_BPF_SOCK_OPS_CB_FLAGS: c_int = 1008;
const FLAGS_SIZE: c_int = 4;

/// `enum tcp_state`: established, and what follows while data can still be on its way. A listener hands its flags
/// down to what it accepts, where they would come before the handshake is counted.
const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Callbacks of a connection.
pub(super) const CALLBACKS: u32 = BPF_SOCK_OPS_RTO_CB_FLAG
    | BPF_SOCK_OPS_RETRANS_CB_FLAG
    | BPF_SOCK_OPS_STATE_CB_FLAG
    | BPF_SOCK_OPS_RTT_CB_FLAG;

/// Offset of `skc_state` in `struct sock_common`, from the running kernel's BTF.
#[unsafe(no_mangle)]
pub(crate) static OFFSET_SKC_STATE: Global<u32> = Global::new(0);

/// `struct bpf_iter__tcp` (`net/ipv4/tcp_ipv4.c`).
#[repr(C)]
struct Entry {
    meta: *mut c_void,
    /// Null in the last call.
    socket: *mut c_void,
    uid: u32,
}

/// Runs once for each socket of the namespace, which is locked meanwhile (`bpf_iter_tcp_seq_show`).
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn leadline_older(entry: *mut Entry) -> u32 {
    // SAFETY: the context of this run.
    let socket = unsafe { (*entry).socket };
    if !socket.is_null() {
        // SAFETY: checked not to be null.
        unsafe { watch(socket) };
    }
    0
}

/// # Safety
/// `socket` is the iterator's non-null socket.
#[inline(always)]
unsafe fn watch(socket: *mut c_void) {
    // SAFETY: the caller's promise; null for request and TIME-WAIT sockets.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket) };
    if tcp.is_null() {
        return;
    }
    // SAFETY: a direct load through a BTF pointer: struct tcp_sock begins with its struct sock_common, and the
    // verifier knows the frozen offset and checks that a byte is there.
    let state = unsafe { core::ptr::read_volatile(tcp.cast::<u8>().add(OFFSET_SKC_STATE.load() as usize)) };
    if STATES & (1 << (u32::from(state) & 31)) == 0 {
        return;
    }
    let mut flags: c_int = 0;
    let option = TCP_BPF_SOCK_OPS_CB_FLAGS;
    // SAFETY: a socket of this run, and four bytes of the stack.
    if unsafe { bpf_getsockopt(tcp.cast(), SOL_TCP, option, (&raw mut flags).cast(), FLAGS_SIZE) } != 0 {
        return;
    }
    let mut initial = SocketState::default();
    // SAFETY: a socket of this run.
    let storage = unsafe { maps::socket_state(tcp.cast(), Some(&mut initial)) };
    if storage.is_null() {
        maps::count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).storage_refused }
        });
        return;
    }
    let mut flags = flags | CALLBACKS.cast_signed();
    // SAFETY: as above; the storage is the socket's.
    unsafe {
        if bpf_setsockopt(tcp.cast(), SOL_TCP, option, (&raw mut flags).cast(), FLAGS_SIZE) == 0 {
            (*storage).callbacks = 1;
        }
    }
}
