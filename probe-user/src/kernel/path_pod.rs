//! Round trips between pods of this node and those of another one, and segments sent again, as other threads see them: memory, no system call.

use std::sync::Arc;

use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf};
use probe_common::least::least;
use probe_common::overlay::NODES_MAX;
use probe_common::path_pod::PodPathCell;
use probe_common::tcp::Durations;

use super::btf::{Btf as KernelTypes, BtfError};
use super::error::KernelError;
use super::load::{mapped, program};
use super::mapped::Mapped;
use crate::ledger::add_durations;

/// Array of the counters.
pub(super) const CELLS: &str = "leadline_ppods";

/// The program that is told how large a buffer is that was sent again.
pub(super) const RESENT: &str = "leadline_resent";
/// Where it is told so.
const TRACEPOINT: &str = "tcp_retransmit_skb";

/// What it needs to know of the kernel's types, by the names of its constants.
///
/// # Errors
/// When this kernel has no such members.
pub(super) fn constants(btf: &KernelTypes) -> Result<[(&'static str, u32); 2], BtfError> {
    Ok([
        ("OFFSET_SKB_LEN", btf.offset_of("sk_buff", "len")?),
        ("OFFSET_MSS_CACHE", btf.offset_of("tcp_sock", "mss_cache")?),
    ])
}

/// Attaches it.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn follow(ebpf: &mut Ebpf, kernel: &Btf) -> Result<(), KernelError> {
    let resent: &mut BtfTracePoint = program(ebpf, RESENT)?;
    resent.load(TRACEPOINT, kernel).map_err(|source| KernelError::Program { program: RESENT, source })?;
    let target = format!("tracepoint {TRACEPOINT}");
    resent.attach().map_err(|source| KernelError::Attach { program: RESENT, target, source })?;
    Ok(())
}

/// The array's entries.
pub(super) const fn entries(shards: u32) -> u32 {
    shards * NODES_MAX
}

/// What connections between pods of this node and those of another one have met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPath {
    /// The node, by the value of the `peer_node` label when its pods became known.
    pub node: Arc<str>,
    /// Those of handshakes.
    pub handshake: Durations,
    /// The least round trip of the last 10 to 20 seconds; `None`: nothing was sampled.
    pub least_microseconds: Option<u32>,
    /// Segments sent again.
    pub retransmits: Retransmits,
}

/// Segments sent again, by their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retransmits {
    /// As large as the connection lets a segment be.
    pub full: u64,
    /// All others.
    pub smaller: u64,
}

impl Retransmits {
    /// Adds others.
    pub const fn add(&mut self, others: Self) {
        self.full += others.full;
        self.smaller += others.smaller;
    }
}

/// All of them.
pub(super) struct PodPaths {
    shards: u32,
    cells: Mapped<PodPathCell>,
}

impl PodPaths {
    pub(super) fn new(ebpf: &mut Ebpf, shards: u32) -> Result<Self, KernelError> {
        Ok(Self { shards, cells: mapped(ebpf, CELLS, entries(shards))? })
    }

    /// Those to a node by its number; `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn read(&self, number: u32, node: &Arc<str>, now: u64) -> PodPath {
        let mut path = PodPath {
            node: Arc::clone(node),
            handshake: Durations::default(),
            least_microseconds: None,
            retransmits: Retransmits::default(),
        };
        let cells =
            (0..self.shards).filter_map(|shard| self.cells.read((shard * NODES_MAX + number) as usize));
        for cell in cells {
            add_durations(&mut path.handshake, &cell.handshake);
            path.retransmits
                .add(Retransmits { full: cell.full_retransmits, smaller: cell.smaller_retransmits });
            let leasts = [path.least_microseconds, least(cell.least, now)];
            path.least_microseconds = leasts.into_iter().flatten().min();
        }
        path
    }

    /// Bytes of kernel memory in this array.
    pub(super) fn bytes(&self) -> u64 {
        self.cells.bytes()
    }
}
