//! The families of paths.

use crate::metric::{Descriptor, Kind, Profile};

const PROBES: &str = "STAMP probes of this node, with the kernel's times of both ends";
const REFLECTOR: &str = "the STAMP reflector of this node";
const PATH: &[&str] = &["peer_node", "layer"];
const PATH_DIRECTION: &[&str] = &["peer_node", "layer", "direction"];

const fn of_path(
    name: &'static str,
    kind: Kind,
    unit: Option<&'static str>,
    labels: &'static [&'static str],
    help: &'static str,
    witness: &'static str,
) -> Descriptor {
    Descriptor { name, kind, unit, help, labels, profile: Profile::Minimal, source: PROBES, witness }
}

pub(super) static RTT: Descriptor = of_path(
    "leadline_path_rtt_seconds",
    Kind::Histogram,
    Some("seconds"),
    PATH,
    "Round trips to another node's agent, device to device: from when the kernel gave the probe to the device to when it took the answer from one, without the time that the other node had it. A round trip is counted once the next answer has told when this one really left, and as it stands where none of four does: another reflector of STAMP may not tell, and what it takes to send, and to come to the probe where it has no times of the kernel, is then in the round trip. Bounds are four times each other, and a quantile is known no better than that.",
    "tcpdump's times of the same probes at both ends, at 0, 1, 10 and 100 ms of delay, even, uneven and changing: count within 10 probes about two scrapes at 500 a second, mean within 20 us, and each bucket, so that the 99th percentile of both is in the same one, but for what is within 20 us of its bounds; at the reflector of stamp-suite the mean within 20 us with follow-ups, and without them up to 10 us longer, or by what it takes to run it, 110 us and more, where its times are not the kernel's",
);

pub(super) static MEDIAN: Descriptor = of_path(
    "leadline_path_rtt_median_seconds",
    Kind::Gauge,
    Some("seconds"),
    PATH,
    "The median of the last 64 round trips, for comparing layers more finely than buckets allow.",
    "the median of the same probes by tcpdump's times at the underlay devices of both ends, within 20 us at 0, 1, 10 and 100 ms of delay, even, uneven and changing, and with a busy reflector, on underlay and overlay, and within 50 us in a tailnet by the times at its devices",
);

pub(super) static JITTER: Descriptor = of_path(
    "leadline_path_jitter_seconds",
    Kind::Gauge,
    Some("seconds"),
    PATH_DIRECTION,
    "Smoothed change of the time of transit from probe to probe (RFC 3550), forward to the peer and reverse back here. The clocks of both nodes may differ: only changes count.",
    "RFC 3550's formula over tcpdump's times of the same probes at both ends, within 10 us or 20 %",
);

pub(super) static REACHABLE: Descriptor = of_path(
    "leadline_path_reachable",
    Kind::Gauge,
    None,
    PATH,
    "Whether the last probes were answered: 0 after three in a row that were not, within two seconds each.",
    "recorded silences in unit tests; 1 in the lab while an agent stands still for 3 s and goes on",
);

pub(super) static SENT: Descriptor = of_path(
    "leadline_path_probes_sent_total",
    Kind::Counter,
    None,
    PATH,
    "Probes sent.",
    "tcpdump at the underlay device between two scrapes: 2 probes at 100 a second, 10 at 500",
);

pub(super) static LOST: Descriptor = of_path(
    "leadline_path_probes_lost_total",
    Kind::Counter,
    None,
    PATH_DIRECTION,
    "Probes lost, by where: forward to the peer, reverse on the way back, told apart by the numbers that the peer gives what it got. Unknown where that cannot be told: before the first answer, after ten seconds without one, where the other agent began anew, and at a stateless reflector of another make, which repeats the numbers it gets: forward and reverse are then absent, as they are before the second answer. Told when a later probe has been answered, at the earliest after two seconds.",
    "the counts of nftables rules that drop 0.1, 1, 10 and 50 % of 20,000 probes in one direction, at 500 a second, on underlay and overlay: exact, and 0 in the other direction; 10 % in either direction at the reflector of stamp-suite, stateful and stateless: exact",
);

pub(super) static DISCARDED: Descriptor = of_path(
    "leadline_path_probes_discarded_total",
    Kind::Counter,
    None,
    &["peer_node", "layer", "reason"],
    "Probes that say nothing of the network. pause: this agent did not run while they were under way, and no answer was found afterwards; clock_step: a clock was set meanwhile, here or there.",
    "recorded times with a pause and with clock steps in unit tests; a virtual machine whose clock is set by an hour and back: no loss, and no round trip that is not the network's",
);

pub(super) static REORDERED: Descriptor = of_path(
    "leadline_path_replies_reordered_total",
    Kind::Counter,
    None,
    PATH,
    "Answers that came after that to a later probe, in whichever direction one overtook the other.",
    "tcpdump at the underlay device while one datagram of seven is late: exact, but for one about each scrape",
);

pub(super) static DUPLICATES: Descriptor = of_path(
    "leadline_path_replies_duplicate_total",
    Kind::Counter,
    None,
    PATH,
    "Further answers to a probe that was answered already.",
    "tcpdump at the underlay device while one datagram of eleven comes twice: exact, but for one about each scrape",
);

