//! Where a sample or a count of a connection goes: to its owner, its watched port, the node of its peer.

use probe_common::least::{least_word, window};
use probe_common::tcp::{BOUNDS_MICROSECONDS, BUCKETS, Durations, TcpCell};

use crate::{atomic, maps, path_pod, tcp_port};

/// Adds a sample in microseconds.
///
/// # Safety
/// `histogram` points into a map value.
#[inline(always)]
pub(crate) unsafe fn observe(histogram: *mut Durations, microseconds: u32) {
    let mut bucket = 0usize;
    for bound in BOUNDS_MICROSECONDS {
        if microseconds > bound {
            bucket += 1;
        }
    }
    if bucket < BUCKETS {
        // SAFETY: the bucket is inside the array, the histogram inside a map value.
        unsafe {
            atomic::add((&raw mut (*histogram).buckets).cast::<u64>().add(bucket), 1);
            atomic::add(&raw mut (*histogram).sum, u64::from(microseconds));
        }
    }
}

/// Notes a round trip if it is the least of its window.
///
/// # Safety
/// `words` are [`probe_common::least`] in a map value.
#[inline(always)]
pub(crate) unsafe fn note_least(words: *mut [u64; 2], microseconds: u32, now: u64) {
    let window = window(now);
    // SAFETY: the caller's promise. Only this CPU writes the words, unless there are more CPUs than shards: of two samples
    // in one moment one may be forgotten, and comes again in a second.
    unsafe {
        let least = words.cast::<u64>().add((window & 1) as usize);
        let word = least_word(window, microseconds);
        let before = core::ptr::read_volatile(least);
        // An older window's word is less than any of this one.
        if before >> 32 != u64::from(window) || word < before {
            core::ptr::write_volatile(least, word);
        }
    }
}

/// Where a connection is counted.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Slots {
    /// That of its owner and the class of its peer.
    pub(crate) own: u32,
    /// That of its watched port, as in a socket's storage.
    pub(crate) port: u16,
    /// The node of its peer, the same.
    pub(crate) node: u16,
}

/// Adds to the counter that `field` chooses in the cells of the slots.
#[inline(always)]
pub(super) fn bump(slots: Slots, amount: u64, field: impl Fn(*mut TcpCell) -> *mut u64) {
    if let Some(cell) = maps::tcp_cell(slots.own) {
        // SAFETY: `field` projects into the map value.
        unsafe { atomic::add(field(cell), amount) };
    }
    if let Some(cell) = tcp_port::cell(slots.port) {
        // SAFETY: as above.
        unsafe { atomic::add(field(&raw mut (*cell).tcp), amount) };
    }
}

/// Adds a round trip in microseconds.
#[inline(always)]
pub(super) fn observe_round_trip(slots: Slots, microseconds: u32, now: u64) {
    if let Some(cell) = maps::tcp_cell(slots.own) {
        // SAFETY: a histogram in a map value.
        unsafe { observe(&raw mut (*cell).rtt, microseconds) };
    }
    if slots.port != 0 {
        tcp_port::round_trip(slots.port, microseconds, now);
    }
    if slots.node != 0 {
        path_pod::round_trip(slots.node, microseconds, now);
    }
}

/// Adds that of a handshake.
#[inline(always)]
pub(super) fn observe_handshake(slots: Slots, microseconds: u32, now: u64) {
    observe_round_trip(slots, microseconds, now);
    if slots.node != 0 {
        path_pod::handshake(slots.node, microseconds);
    }
}
