//! Who listens on which address and port: an iterator over the open files of all processes writes one record for each
//! listening TCP socket of the agent's network namespace. It runs when the agent reads it, and touches nothing.

use core::ptr::read_volatile;

use aya_ebpf::Global;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_seq_write, bpf_sock_from_file};
use probe_common::listener::{COMMAND_MAX, IPV4, IPV6, ListenerRecord, REUSEPORT, V6ONLY};

use crate::tcp::OFFSET_SKC_STATE;

/// `enum tcp_state`.
const TCP_LISTEN: u8 = 10;
const IPPROTO_TCP: u16 = 6;
/// Programs in Go listen with it; the socket has the same members as one of TCP.
const IPPROTO_MPTCP: u16 = 262;

/// Inode of the network namespace whose sockets are wanted.
#[unsafe(no_mangle)]
static LISTENER_NETNS: Global<u32> = Global::new(0);
/// Offset of `sk` in `struct socket`; all offsets are from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_SOCKET_SK: Global<u32> = Global::new(0);
/// Offset of `sk_protocol` in `struct sock`.
#[unsafe(no_mangle)]
static OFFSET_SK_PROTOCOL: Global<u32> = Global::new(0);
/// Offset of `skc_family` in `struct sock_common`.
#[unsafe(no_mangle)]
static OFFSET_SKC_FAMILY: Global<u32> = Global::new(0);
/// Offset of `skc_num`, the local port in host order.
#[unsafe(no_mangle)]
static OFFSET_SKC_NUM: Global<u32> = Global::new(0);
/// Offset of `skc_rcv_saddr`.
#[unsafe(no_mangle)]
static OFFSET_SKC_IPV4: Global<u32> = Global::new(0);
/// Offset of `skc_v6_rcv_saddr`.
#[unsafe(no_mangle)]
static OFFSET_SKC_IPV6: Global<u32> = Global::new(0);
/// Offset of `skc_net`.
#[unsafe(no_mangle)]
static OFFSET_SKC_NET: Global<u32> = Global::new(0);
/// Offset of `ns.inum` in `struct net`.
#[unsafe(no_mangle)]
static OFFSET_NET_INUM: Global<u32> = Global::new(0);
/// Bit of `skc_ipv6only` in `struct sock_common`, from its beginning.
#[unsafe(no_mangle)]
static BIT_SKC_IPV6ONLY: Global<u32> = Global::new(0);
/// Bit of `skc_reuseport`.
#[unsafe(no_mangle)]
static BIT_SKC_REUSEPORT: Global<u32> = Global::new(0);
/// Offset of `f_inode` in `struct file`.
#[unsafe(no_mangle)]
static OFFSET_FILE_INODE: Global<u32> = Global::new(0);
/// Offset of `i_ino` in `struct inode`.
#[unsafe(no_mangle)]
static OFFSET_INODE_INO: Global<u32> = Global::new(0);
/// Offset of `tgid` in `struct task_struct`.
#[unsafe(no_mangle)]
static OFFSET_TASK_TGID: Global<u32> = Global::new(0);
/// Offset of `group_leader` in `struct task_struct`.
#[unsafe(no_mangle)]
static OFFSET_TASK_LEADER: Global<u32> = Global::new(0);
/// Offset of `comm` in `struct task_struct`.
#[unsafe(no_mangle)]
static OFFSET_TASK_COMM: Global<u32> = Global::new(0);

/// `struct bpf_iter__task_file` (`kernel/bpf/task_iter.c`).
#[repr(C)]
struct Entry {
    meta: *mut Meta,
    /// Null in the last call.
    task: *mut u8,
    descriptor: u32,
    /// Null in the last call.
    file: *mut u8,
}

/// `struct bpf_iter_meta` (`include/linux/bpf.h`).
#[repr(C)]
struct Meta {
    sequence: *mut c_void,
}

