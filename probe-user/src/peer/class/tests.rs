//! Classes of real and of tricky networks.

use super::super::decide_peers;
use super::super::fixture::{Network, bare_node, flannel_config, host_gw_node, ip, net, vxlan_node};
use super::*;
use crate::source::netlink::LinkKind;

fn trie(network: &Network, config: &PeerConfig) -> Vec<PrefixClass> {
    let facts = network.facts();
    decide_classes(&facts, &decide_peers(&facts, config), config)
}

/// Longest prefix match, as the kernel does it.
fn look_up(trie: &[PrefixClass], address: &str) -> (PeerClass, String) {
    let matching = trie.iter().filter(|entry| entry.prefix.contains(&ip(address)));
    let entry = matching.max_by_key(|entry| entry.prefix.prefix_len()).unwrap();
    (entry.class, entry.node.as_deref().unwrap_or_default().to_owned())
}

fn class(trie: &[PrefixClass], address: &str) -> PeerClass {
    look_up(trie, address).0
}

#[test]
fn addresses_of_a_vxlan_node() {
    let mut config = flannel_config();
    config.service_cidrs = vec![net("10.43.0.0/16")];
    let trie = trie(&vxlan_node(), &config);
    let expected = [
        ("127.0.0.53", PeerClass::Loopback, ""),
        ("::1", PeerClass::Loopback, ""),
        ("10.42.1.11", PeerClass::PodLocal, ""),
        ("10.42.1.1", PeerClass::Host, ""),
        ("10.42.1.0", PeerClass::Host, ""),
        ("192.168.56.11", PeerClass::Host, ""),
        ("10.42.2.11", PeerClass::PodRemote, "192.168.56.12"),
        ("10.42.2.0", PeerClass::Node, "192.168.56.12"),
        ("192.168.56.13", PeerClass::Node, "192.168.56.13"),
        ("10.42.77.1", PeerClass::PodRemote, ""),
        ("10.43.0.1", PeerClass::Service, ""),
        ("224.0.0.18", PeerClass::Multicast, ""),
        ("255.255.255.255", PeerClass::Multicast, ""),
        ("192.168.56.255", PeerClass::Multicast, ""),
        ("10.42.1.255", PeerClass::Multicast, ""),
        ("ff02::1", PeerClass::Multicast, ""),
        ("192.168.56.200", PeerClass::External, ""),
        ("2001:db8::1", PeerClass::External, ""),
        ("fe80::1", PeerClass::Unknown, ""),
        ("169.254.169.254", PeerClass::External, ""),
    ];
    for (address, class, node) in expected {
        assert_eq!(look_up(&trie, address), (class, node.to_owned()), "{address}");
    }
}

#[test]
fn addresses_of_a_host_gw_node() {
    let trie = trie(&host_gw_node(), &flannel_config());
    assert_eq!(look_up(&trie, "10.42.3.9"), (PeerClass::PodRemote, "192.168.56.13".to_owned()));
    assert_eq!(look_up(&trie, "192.168.56.12"), (PeerClass::Node, "192.168.56.12".to_owned()));
    assert_eq!(class(&trie, "192.168.56.1"), PeerClass::External);
}

#[test]
fn service_networks_are_not_guessed() {
    assert_eq!(class(&trie(&vxlan_node(), &flannel_config()), "10.96.0.1"), PeerClass::External);
}

#[test]
fn addresses_that_ipvs_binds_are_services() {
    let mut network = bare_node();
    network.link(9, SERVICE_DEVICE, LinkKind::Other("dummy".to_owned()), 1500);
    network.address(9, "10.96.0.10/32");
    let config = PeerConfig::default();
    assert_eq!(class(&trie(&network, &config), "10.96.0.10"), PeerClass::Service);
    assert!(!decide_peers(&network.facts(), &config).local.underlay.contains(&ip("10.96.0.10")));
}

#[test]
fn every_prefix_is_there_once() {
    let trie = trie(&vxlan_node(), &flannel_config());
    let mut prefixes: Vec<_> = trie.iter().map(|entry| entry.prefix).collect();
    prefixes.dedup();
    assert_eq!(prefixes.len(), trie.len());
    assert!(trie.iter().all(|entry| entry.prefix == entry.prefix.trunc()));
}

#[test]
fn own_link_local_addresses_are_this_host() {
    let mut network = bare_node();
    network.address(2, "fe80::ff:fe00:2/64");
    let trie = trie(&network, &PeerConfig::default());
    assert_eq!(class(&trie, "fe80::ff:fe00:2"), PeerClass::Host);
    assert_eq!(class(&trie, "fe80::ff:fe00:3"), PeerClass::Unknown);
}
