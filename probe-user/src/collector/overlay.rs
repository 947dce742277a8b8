//! The overlay: which device carries pod traffic between nodes, whether what each peer needs is in place, and how
//! much goes to whom. Links, routes and entries come from netlink, bytes from the programs on the overlay device.
//!
//! `health` decides which entries a peer misses, `stale` which ones are nobody's any more, `change` turns two registries into
//! timeline events; all are pure.

mod change;
mod health;
mod stale;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Kind, Profile, Value};
use crate::peer::{Backend, Overlay, Registry};
use crate::source::netlink::{NetworkFacts, NetworkState};

pub use change::{OverlayEvent, diff_overlay};
pub use health::{EntryKind, EntryState, check_entries};
pub use stale::{StaleEntries, count_stale};

static INFO: Descriptor = Descriptor {
    name: "leadline_overlay_info",
    kind: Kind::Gauge,
    unit: None,
    help: "Backend that carries pod traffic to other nodes, and its device; 1. Backend none: no overlay was found.",
    labels: &["backend", "device"],
    profile: Profile::Minimal,
    source: "rtnetlink RTM_GETLINK and RTM_GETROUTE; /run/flannel/subnet.env names the pod networks",
    witness: "`ip -j -d link`, exact",
};

static MTU: Descriptor = Descriptor {
    name: "leadline_overlay_mtu_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    help: "MTU of the overlay device.",
    labels: &["device"],
    profile: Profile::Minimal,
    source: "rtnetlink RTM_GETLINK, IFLA_MTU",
    witness: "`ip -j -d link`, exact",
};

static DEVICE_UP: Descriptor = Descriptor {
    name: "leadline_overlay_device_up",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether the overlay device is up and has a carrier.",
    labels: &["device"],
    profile: Profile::Minimal,
    source: "rtnetlink RTM_GETLINK, IFF_UP and IFF_LOWER_UP",
    witness: "`ip -j -d link`, exact",
};

static ENTRIES_MISSING: Descriptor = Descriptor {
    name: "leadline_overlay_entries_missing",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether an entry that packets to a peer node need is missing: the route to its pods, the neighbour entry \
           of its VTEP, the forwarding entry to its underlay address. An entry of which no other evidence of the node \
           is left cannot be missed.",
    labels: &["device", "peer_node", "entry"],
    profile: Profile::Minimal,
    source: "rtnetlink RTM_GETROUTE and RTM_GETNEIGH (AF_UNSPEC and AF_BRIDGE)",
    witness: "`ip -j route`, `ip -j neigh`, `bridge -j fdb`, exact",
};

static ENTRIES_STALE: Descriptor = Descriptor {
    name: "leadline_overlay_entries_stale",
    kind: Kind::Gauge,
    unit: None,
    help: "Routes, neighbour and forwarding entries of the overlay device for a node that the Kubernetes API does not \
           have, or for an address that a node had before. A daemon that was down when a node was removed leaves them. \
           Absent until the API has answered.",
    labels: &["device", "entry"],
    profile: Profile::Minimal,
    source: "rtnetlink RTM_GETROUTE and RTM_GETNEIGH (AF_UNSPEC and AF_BRIDGE), compared with the nodes of the API",
    witness: "`ip -j route`, `ip -j neigh`, `bridge -j fdb` and kubectl get nodes, exact",
};

macro_rules! overlay_counter {
    ($name:literal, $unit:expr, $help:literal) => {
        Descriptor {
            name: $name,
            kind: Kind::Counter,
            unit: $unit,
            help: $help,
            labels: &["device", "peer_node"],
            profile: Profile::Minimal,
            source: "tcx ingress and egress of the overlay device, inner address looked up in the peer trie",
            witness: "IFLA_STATS64 of flannel.1 with segmentation offloads off, sum over peers of IPv4 unicast: \
                      difference 0; what goes to no known node is left out",
        }
    };
}

static RECEIVE_BYTES: Descriptor = overlay_counter!(
    "leadline_overlay_receive_bytes_total",
    Some("bytes"),
    "Bytes of inner packets (layer 3) from a peer node that arrived on the overlay device."
);
static RECEIVE_PACKETS: Descriptor = overlay_counter!(
    "leadline_overlay_receive_packets_total",
    None,
    "Inner packets from a peer node that arrived on the overlay device, as on the wire."
);
static TRANSMIT_BYTES: Descriptor = overlay_counter!(
    "leadline_overlay_transmit_bytes_total",
    Some("bytes"),
    "Bytes of inner packets (layer 3) to a peer node that left by the overlay device."
);
static TRANSMIT_PACKETS: Descriptor = overlay_counter!(
    "leadline_overlay_transmit_packets_total",
    None,
    "Inner packets to a peer node that left by the overlay device, as on the wire."
);

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &INFO,
    &MTU,
    &DEVICE_UP,
    &ENTRIES_MISSING,
    &ENTRIES_STALE,
    &RECEIVE_BYTES,
    &RECEIVE_PACKETS,
    &TRANSMIT_BYTES,
    &TRANSMIT_PACKETS,
];

