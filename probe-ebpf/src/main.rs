//! The BPF programs of Leadline. This file holds attributes, the module list, the licence and the panic handler only.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
// `lock *(u64 *)` is the only way to an atomic addition on this target: core has no AtomicU64 for it.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    unsafe_code,
    reason = "helpers and kernel memory have no safe interface in BPF; the verifier checks each access"
)]
#![expect(
    clippy::inline_always,
    reason = "a call costs a tenth of the whole packet budget, and the verifier needs it inlined"
)]
#![expect(clippy::needless_pass_by_value, reason = "the entry points' signature is aya's")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "BPF has no panics to offer: sizes are bounded where they are cast"
)]
#![cfg_attr(
    not(target_arch = "bpf"),
    expect(dead_code, reason = "the host build only checks types; the programs are entered by the kernel")
)]

mod address;
mod atomic;
mod cgroup;
mod frame;
mod listener;
mod maps;
mod overlay;
mod packet;
mod path_pod;
mod served;
mod slot;
mod tap;
mod tcp;
mod tcp_port;
mod too_big;
mod traffic;
mod tunnel;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that read kernel memory are for GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
