//! Connections between pods of this node and pods of another one: what is counted for each peer node.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tcp::Durations;

/// Counters of a peer node in one shard; the index is that of [`crate::prefix::PrefixValue::node`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct PodPathCell {
    /// Round trips of handshakes.
    pub handshake: Durations,
    /// The least round trip of this window and of the one before: [`crate::least`].
    pub least: [u64; 2],
    /// Segments sent again that had as many bytes as the connection lets a segment have.
    pub full_retransmits: u64,
    /// All others.
    pub smaller_retransmits: u64,
    /// Zero.
    pub padding: u64,
}
const _: () = assert!(size_of::<PodPathCell>() == 128);