pub(super) static IGNORED: Descriptor = of_path(
    "leadline_path_replies_ignored_total",
    Kind::Counter,
    None,
    &["reason"],
    "Datagrams to the port of this node's probes that are not used. unauthenticated: without a right code where there is a key; malformed: no STAMP packet; unexpected: from somebody who was not asked, or after the loss was told.",
    "answers to nothing in unit tests; forged answers in the lab, exact, and 0 unauthenticated otherwise where all agents have one key",
);

pub(super) static REQUESTS: Descriptor = Descriptor {
    name: "leadline_path_requests_total",
    kind: Kind::Counter,
    unit: None,
    help: "Datagrams to this node's reflector. answered; unknown_sender: from an address that is no other node's; unauthenticated: without a right code where there is a key; malformed: no STAMP packet, as is one with a code where there is no key, or from the port of a reflector; rate_limited: more than 1500 a second from one address; failed: the kernel did not send the answer. Only answered ones get an answer, never a larger one than themselves.",
    labels: &["result"],
    profile: Profile::Minimal,
    source: REFLECTOR,
    witness: "datagrams of a stranger, of which each is counted and none answered, and of a node, which is answered; those of a node with another key, with none, and with one where this agent has none: as many as tcpdump saw, exact, and none answered; 300 packets of the sender of stamp-suite, with a key and without: as many as it and tcpdump count, exact",
};

const ROUTES: &str = "the kernel's look-up of routes (RTM_GETROUTE); forwarding entries of the VXLAN device; the endpoint that tailscaled names";

pub(super) static DEVICE: Descriptor = Descriptor {
    name: "leadline_path_device_info",
    kind: Kind::Gauge,
    unit: None,
    help: "1; by which device packets of a path leave, and by which one these leave in turn, encapsulated: flannel.1 carried by eth0. The carrier is empty where there is none, or where it cannot be told (an idle or relayed tunnel, WireGuard). Absent where no route leads there.",
    labels: &["peer_node", "layer", "device", "carrier"],
    profile: Profile::Minimal,
    source: ROUTES,
    witness: "`ip route get` of the address and of the outer address, on underlay, tunnel and overlay",
};

pub(super) static NESTED: Descriptor = Descriptor {
    name: "leadline_path_nested",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether packets of a path are encapsulated more often than the layer says: an overlay carried by a tunnel, a tunnel by the overlay, a node's address reached through either. Each time costs bytes of the MTU. Absent where that cannot be told.",
    labels: PATH,
    profile: Profile::Minimal,
    source: ROUTES,
    witness: "flannel on eth0, and moved to tailscale0",
};

const SIZES: &str =
    "STAMP probes with padding (RFC 8972, 4.1) that nobody may fragment, one a minute and path";

pub(super) static PROMISED_MTU: Descriptor = Descriptor {
    name: "leadline_path_promised_mtu_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    help: "The largest packet of IP that the kernel would send there: the MTU of the device, or less where the route or a router's word says so; 9216 at most.",
    labels: PATH,
    profile: Profile::Minimal,
    source: ROUTES,
    witness: "`ip link` and `ip route get`",
};

pub(super) static FITTING_MTU: Descriptor = Descriptor {
    name: "leadline_path_fitting_mtu_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    help: "The largest packet of IP that is still whole once VXLAN or WireGuard has encapsulated it for the device that carries it: what the MTU of an overlay or a tunnel should be. Where more is promised, packets are cut into fragments, or lost. Absent where there is no carrier or it cannot be told.",
    labels: PATH,
    profile: Profile::Minimal,
    source: "MTU of the carrier less what RFC 7348, 5 and the WireGuard protocol put around a packet",
    witness: "flannel's own choice on eth0 and on tailscale0; the largest ping that passes a tunnel of which no fragments do",
};

pub(super) static MTU: Descriptor = Descriptor {
    name: "leadline_path_mtu_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    help: "The largest packet of IP that was answered by one of the same size: the promised one, or what is found when that is lost three times in a row while small ones pass. Absent before the first answer.",
    labels: PATH,
    profile: Profile::Minimal,
    source: SIZES,
    witness: "an nftables rule that drops what is larger, to the byte",
};

pub(super) static BLACK_HOLE: Descriptor = Descriptor {
    name: "leadline_path_mtu_black_hole",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether packets of the promised size vanish without a word, there or on the way back, while smaller ones pass. 0 where a router says so: the kernel then sends smaller ones. Absent while that is not known.",
    labels: PATH,
    profile: Profile::Minimal,
    source: SIZES,
    witness: "an nftables rule that drops what is larger; a router with a smaller MTU, which tells it",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &RTT,
    &MEDIAN,
    &JITTER,
    &REACHABLE,
    &SENT,
    &LOST,
    &DISCARDED,
    &REORDERED,
    &DUPLICATES,
    &IGNORED,
    &REQUESTS,
    &DEVICE,
    &NESTED,
    &PROMISED_MTU,
    &FITTING_MTU,
    &MTU,
    &BLACK_HOLE,
];
