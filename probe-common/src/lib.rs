//! The ABI between the BPF programs and the agent, and nothing else.
//!
//! Both targets compile exactly these definitions. Rules: `repr(C)`, integers only, padding spelled out, layout
//! asserted beside each type, addresses in network order, times in nanoseconds of `CLOCK_MONOTONIC` unless said
//! otherwise. A field that may be unknown has a documented sentinel.
#![no_std]

pub mod cgroup;
pub mod control;
pub mod least;
pub mod listener;
pub mod overlay;
pub mod path_pod;
pub mod peer;
pub mod prefix;
pub mod served;
pub mod tap;
pub mod tcp;
pub mod tcp_port;
pub mod too_big;
pub mod traffic;
pub mod tunnel;

/// Raised with every change of a layout or of a meaning in this crate; the agent compares it at load with the
/// number that was compiled into the object.
pub const ABI_VERSION: u32 = 8;

/// Shards of a counter array at most: one per CPU up to this many, then CPUs share.
pub const SHARDS_MAX: u32 = 16;
