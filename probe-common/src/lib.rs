//! The ABI between the BPF programs and the agent, and nothing else.
//!
//! Both targets compile exactly these definitions. Rules: `repr(C)`, integers only, padding spelled out, layout
//! asserted beside each type, addresses in network order, times in nanoseconds of `CLOCK_MONOTONIC` unless said
//! otherwise. A field that may be unknown has a documented sentinel.
#![no_std]

pub mod peer;
