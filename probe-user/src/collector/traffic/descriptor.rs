//! The twelve families of traffic: three scopes, two directions, bytes and packets.

use crate::ledger::Volume;
use crate::metric::{Descriptor, Kind, Profile};

/// Whose traffic a family shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Pod,
    Unit,
    Node,
}

impl Scope {
    const fn profile(self) -> Profile {
        match self {
            Self::Pod | Self::Unit => Profile::Standard,
            Self::Node => Profile::Minimal,
        }
    }
}

/// A family, and which counter it shows.
pub(super) struct Family {
    pub(super) standard: Descriptor,
    pub(super) detailed: Descriptor,
    pub(super) scope: Scope,
    pub(super) read: fn(&Volume) -> u64,
}

const SOURCE: &str =
    "cgroup_skb at the root of cgroup v2 (__cgroup_bpf_run_filter_skb), skb gso_segs and gso_size";
const WITNESS: &str = "veth counters with segmentation offloads off, iperf3 payload, OutSegs + RetransSegs of the sender: difference 0";

const fn descriptor(
    scope: Scope,
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    labels: &'static [&'static str],
) -> Descriptor {
    let profile = scope.profile();
    Descriptor { name, kind: Kind::Counter, unit, help, labels, profile, source: SOURCE, witness: WITNESS }
}

const RECEIVE_BYTES: fn(&Volume) -> u64 = |volume| volume.receive_bytes;
const RECEIVE_PACKETS: fn(&Volume) -> u64 = |volume| volume.receive_packets;
const TRANSMIT_BYTES: fn(&Volume) -> u64 = |volume| volume.transmit_bytes;
const TRANSMIT_PACKETS: fn(&Volume) -> u64 = |volume| volume.transmit_packets;

macro_rules! family {
    ($scope:ident, $name:literal, $unit:expr, $read:ident, $help:literal, $labels:expr, $detailed:expr) => {
        Family {
            standard: descriptor(Scope::$scope, $name, $unit, $help, &$labels),
            detailed: descriptor(Scope::$scope, $name, $unit, $help, &$detailed),
            scope: Scope::$scope,
            read: $read,
        }
    };
}

macro_rules! pod {
    ($name:literal, $unit:expr, $read:ident, $help:literal) => {
        family!(
            Pod,
            $name,
            $unit,
            $read,
            $help,
            ["namespace", "pod", "peer_class"],
            ["namespace", "pod", "peer_class", "protocol"]
        )
    };
}

macro_rules! unit {
    ($name:literal, $unit:expr, $read:ident, $help:literal) => {
        family!(Unit, $name, $unit, $read, $help, ["unit", "peer_class"], ["unit", "peer_class", "protocol"])
    };
}

macro_rules! node {
    ($name:literal, $unit:expr, $read:ident, $help:literal) => {
        family!(Node, $name, $unit, $read, $help, ["peer_class"], ["peer_class"])
    };
}

const BYTES: Option<&str> = Some("bytes");
/// Packets are a count, not a unit.
const PACKETS: Option<&str> = None;

/// All families, in the order of the exposition.
pub(super) static FAMILIES: [Family; 12] = [
    pod!(
        "leadline_pod_receive_bytes_total",
        BYTES,
        RECEIVE_BYTES,
        "Layer 3 bytes that sockets of the pod received, as on the wire, headers of every segment included. The detailed profile adds the label protocol."
    ),
    pod!(
        "leadline_pod_receive_packets_total",
        PACKETS,
        RECEIVE_PACKETS,
        "Packets that sockets of the pod received, as on the wire: a GSO packet counts as its segments."
    ),
    pod!(
        "leadline_pod_transmit_bytes_total",
        BYTES,
        TRANSMIT_BYTES,
        "Layer 3 bytes that sockets of the pod sent, as on the wire, headers of every segment included."
    ),
    pod!(
        "leadline_pod_transmit_packets_total",
        PACKETS,
        TRANSMIT_PACKETS,
        "Packets that sockets of the pod sent, as on the wire: a GSO packet counts as its segments."
    ),
    unit!(
        "leadline_unit_receive_bytes_total",
        BYTES,
        RECEIVE_BYTES,
        "Layer 3 bytes that sockets of the systemd unit received; unit kernel is the kernel's own sockets."
    ),
    unit!(
        "leadline_unit_receive_packets_total",
        PACKETS,
        RECEIVE_PACKETS,
        "Packets that sockets of the systemd unit received."
    ),
    unit!(
        "leadline_unit_transmit_bytes_total",
        BYTES,
        TRANSMIT_BYTES,
        "Layer 3 bytes that sockets of the systemd unit sent."
    ),
    unit!(
        "leadline_unit_transmit_packets_total",
        PACKETS,
        TRANSMIT_PACKETS,
        "Packets that sockets of the systemd unit sent."
    ),
    node!(
        "leadline_node_receive_bytes_total",
        BYTES,
        RECEIVE_BYTES,
        "Layer 3 bytes that all local sockets received: a sum of sockets, not of the network card."
    ),
    node!(
        "leadline_node_receive_packets_total",
        PACKETS,
        RECEIVE_PACKETS,
        "Packets that all local sockets received."
    ),
    node!(
        "leadline_node_transmit_bytes_total",
        BYTES,
        TRANSMIT_BYTES,
        "Layer 3 bytes that all local sockets sent."
    ),
    node!(
        "leadline_node_transmit_packets_total",
        PACKETS,
        TRANSMIT_PACKETS,
        "Packets that all local sockets sent."
    ),
];

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &FAMILIES[0].standard,
    &FAMILIES[1].standard,
    &FAMILIES[2].standard,
    &FAMILIES[3].standard,
    &FAMILIES[4].standard,
    &FAMILIES[5].standard,
    &FAMILIES[6].standard,
    &FAMILIES[7].standard,
    &FAMILIES[8].standard,
    &FAMILIES[9].standard,
    &FAMILIES[10].standard,
    &FAMILIES[11].standard,
];
