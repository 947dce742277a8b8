//! What routers have told of the paths to other nodes. Pure: messages with their times in, changes out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::collector::vip::happening::Nanos;
use crate::peer::{Node, Registry};
use crate::wire::too_big::TooBig;

/// Nodes that are remembered, and so have series.
const MOST_NODES: usize = 1_024;
/// Addresses of a node whose MTU is remembered.
const MOST_PATHS: usize = 256;

/// Why a message is about no path to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// The packet went to no node that is known.
    Destination,
    /// It is none of this node's.
    Source,
    /// The message breaks the rules of its protocol.
    Malformed,
}

impl Other {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Destination, Self::Source, Self::Malformed];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Source => "source",
            Self::Malformed => "malformed",
        }
    }
}

/// The `peer_node` whose path a message is about. `is_own` says whether this node has an address.
///
/// # Errors
/// Why it is about none.
pub fn peer_of(
    told: &TooBig,
    is_own: impl Fn(IpAddr) -> bool,
    registry: &Registry,
) -> Result<Arc<str>, Other> {
    let is_pod = || registry.local.pods.iter().any(|pods| pods.contains(&told.source));
    if !is_own(told.source) && !is_pod() {
        return Err(Other::Source);
    }
    registry.node_behind(told.destination).and_then(Node::label).ok_or(Other::Destination)
}

/// A message about a path to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where the packet went.
    pub destination: IpAddr,
    /// Bytes that the next link takes, if the router names them.
    pub mtu: Option<u32>,
    /// When it came.
    pub time: Nanos,
    /// How long the kernel remembers it.
    pub lasts: Nanos,
}

/// A smaller MTU than before, or the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Bytes.
    pub mtu: u32,
    /// What was told before, as long as that is remembered.
    pub before: Option<u32>,
}

/// What was told of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Path {
    mtu: u32,
    until: Nanos,
}

/// What was told of a node.
#[derive(Clone, Debug, Default)]
struct Peer {
    messages: u64,
    paths: BTreeMap<IpAddr, Path>,
    /// The least MTU as of the last message, and until when it is old news.
    known: Option<Path>,
}

impl Peer {
    fn hear(&mut self, word: &Word) -> Option<Change> {
        self.messages += 1;
        let mtu = word.mtu?;
        self.paths.retain(|_, path| path.until > word.time);
        if self.paths.get(&word.destination).is_some_and(|path| path.mtu < mtu) {
            return None;
        }
        if self.paths.len() >= MOST_PATHS && !self.paths.contains_key(&word.destination) {
            let oldest = self.paths.iter().min_by_key(|(_, path)| path.until);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.paths.remove(&oldest);
            }
        }
        let until = word.time.saturating_add(word.lasts);
        self.paths.insert(word.destination, Path { mtu, until });
        let least = self.least(word.time)?;
        let before = self.known.filter(|known| known.until > word.time).map(|known| known.mtu);
        // Who goes on sending hears the same again whenever the kernel has forgotten it.
        self.known = Some(Path { mtu: least, until: until.saturating_add(word.lasts) });
        before.is_none_or(|before| least < before).then_some(Change { mtu: least, before })
    }

    fn least(&self, now: Nanos) -> Option<u32> {
        self.paths.values().filter(|path| path.until > now).map(|path| path.mtu).min()
    }
}

/// Everything that was told.
#[derive(Clone, Debug, Default)]
pub struct Words {
    peers: BTreeMap<Arc<str>, Peer>,
    others: [u64; Other::ALL.len()],
}

impl Words {
    /// Takes a message about the path to that node; a change where it tells of a smaller MTU.
    pub fn hear(&mut self, peer: &Arc<str>, word: &Word, registry: &Registry) -> Option<Change> {
        if !self.peers.contains_key(peer) {
            self.peers.retain(|label, _| current(label, registry).is_some());
            if self.peers.len() >= MOST_NODES {
                self.count_other(Other::Destination);
                return None;
            }
        }
        self.peers.entry(Arc::clone(peer)).or_default().hear(word)
    }

    /// Counts a message that is about no path to a node.
    pub const fn count_other(&mut self, reason: Other) {
        self.others[reason as usize] += 1;
    }

    /// Messages by why they are about none.
    pub(super) fn others(&self) -> impl Iterator<Item = (Other, u64)> {
        Other::ALL.into_iter().zip(self.others)
    }

    /// Messages about each node, and the least MTU, by the label that the node has now.
    pub(super) fn sums(&self, registry: &Registry, now: Nanos) -> BTreeMap<Arc<str>, (u64, Option<u32>)> {
        let mut sums: BTreeMap<Arc<str>, (u64, Option<u32>)> =
            registry.nodes.iter().filter_map(Node::label).map(|label| (label, (0, None))).collect();
        for (label, peer) in &self.peers {
            let Some((messages, mtu)) = current(label, registry).and_then(|label| sums.get_mut(&label))
            else {
                continue;
            };
            *messages += peer.messages;
            *mtu = mtu.iter().copied().chain(peer.least(now)).min();
        }
        sums
    }
}

/// The label that a node has now which was known by this one; none where it is gone.
fn current(label: &Arc<str>, registry: &Registry) -> Option<Arc<str>> {
    let is_its = |node: &Node| node.label().as_ref() == Some(label);
    if registry.nodes.iter().any(is_its) { Some(Arc::clone(label)) } else { registry.label_of_address(label) }
}

#[cfg(test)]
mod tests;
