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
    "Round trips to another node's agent, device to device: from when the kernel gave the probe to the device to when it took the answer from one, without the time that the other node had it. A round trip is counted once the next answer has told when this one really left, and as it stands where none comes.",
    "tcpdump's times of the same probes at both ends: count within 3 probes about two scrapes, mean within 20 us",
);

pub(super) static MEDIAN: Descriptor = of_path(
    "leadline_path_rtt_median_seconds",
    Kind::Gauge,
    Some("seconds"),
    PATH,
    "The median of the last 64 round trips, for comparing layers more finely than buckets allow.",
    "the median of the same probes by tcpdump's times at the underlay devices of both ends, within 20 us at 0 and 10 ms of delay, even and uneven, on underlay and overlay",
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
    "tcpdump at the underlay device between two scrapes: 2 probes",
);

pub(super) static LOST: Descriptor = of_path(
    "leadline_path_probes_lost_total",
    Kind::Counter,
    None,
    PATH_DIRECTION,
    "Probes lost, by where: forward to the peer, reverse on the way back, told apart by the numbers that the peer gives what it got. Unknown where that cannot be told: before the first answer, after ten seconds without one, and where the other agent began anew. Told when a later probe has been answered, at the earliest after two seconds.",
    "the count of an nftables rule that drops 10 % in one direction, exact, on underlay and overlay",
);

pub(super) static DISCARDED: Descriptor = of_path(
    "leadline_path_probes_discarded_total",
    Kind::Counter,
    None,
    &["peer_node", "layer", "reason"],
    "Probes that say nothing of the network. pause: this agent did not run while they were under way, and no answer was found afterwards; clock_step: a clock was set meanwhile, here or there.",
    "recorded times with a pause and with clock steps in unit tests",
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
    witness: "datagrams of a stranger, of which each is counted and none answered, and of a node, which is answered; those of a node with another key, with none, and with one where this agent has none: as many as tcpdump saw, exact, and none answered",
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
];
