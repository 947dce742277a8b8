//! The peer registry: which nodes there are, with their address on each layer, and what class an address is of.

use std::sync::Arc;

use ipnet::IpNet;
pub use probe_common::peer::PeerClass;

/// One entry of the prefix trie that the kernel programs look peers up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixClass {
    /// The prefix; the longest match wins.
    pub prefix: IpNet,
    /// Class of the addresses in it.
    pub class: PeerClass,
    /// The node behind it, by the value of its `peer_node` label, where there is one.
    pub node: Option<Arc<str>>,
}