/// What passed one overlay device from and to one peer node since the agent began to count there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayCount {
    /// Name of the overlay device.
    pub device: String,
    /// The value of the `peer_node` label.
    pub peer_node: Arc<str>,
    /// Packets as on the wire.
    pub receive_packets: u64,
    /// Layer 3 bytes.
    pub receive_bytes: u64,
    /// Packets as on the wire.
    pub transmit_packets: u64,
    /// Layer 3 bytes.
    pub transmit_bytes: u64,
}

/// Who counts on the overlay devices.
pub trait OverlayCounters: Send + Sync {
    /// All counts of this moment, at most one for each device and peer node. No system call.
    fn read(&self) -> Vec<OverlayCount>;

    /// Whether packets on this device are counted: then what is not in [`read`](Self::read) is 0, else unknown.
    fn counts_on(&self, device: &str) -> bool;
}

/// The collector.
pub struct OverlayCollector {
    facts: watch::Receiver<Arc<NetworkFacts>>,
    /// Whether the facts are kept current.
    is_current: watch::Receiver<bool>,
    peers: watch::Receiver<Arc<Registry>>,
    counters: Arc<dyn OverlayCounters>,
}

impl OverlayCollector {
    /// A collector over the network's state and the peers.
    #[must_use]
    pub fn new(
        network: &NetworkState,
        peers: watch::Receiver<Arc<Registry>>,
        counters: Arc<dyn OverlayCounters>,
    ) -> Self {
        Self { facts: network.facts(), is_current: network.current(), peers, counters }
    }
}

impl std::fmt::Debug for OverlayCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlayCollector").finish_non_exhaustive()
    }
}

impl Collector for OverlayCollector {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        decide_support(&self.peers.borrow().overlays, *self.is_current.borrow())
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let facts = Arc::clone(&self.facts.borrow());
        let registry = Arc::clone(&self.peers.borrow());
        let entries = check_entries(&facts, &registry);
        // What was so once is not known to be so now. The counters do not depend on it.
        if *self.is_current.borrow() {
            collect_devices(sink, &registry.overlays);
            collect_entries(sink, &entries);
            collect_stale(sink, &count_stale(&facts, &registry).unwrap_or_default());
        }
        let counted = |entry: &&EntryState| self.counters.counts_on(&entry.device);
        let known = entries.iter().filter(counted).map(|entry| zero(&entry.device, &entry.peer_node));
        let read = self.counters.read().into_iter().map(|count| renamed(count, &registry));
        collect_counts(sink, &unique(known.chain(read)));
        Ok(())
    }
}

/// No overlay is an answer, and one that may change at any time: nothing is missing for it.
fn decide_support(overlays: &[Overlay], is_current: bool) -> Support {
    if !is_current {
        Support::Degraded("network state cannot be read: traffic of the last known devices only")
    } else if overlays.is_empty() || overlays.iter().any(|overlay| overlay.backend.has_device()) {
        Support::Yes
    } else {
        Support::Degraded("host-gw has no overlay device to count on")
    }
}

fn collect_devices(sink: &mut Sink<'_>, overlays: &[Overlay]) {
    let mut info = sink.family(&INFO);
    if overlays.is_empty() {
        info.value(&["none", ""], Value::Integer(1));
    }
    for overlay in overlays {
        info.value(&[overlay.backend.as_str(), &overlay.device], Value::Integer(1));
    }
    let mut mtu = sink.family(&MTU);
    for overlay in overlays {
        if let Some(bytes) = overlay.mtu {
            mtu.value(&[&overlay.device], Value::Integer(bytes.into()));
        }
    }
    let mut up = sink.family(&DEVICE_UP);
    for overlay in overlays {
        up.value(&[&overlay.device], Value::Integer(overlay.up.into()));
    }
}

fn collect_entries(sink: &mut Sink<'_>, entries: &[EntryState]) {
    let mut missing = sink.family(&ENTRIES_MISSING);
    for entry in entries {
        let labels = [entry.device.as_str(), &entry.peer_node, entry.kind.as_str()];
        missing.value(&labels, Value::Integer(entry.is_missing.into()));
    }
}

fn collect_stale(sink: &mut Sink<'_>, entries: &[StaleEntries]) {
    let mut stale = sink.family(&ENTRIES_STALE);
    for entry in entries {
        stale.value(&[entry.device.as_str(), entry.kind.as_str()], Value::Integer(entry.count as u64));
    }
}