/// Runs once for each open file of each process; threads that share their leader's files are left out by the kernel.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn leadline_listen(entry: *mut Entry) -> u32 {
    // SAFETY: the context of this run.
    let (meta, task, file) = unsafe { ((*entry).meta, (*entry).task, (*entry).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: a file of this run; null for what is no socket.
    let socket: *mut u8 = unsafe { bpf_sock_from_file(file.cast()) }.cast();
    if socket.is_null() {
        return 0;
    }
    // SAFETY: `socket` is not null.
    let sock: *mut u8 = unsafe { member(socket, OFFSET_SOCKET_SK.load()) };
    if sock.is_null() {
        return 0;
    }
    // SAFETY: neither is null, and the record is on the stack.
    unsafe {
        if is_wanted(sock) {
            let record = describe(task, file, sock);
            // What finds the buffer full is written again by the kernel, into an empty one (`bpf_seq_read`).
            let size = size_of::<ListenerRecord>() as u32;
            bpf_seq_write((*meta).sequence.cast(), (&raw const record).cast_mut().cast(), size);
        }
    }
    0
}

/// A direct load through a BTF pointer: the verifier knows the frozen offset and what is there. A fault reads as zero.
///
/// # Safety
/// `base` points to a kernel structure that has a `T` at `offset`.
#[inline(always)]
unsafe fn member<T: Copy>(base: *mut u8, offset: u32) -> T {
    // SAFETY: the caller's promise.
    unsafe { read_volatile(base.add(offset as usize).cast::<T>()) }
}

/// # Safety
/// `sock` is a non-null socket of this run.
#[inline(always)]
unsafe fn is_wanted(sock: *mut u8) -> bool {
    // SAFETY: `struct sock` begins with its `struct sock_common`; offsets and types are those of the kernel.
    unsafe {
        if member::<u8>(sock, OFFSET_SKC_STATE.load()) != TCP_LISTEN {
            return false;
        }
        // Listening sockets of other families have the same state.
        let family: u16 = member(sock, OFFSET_SKC_FAMILY.load());
        if family != IPV4 && family != IPV6 {
            return false;
        }
        let protocol: u16 = member(sock, OFFSET_SK_PROTOCOL.load());
        if protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
            return false;
        }
        let namespace: *mut u8 = member(sock, OFFSET_SKC_NET.load());
        !namespace.is_null() && member::<u32>(namespace, OFFSET_NET_INUM.load()) == LISTENER_NETNS.load()
    }
}

/// # Safety
/// All three are non-null and of this run.
#[inline(always)]
unsafe fn describe(task: *mut u8, file: *mut u8, sock: *mut u8) -> ListenerRecord {
    // SAFETY: as in `is_wanted`; the helper copies into the record and leaves zeroes where it cannot.
    unsafe {
        let inode: *mut u8 = member(file, OFFSET_FILE_INODE.load());
        let leader: *mut u8 = member(task, OFFSET_TASK_LEADER.load());
        let mut record = ListenerRecord {
            socket: if inode.is_null() { 0 } else { member(inode, OFFSET_INODE_INO.load()) },
            process: member(task, OFFSET_TASK_TGID.load()),
            flags: flag(sock, BIT_SKC_IPV6ONLY.load(), V6ONLY)
                | flag(sock, BIT_SKC_REUSEPORT.load(), REUSEPORT),
            family: member(sock, OFFSET_SKC_FAMILY.load()),
            port: member(sock, OFFSET_SKC_NUM.load()),
            padding: 0,
            address: [0; 16],
            command: [0; COMMAND_MAX],
        };
        let (offset, length) =
            if record.family == IPV4 { (OFFSET_SKC_IPV4.load(), 4) } else { (OFFSET_SKC_IPV6.load(), 16) };
        let from = sock.add(offset as usize).cast();
        bpf_probe_read_kernel((&raw mut record.address).cast(), length, from);
        let from = leader.add(OFFSET_TASK_COMM.load() as usize).cast();
        bpf_probe_read_kernel((&raw mut record.command).cast(), COMMAND_MAX as u32, from);
        record
    }
}

/// `value` if that bit of the socket is set.
///
/// # Safety
/// `sock` is a non-null socket of this run.
#[inline(always)]
unsafe fn flag(sock: *mut u8, bit: u32, value: u32) -> u32 {
    let mut byte = 0_u8;
    // SAFETY: the helper checks the address. A direct load of a bit field's byte is refused by the verifier.
    unsafe { bpf_probe_read_kernel((&raw mut byte).cast(), 1, sock.add((bit / 8) as usize).cast()) };
    if byte >> (bit % 8) & 1 == 1 { value } else { 0 }
}
