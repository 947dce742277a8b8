//! Atomic addition. Plain per-CPU additions lose updates: a program can be interrupted between load and store by a
//! softirq that counts into the same cell, or be preempted (ARCHITECTURE.md, Exactness).

use probe_common::traffic::Cell;

use crate::packet::WireSize;

/// Counts a packet into a cell.
///
/// # Safety
/// `cell` is a map value.
#[inline(always)]
pub(crate) unsafe fn count(cell: *mut Cell, size: WireSize, egress: bool) {
    // SAFETY: counters of the map value.
    unsafe {
        if egress {
            add(&raw mut (*cell).transmit_packets, size.packets);
            add(&raw mut (*cell).transmit_bytes, size.bytes);
        } else {
            add(&raw mut (*cell).receive_packets, size.packets);
            add(&raw mut (*cell).receive_bytes, size.bytes);
        }
    }
}

/// Adds `value` to the counter at `counter`.
///
/// # Safety
/// `counter` points to 8 aligned bytes of a map value.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: the caller's promise; BPF_ATOMIC | BPF_ADD exists since Linux 3.18 (as BPF_XADD).
    unsafe {
        core::arch::asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
}

/// The same for the type check on the host.
///
/// # Safety
/// As above.
#[cfg(not(target_arch = "bpf"))]
pub(crate) unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { *counter = (*counter).wrapping_add(value) };
}
