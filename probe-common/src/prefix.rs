//! The prefix trie: address to peer class and node.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Addresses are 16 bytes; IPv4 is mapped as in RFC 4291 section 2.5.5.2, so that an IPv4 prefix of length n has
/// length 96 + n here.
pub const IPV4_PREFIX_OFFSET: u32 = 96;

/// Value of the trie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrefixValue {
    /// [`crate::peer::PeerClass`] number.
    pub class: u8,
    /// Zero.
    pub padding: u8,
    /// Index of the peer node, counted from 1; 0: no node, or more than [`crate::overlay::NODES_MAX`] are known.
    pub node: u16,
}
const _: () = assert!(size_of::<PrefixValue>() == 4);

/// Prefixes at most.
pub const PREFIXES_MAX: u32 = 16_384;