fn collect_counts(sink: &mut Sink<'_>, counts: &[OverlayCount]) {
    let mut write = |descriptor, total: fn(&OverlayCount) -> u64| {
        let mut family = sink.family(descriptor);
        for count in counts {
            family.value(&[&count.device, &count.peer_node], Value::Integer(total(count)));
        }
    };
    write(&RECEIVE_BYTES, |count| count.receive_bytes);
    write(&RECEIVE_PACKETS, |count| count.receive_packets);
    write(&TRANSMIT_BYTES, |count| count.transmit_bytes);
    write(&TRANSMIT_PACKETS, |count| count.transmit_packets);
}

/// A peer that is known is counted from 0, so that a rate sees its first packet.
fn zero(device: &str, peer_node: &Arc<str>) -> OverlayCount {
    OverlayCount {
        device: device.to_owned(),
        peer_node: Arc::clone(peer_node),
        receive_packets: 0,
        receive_bytes: 0,
        transmit_packets: 0,
        transmit_bytes: 0,
    }
}

/// A node that had no name yet was counted by an address: these counts are the node's, by whatever name it has now.
fn renamed(count: OverlayCount, registry: &Registry) -> OverlayCount {
    match registry.label_of_address(&count.peer_node) {
        Some(peer_node) => OverlayCount { peer_node, ..count },
        None => count,
    }
}

/// One series for each device and peer: counts that came to have the same labels (two addresses of a node that got
/// its name) are added up.
fn unique(counts: impl IntoIterator<Item = OverlayCount>) -> Vec<OverlayCount> {
    let mut sums: BTreeMap<(String, Arc<str>), OverlayCount> = BTreeMap::new();
    for count in counts {
        match sums.get_mut(&(count.device.clone(), Arc::clone(&count.peer_node))) {
            None => {
                sums.insert((count.device.clone(), Arc::clone(&count.peer_node)), count);
            }
            Some(sum) => {
                sum.receive_packets += count.receive_packets;
                sum.receive_bytes += count.receive_bytes;
                sum.transmit_packets += count.transmit_packets;
                sum.transmit_bytes += count.transmit_bytes;
            }
        }
    }
    sums.into_values().collect()
}

/// Whether packets over this backend need neighbour and forwarding entries of the kernel.
const fn needs_entries(backend: Backend) -> bool {
    matches!(backend, Backend::Vxlan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Node;

    fn overlay(device: &str, backend: Backend) -> Overlay {
        Overlay {
            device: device.to_owned(),
            backend,
            index: 3,
            route_index: 3,
            carrier: None,
            mtu: Some(1450),
            up: true,
        }
    }

    #[test]
    fn support_follows_the_backend() {
        assert_eq!(decide_support(&[], true), Support::Yes);
        let host_gw = overlay("eth0", Backend::HostGw);
        assert!(matches!(decide_support(std::slice::from_ref(&host_gw), true), Support::Degraded(_)));
        assert_eq!(decide_support(&[host_gw, overlay("flannel.1", Backend::Vxlan)], true), Support::Yes);
        assert!(matches!(decide_support(&[], false), Support::Degraded(_)));
    }

    #[test]
    fn counts_with_the_same_labels_are_added_up() {
        let count = |peer: &str, first| OverlayCount {
            device: "flannel.1".to_owned(),
            peer_node: peer.into(),
            receive_packets: first,
            receive_bytes: first + 1,
            transmit_packets: first + 2,
            transmit_bytes: first + 3,
        };
        let sums = unique(vec![count("node2", 10), count("node3", 1), count("node2", 100)]);
        assert_eq!(sums.len(), 2);
        let OverlayCount { receive_packets, receive_bytes, transmit_packets, transmit_bytes, .. } = sums[0];
        assert_eq!([receive_packets, receive_bytes, transmit_packets, transmit_bytes], [110, 112, 114, 116]);
    }

    #[test]
    fn what_was_counted_by_an_address_is_that_of_the_node_that_has_it() {
        let mut registry = Registry::default();
        let underlay = vec!["192.0.2.2".parse().unwrap()];
        registry.merge(Node { name: Some("node2".into()), underlay, ..Node::default() });
        let label = |peer: &str| renamed(zero("flannel.1", &peer.into()), &registry).peer_node.to_string();
        assert_eq!(["192.0.2.2", "192.0.2.3", "node3"].map(label), ["node2", "192.0.2.3", "node3"]);
    }

    #[test]
    fn names_and_kinds_agree() {
        for descriptor in DESCRIPTORS {
            assert!(descriptor.name.starts_with("leadline_overlay_"), "{}", descriptor.name);
            assert_eq!(
                descriptor.kind == Kind::Counter,
                descriptor.name.ends_with("_total"),
                "{}",
                descriptor.name
            );
        }
    }
}
