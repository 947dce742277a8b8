//! placeholder replaced at merge
use std::sync::Arc;
#[derive(Debug)]
#[expect(missing_docs, reason = "placeholder")]
pub struct OverlayCount {
    pub device: String,
    pub peer_node: Arc<str>,
    pub receive_packets: u64,
    pub receive_bytes: u64,
    pub transmit_packets: u64,
    pub transmit_bytes: u64,
}
/// Counters.
pub trait OverlayCounters {
    /// Reads.
    fn read(&self) -> Vec<OverlayCount>;
}
