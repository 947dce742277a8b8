//! Keeps the prefix trie equal to what was decided, and numbers the peer nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::IpNet;
use probe_common::overlay::NODES_MAX;
use probe_common::prefix::{IPV4_PREFIX_OFFSET, PrefixValue};

use super::error::KernelError;
use super::wire::Wire;
use crate::peer::PrefixClass;

const MAP: &str = "leadline_peers";

/// Numbers of peer nodes, from 1, never reused while the agent runs, so that counters keep their meaning: what was counted
/// of a node that is gone never becomes another's.
#[derive(Clone, Default)]
pub(super) struct NodeNumbers(Arc<RwLock<Vec<Arc<str>>>>);

impl NodeNumbers {
    /// The number of a node; 0 when there are too many.
    fn number(&self, node: &Arc<str>) -> u16 {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let index = names.iter().position(|name| name == node).unwrap_or(names.len());
        let number = u16::try_from(index + 1).ok().filter(|number| u32::from(*number) < NODES_MAX);
        if index == names.len() && number.is_some() {
            names.push(Arc::clone(node));
        }
        number.unwrap_or(0)
    }

    /// Names in the order of their numbers, the first having number 1.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The trie and what is in it.
pub(super) struct Prefixes {
    trie: LpmTrie<MapData, [u8; 16], Wire<PrefixValue>>,
    installed: BTreeMap<(u32, [u8; 16]), PrefixValue>,
    nodes: NodeNumbers,
}

impl Prefixes {
    pub(super) fn new(trie: LpmTrie<MapData, [u8; 16], Wire<PrefixValue>>, nodes: NodeNumbers) -> Self {
        Self { trie, installed: BTreeMap::new(), nodes }
    }

    /// Makes the trie hold exactly `wanted`. Says whether anything changed.
    pub(super) fn replace(&mut self, wanted: &[PrefixClass]) -> Result<bool, KernelError> {
        let wanted: BTreeMap<_, _> = wanted
            .iter()
            .map(|entry| {
                let node = entry.node.as_ref().map_or(0, |node| self.nodes.number(node));
                (key(entry.prefix), PrefixValue { class: entry.class.number(), padding: 0, node })
            })
            .collect();
        if wanted == self.installed {
            return Ok(false);
        }
        let stale: Vec<_> = self.installed.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        // What is new first: an address is never without a class in between. Single addresses before networks, in case
        // the table is too small: what is installed is noted one by one.
        for (&(length, address), value) in wanted.iter().rev() {
            if self.installed.get(&(length, address)) != Some(value) {
                self.trie.insert(&Key::new(length, address), Wire(*value), 0).map_err(error)?;
                self.installed.insert((length, address), *value);
            }
        }
        for (length, address) in stale {
            self.trie.remove(&Key::new(length, address)).map_err(error)?;
            self.installed.remove(&(length, address));
        }
        Ok(true)
    }
}

fn error(source: MapError) -> KernelError {
    KernelError::Map { map: MAP, source }
}

/// A prefix as the trie's key: IPv4 mapped into IPv6.
fn key(prefix: IpNet) -> (u32, [u8; 16]) {
    let length = u32::from(prefix.prefix_len());
    match prefix.network() {
        IpAddr::V4(address) => (length + IPV4_PREFIX_OFFSET, address.to_ipv6_mapped().octets()),
        IpAddr::V6(address) => (length, address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_prefixes_are_mapped() {
        let (length, address) = key("10.42.2.0/24".parse().unwrap());
        assert_eq!(length, 120);
        assert_eq!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 42, 2, 0]);
    }

    #[test]
    fn the_ipv4_default_route_does_not_cover_ipv6() {
        assert_eq!(key("0.0.0.0/0".parse().unwrap()).0, 96);
        assert_eq!(key("::/0".parse().unwrap()).0, 0);
    }

    #[test]
    fn a_node_keeps_its_number() {
        let nodes = NodeNumbers::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert_eq!([nodes.number(&a), nodes.number(&b), nodes.number(&a)], [1, 2, 1]);
    }

    #[test]
    fn the_number_of_a_node_that_is_gone_is_given_to_nobody() {
        let nodes = NodeNumbers::default();
        let number = |name: &str| nodes.number(&name.into());
        assert_eq!([number("gone"), number("b"), number("successor")], [1, 2, 3]);
        assert_eq!(nodes.names(), ["gone", "b", "successor"].map(Arc::from));
        // Should it come back, it goes on where it was.
        assert_eq!(number("gone"), 1);
    }

    #[test]
    fn nodes_beyond_the_table_have_no_number() {
        let nodes = NodeNumbers::default();
        let numbers: Vec<u16> = (0..2_000).map(|n| nodes.number(&format!("n{n}").into())).collect();
        assert_eq!((numbers[1_022], numbers[1_023], numbers[1_999]), (1_023, 0, 0));
    }
}
