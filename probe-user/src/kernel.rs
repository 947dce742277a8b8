//! The only place that names aya: loads the programs, attaches them, reads their maps, receives their records.
//!
//! One thread makes every bpf(2) call and is the only one that keeps capabilities (`thread`); what other threads get
//! are memory-mapped counters (`slots`) that need no system call to read. Nothing is pinned: when the process ends,
//! however it ends, the kernel removes everything.
#![expect(
    unsafe_code,
    reason = "mapped kernel memory and plain-old-data promises; each block says why it holds"
)]

pub mod btf;
mod device;
pub mod error;
mod filters;
mod listener;
mod load;
mod mapped;
pub mod memory;
mod older;
mod overlay;
mod path_pod;
mod prefix;
mod record;
mod rings;
mod served;
pub mod slots;
mod tap;
mod tcp_port;
pub mod thread;
mod too_big;
mod tunnel;
mod wire;
mod worker;

pub use error::KernelError;
pub use listener::Listener;
pub use path_pod::{PodPath, Retransmits};
pub use record::CgroupEvent;
pub use served::Served;
pub use slots::Slots;
pub use tap::{Frame, Uplink};
pub use tcp_port::PortCount;
pub use thread::{KernelHandle, KernelOptions, OverlayTarget, Senders};
pub use too_big::TooBigPacket;
pub use tunnel::TunnelPacket;
