//! Who does what only some nodes need to do, without asking each other: rendezvous hashing.
//!
//! Every node weighs every node for a key and takes the heaviest few. When a node goes, only what it did moves to
//! others. The answers of two nodes agree as far as their registries do; where they do not, a few more or fewer nodes
//! than wanted do the work, which harms nobody. Agents of different builds must agree as well, so the hash is written
//! down here and pinned by a test, and is not that of the standard library, which promises nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::{Node, Registry};

/// FNV-1a, 64 bits: the start and the factor of its definition.
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0000_0100_0000_01b3);

/// Which nodes take care of what, by weights that every node finds to be the same.
#[derive(Debug)]
pub struct Rendezvous {
    /// None where this node does not know its own address.
    local: Option<Identity>,
    others: Vec<Identity>,
}

impl Rendezvous {
    /// The choice among these nodes. `wandering` are addresses that move between nodes and so name none of them.
    #[must_use]
    pub fn of(registry: &Registry, wandering: &BTreeSet<IpAddr>) -> Self {
        let others = identities(&registry.nodes, wandering);
        let local = own_identity(&registry.local, &others, wandering).map(Identity::of);
        Self { local, others: others.into_iter().map(Identity::of).collect() }
    }

    /// Whether this node is one of `count` nodes that take care of `key`. A node that does not know its own address
    /// takes part, rather than that nobody does.
    #[must_use]
    pub fn is_chosen(&self, key: &str, count: usize) -> bool {
        self.local.is_none_or(|local| is_among(local, &self.others, key, count))
    }
}

/// Whether this node is one of those that a single key [chooses](Rendezvous::is_chosen).
#[must_use]
pub fn is_chosen(registry: &Registry, wandering: &BTreeSet<IpAddr>, key: &str, count: usize) -> bool {
    Rendezvous::of(registry, wandering).is_chosen(key, count)
}

/// The address of a node, with the hash of it that every key goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    address: IpAddr,
    hash: u64,
}

impl Identity {
    fn of(address: IpAddr) -> Self {
        let hash = fnv(FNV.0, address.to_string().as_bytes());
        Self { address, hash: fnv(hash, &[0]) }
    }

    /// The weight of a node for a key: FNV-1a of the address as text, a zero byte and the key, mixed once more, since the
    /// last bytes alone would hardly reach the upper bits.
    fn weight(self, key: &str) -> u64 {
        mix(fnv(self.hash, key.as_bytes()))
    }
}

/// When in a period this node does what is named by `key`: spread evenly over nodes and keys. All of its addresses take
/// part, since some, such as that of a bridge for containers, are the same on every node.
#[must_use]
pub fn phase_of(registry: &Registry, key: &str, period: Duration) -> Duration {
    let weights = registry.local.underlay.iter().map(|address| Identity::of(*address).weight(key));
    let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(weights.fold(0, |sum, weight| sum ^ weight) % nanos)
}

/// Whether fewer than `count` others are heavier.
fn is_among(local: Identity, others: &[Identity], key: &str, count: usize) -> bool {
    // Of equal weights, which do not happen by chance, the larger address counts as heavier.
    let rank = |identity: Identity| (identity.weight(key), identity.address);
    let own = rank(local);
    others.iter().filter(|other| rank(**other) > own).count() < count
}

/// The address that names each of the other nodes: its smallest one, of the family that all of them have, where there
/// is one. IPv4 is the first choice. Nodes that know each other by a tunnel alone have their addresses there.
fn identities(nodes: &[Node], wandering: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let known: Vec<Vec<IpAddr>> = nodes
        .iter()
        .map(|node| if node.underlay.is_empty() { &node.tunnel } else { &node.underlay })
        .map(|of_node| of_node.iter().filter(|address| !wandering.contains(address)).copied().collect())
        .filter(|addresses: &Vec<_>| !addresses.is_empty())
        .collect();
    let all_have = |family: fn(&IpAddr) -> bool| known.iter().all(|addresses| addresses.iter().any(family));
    let family: fn(&IpAddr) -> bool = [IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6]
        .into_iter()
        .find(|family| all_have(*family))
        .unwrap_or(|_| true);
    let mut found: Vec<IpAddr> = known
        .iter()
        .filter_map(|addresses| addresses.iter().filter(|address| family(address)).min())
        .copied()
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The one of its addresses by which the others know this node. It has more than they see (bridges, tunnels, a second
/// network): theirs is the one with the longest prefix in common with any of them.
fn own_identity(local: &Node, others: &[IpAddr], wandering: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let nearness =
        |address: IpAddr| others.iter().map(|other| common_bits(address, *other)).max().unwrap_or(0);
    let candidates =
        local.underlay.iter().chain(&local.tunnel).filter(|address| !wandering.contains(address));
    candidates.copied().min_by_key(|address| (std::cmp::Reverse(nearness(*address)), *address))
}

/// Leading bits that are the same; none for different families.
fn common_bits(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    }
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV.1))
}

/// The finalizer of `SplitMix64`.
const fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: &str = "192.168.56.100";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn cluster(count: u8) -> Vec<IpAddr> {
        (0..count).map(|number| IpAddr::from([192, 168, 56, 10 + number])).collect()
    }

    fn node(addresses: &[&str]) -> Node {
        Node { underlay: addresses.iter().map(|text| ip(text)).collect(), ..Node::default() }
    }

    /// The nodes that choose themselves, each by its own registry.
    fn chosen(nodes: &[IpAddr], key: &str, count: usize) -> Vec<IpAddr> {
        let is_chosen_there = |local: &&IpAddr| {
            let others = nodes.iter().filter(|node| node != local);
            let nodes = others.map(|other| Node { underlay: vec![*other], ..Node::default() }).collect();
            let local = Node { underlay: vec![**local], ..Node::default() };
            is_chosen(&Registry { local, nodes, ..Registry::default() }, &BTreeSet::new(), key, count)
        };
        nodes.iter().filter(is_chosen_there).copied().collect()
    }

    #[test]
    fn exactly_as_many_as_wanted_choose_themselves() {
        for key in (0..50_u8).map(|number| format!("10.0.0.{number}")) {
            assert_eq!(chosen(&cluster(20), &key, 8).len(), 8, "{key}");
        }
        assert_eq!(chosen(&cluster(4), VIP, 8), cluster(4));
    }

    #[test]
    fn only_the_place_of_a_node_that_goes_is_taken() {
        let all = cluster(20);
        for gone in &all {
            let rest: Vec<IpAddr> = all.iter().filter(|node| *node != gone).copied().collect();
            let (before, after) = (chosen(&all, VIP, 8), chosen(&rest, VIP, 8));
            let new = after.iter().filter(|node| !before.contains(node)).count();
            assert_eq!(new, usize::from(before.contains(gone)), "{gone}");
        }
    }

    #[test]
    fn the_load_is_even() {
        let (all, keys) = (cluster(20), 1_000_u32);
        let mut loads = vec![0_u32; all.len()];
        for key in (0..keys).map(|number| format!("fd56::{number:x}")) {
            for (load, node) in loads.iter_mut().zip(&all) {
                let others = all.iter().filter(|other| *other != node).copied().map(Identity::of);
                let others: Vec<Identity> = others.collect();
                *load += u32::from(is_among(Identity::of(*node), &others, &key, 8));
            }
        }
        assert_eq!(loads.iter().sum::<u32>(), keys * 8);
        // Four deviations of a binomial distribution with the mean 400.
        assert!(loads.iter().all(|load| load.abs_diff(400) < 62), "{loads:?}");
    }

    #[test]
    fn phases_are_spread_over_the_period() {
        let period = Duration::from_secs(1);
        let phase = |number: u8| {
            let underlay = vec![ip("172.17.0.1"), IpAddr::from([192, 168, 56, number])];
            let local = Node { underlay, ..Node::default() };
            phase_of(&Registry { local, ..Registry::default() }, VIP, period)
        };
        let mut quarters = [0_u32; 4];
        for number in 1..=200 {
            quarters[usize::try_from(phase(number).as_millis()).unwrap() / 250] += 1;
        }
        assert!(quarters.iter().all(|count| (30..=70).contains(count)), "{quarters:?}");
        assert_eq!(phase(1), phase(1));
    }

    #[test]
    fn the_hash_is_that_of_every_build() {
        assert_eq!(fnv(FNV.0, b"a"), 0xaf63_dc4c_8601_ec8c);
        // The first number of `SplitMix64` with the seed 0.
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn nodes_that_know_each_other_by_a_tunnel_are_its_addresses() {
        let tunnel = |address: &str| Node { tunnel: vec![ip(address)], ..Node::default() };
        let others = identities(&[tunnel("100.64.0.2"), tunnel("100.64.0.3")], &BTreeSet::new());
        assert_eq!(others, [ip("100.64.0.2"), ip("100.64.0.3")]);
        // This one has an underlay that nobody else knows of.
        let local = Node { tunnel: vec![ip("100.64.0.1")], ..node(&["192.168.56.11"]) };
        assert_eq!(own_identity(&local, &others, &BTreeSet::new()), Some(ip("100.64.0.1")));
        // Where an underlay is known, it is that for all, whoever reads of the tunnel.
        let both = Node { tunnel: vec![ip("100.64.0.2")], ..node(&["192.168.56.12"]) };
        assert_eq!(identities(&[both], &BTreeSet::new()), [ip("192.168.56.12")]);
    }

    #[test]
    fn a_node_is_the_address_that_the_others_see() {
        let others =
            identities(&[node(&["192.168.56.12", "fd56::12"]), node(&["192.168.56.13"])], &BTreeSet::new());
        assert_eq!(others, [ip("192.168.56.12"), ip("192.168.56.13")]);
        let local = node(&["10.0.2.15", "172.17.0.1", "192.168.56.11", "fd56::11"]);
        assert_eq!(own_identity(&local, &others, &BTreeSet::new()), Some(ip("192.168.56.11")));
        let of_six =
            identities(&[node(&["192.168.56.12", "fd56::12"]), node(&["fd56::13"])], &BTreeSet::new());
        assert_eq!(of_six, [ip("fd56::12"), ip("fd56::13")]);
        assert_eq!(own_identity(&local, &of_six, &BTreeSet::new()), Some(ip("fd56::11")));
    }

    #[test]
    fn an_address_that_moves_names_nobody() {
        let wandering = BTreeSet::from([ip("192.168.56.9")]);
        let others =
            identities(&[node(&["192.168.56.9", "192.168.56.12"]), node(&["192.168.56.9"])], &wandering);
        assert_eq!(others, [ip("192.168.56.12")]);
        assert_eq!(
            own_identity(&node(&["192.168.56.9", "192.168.56.11"]), &others, &wandering),
            Some(ip("192.168.56.11"))
        );
        let nobody = Registry { local: node(&["192.168.56.9"]), ..Registry::default() };
        assert!(is_chosen(&nobody, &wandering, VIP, 1));
    }
}
