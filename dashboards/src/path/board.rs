//! The board of the paths between nodes: which layer of which pair is slow or loses packets, what connections of pods meet
//! on top of it, which sizes pass, what is seen of that without probes, what each layer rides on, and how far the measurement
//! is to be believed.

use leadline::metric::Descriptor;

use super::{BLACK_HOLE, REACHABLE};
use crate::board::{Board, Colour, Kind, Panel, Row, Text, Unit, each, each_buckets};
use crate::expression::{Expression, Window, family, is};
use crate::overview;

/// The name of the board in addresses.
pub const UID: &str = "leadline-path";

pub(crate) const MEDIAN: &Descriptor = family("leadline_path_rtt_median_seconds");

const RTT: &Descriptor = family("leadline_path_rtt_seconds");
const JITTER: &Descriptor = family("leadline_path_jitter_seconds");
const SENT: &Descriptor = family("leadline_path_probes_sent_total");
const LOST: &Descriptor = family("leadline_path_probes_lost_total");
const DISCARDED: &Descriptor = family("leadline_path_probes_discarded_total");
const REORDERED: &Descriptor = family("leadline_path_replies_reordered_total");
const DUPLICATE: &Descriptor = family("leadline_path_replies_duplicate_total");
const IGNORED: &Descriptor = family("leadline_path_replies_ignored_total");
const REQUESTS: &Descriptor = family("leadline_path_requests_total");
const DEVICE: &Descriptor = family("leadline_path_device_info");
const NESTED: &Descriptor = family("leadline_path_nested");
const PROMISED: &Descriptor = family("leadline_path_promised_mtu_bytes");
const PASSES: &Descriptor = family("leadline_path_mtu_bytes");
const POD_HANDSHAKE: &Descriptor = family("leadline_path_pod_handshake_seconds");
const POD_LEAST: &Descriptor = family("leadline_path_pod_min_rtt_seconds");
const POD_RETRANSMITS: &Descriptor = family("leadline_path_pod_retransmit_segments_total");
const TOO_BIG: &Descriptor = family("leadline_path_too_big_messages_total");
const TOLD: &Descriptor = family("leadline_path_too_big_mtu_bytes");

/// A path from the node at its beginning.
const PATH: &[&str] = &["cluster", "node", "peer_node", "layer"];
const LAYER: &[&str] = &["cluster", "layer"];
/// Two nodes, seen from the first.
const PAIR: &[&str] = &["cluster", "node", "peer_node"];

/// What is read where no node probes.
pub(crate) const OFF: &str = "the probes are off: --collector.path=on";

/// A share of probes lost above which TCP slows down.
pub(crate) const MANY_LOSSES: f64 = 0.01;

/// The board.
#[must_use]
pub fn board() -> Board {
    Board {
        uid: UID,
        title: "Paths between nodes",
        description: "Probes between the agents of each pair of nodes, on each layer by itself: the underlay, the tunnel, \
                      and the overlay that rides on one of them. The lowest layer that is slow, loses packets or \
                      swallows large ones is the one that broke. Of many pairs the worst ten are shown.",
        variables: Vec::new(),
        annotations: overview::annotations(),
        rows: vec![now(), speed(), pods(), sizes(), signs(), ride(), measurement()],
    }
}

/// The worst that is true of any path.
#[must_use]
pub fn verdict() -> Panel {
    let verdict = Text {
        shows: "Whether the agents reach each other by probes, on the underlay, in the tunnel and on the overlay, lose less than 1 % of them, and get those of full size.",
        normal: "healthy; not seen where the probes are off, as they are by default (`--collector.path=on`).",
        otherwise: "a loss on all layers is the network's; one on the overlay or in the tunnel alone is theirs, as a drop of its UDP port. Black hole: large packets vanish; lower the MTU of that layer, or let ICMP pass.",
    };
    let findings = vec![
        ("unreachable", Colour::Red, each(REACHABLE, &[]).equals(0)),
        ("black hole", Colour::Red, each(BLACK_HOLE, &[]).equals(1)),
        ("losses", Colour::Orange, lost(PATH, &[]).above(MANY_LOSSES)),
    ];
    Panel::verdict("Path", verdict, &["cluster"], each(REACHABLE, &[]), findings)
}

/// Probes a second of that kind.
fn probes(family: &'static Descriptor, labels: &[&'static str]) -> Expression {
    each(family, &[]).rate(Window::Rate).sum_by(labels)
}

/// The share of probes that were lost, also by further labels.
pub(crate) fn lost(labels: &'static [&'static str], further: &[&'static str]) -> Expression {
    probes(LOST, &[labels, further].concat()).over(labels, probes(SENT, labels))
}

fn now() -> Row {
    let slowest = Text {
        shows: "The slowest pair of nodes on each layer: the median of its last 64 round trips.",
        normal: "the overlay some microseconds above what carries it, the tunnel some hundred.",
        otherwise: "all layers are slow: the network is. Only one is, and what it carries: that layer is.",
    };
    let unreachable = Text {
        shows: "Paths that three probes in a row got no answer on.",
        normal: "empty.",
        otherwise: "all layers of a pair: the node or its network. One layer alone: see the runbook PathLayerUnreachable.",
    };
    let holes = Text {
        shows: "Paths on which packets of the size that the kernel would send vanish without a word, while smaller ones pass.",
        normal: "empty.",
        otherwise: "connections there open and then hang: see the runbook PathBlackHole.",
    };
    Row {
        title: "Which layer of which pair broke?",
        height: 6,
        panels: vec![
            verdict().wide(5),
            Panel::new("Round trip of the slowest pair", Kind::Stat, Unit::Seconds, slowest)
                .ask(each(MEDIAN, &[]).max_by(LAYER), "{{layer}}")
                .base(Colour::Blue)
                .nothing("not seen")
                .wide(7),
            Panel::new("Unreachable paths", Kind::Timeline, Unit::Count, unreachable)
                .ask(each(REACHABLE, &[]).max_by(PATH).equals(0), "{{layer}} {{node}} to {{peer_node}}")
                .words(&[(0, "unreachable", Colour::Red)])
                .nothing("none, or the probes are off")
                .wide(6),
            Panel::new("Black holes", Kind::Timeline, Unit::Count, holes)
                .ask(each(BLACK_HOLE, &[]).max_by(PATH).equals(1), "{{layer}} {{node}} to {{peer_node}}")
                .words(&[(1, "large packets vanish", Colour::Red)])
                .nothing("none, or the probes are off")
                .wide(6),
        ],
    }
}

fn speed() -> Row {
    let median = Text {
        shows: "The slowest ten paths: the median of the last 64 round trips of each, device to device.",
        normal: "flat.",
        otherwise: "every pair with one node: that node or its link. One layer of a pair: that layer, and not what it rides on.",
    };
    let slow = Text {
        shows: "The 99th percentile of round trips over all pairs, by layer, as fine as the buckets are.",
        normal: "some times the median.",
        otherwise: "it rises while the median stays: queues that fill now and then, as by a backup, or a busy node.",
    };
    let loss = Text {
        shows: "The ten paths that lose the greatest share of their probes, by direction.",
        normal: "0.",
        otherwise: "one direction only: look at what filters or queues there. Both, on all layers: the link.",
    };
    let jitter = Text {
        shows: "The ten paths whose time of transit changes most from probe to probe, by direction (RFC 3550).",
        normal: "tens of microseconds on wires, milliseconds by radio.",
        otherwise: "the direction says at whose end packets wait.",
    };
    let order = Text {
        shows: "Answers that came out of order, and further answers to one probe, a second.",
        normal: "0.",
        otherwise: "out of order: several links are taken in turn. Twice: a loop, or a switch that floods.",
    };
    let directed: &[&str] = &["cluster", "node", "peer_node", "layer", "direction"];
    let buckets: &[&str] = &["cluster", "layer", "le"];
    Row {
        title: "Is it slow, and does it lose packets?",
        height: 8,
        panels: vec![
            Panel::new("Round trip, slowest paths", Kind::Lines, Unit::Seconds, median)
                .nothing(OFF)
                .ask(each(MEDIAN, &[]).max_by(PATH).top(10), "{{layer}} {{node}} to {{peer_node}}")
                .wide(12),
            Panel::new("Lost probes, worst paths", Kind::Lines, Unit::Share, loss)
                .nothing(OFF)
                .ask(lost(PATH, &["direction"]).top(10), "{{layer}} {{node}} to {{peer_node}} {{direction}}")
                .from(&[(MANY_LOSSES, Colour::Red)])
                .wide(12),
            Panel::new("Round trip, 99th percentile", Kind::Lines, Unit::Seconds, slow)
                .nothing(OFF)
                .ask(each_buckets(RTT, &[]).rate(Window::Rate).sum_by(buckets).quantile(0.99), "{{layer}}"),
            Panel::new("Jitter, worst paths", Kind::Lines, Unit::Seconds, jitter).nothing(OFF).ask(
                each(JITTER, &[]).max_by(directed).top(10),
                "{{layer}} {{node}} to {{peer_node}} {{direction}}",
            ),
            Panel::new("Out of order and twice", Kind::Lines, Unit::PerSecond, order)
                .nothing(OFF)
                .ask(probes(REORDERED, LAYER), "{{layer}} out of order")
                .ask(probes(DUPLICATE, LAYER), "{{layer}} twice"),
        ],
    }
}

fn pods() -> Row {
    let handshake = Text {
        shows: "The 99th percentile of handshakes of TCP between pods of each pair of nodes, the ten slowest. Nothing is sent for it.",
        normal: "the round trip of the overlay above, and some ten microseconds of the two stacks.",
        otherwise: "slower than the overlay: the pods' own devices, policies or nodes without processor time. As slow: begin at the overlay.",
    };
    let least = Text {
        shows: "The least round trip of TCP between pods of each pair of nodes within 10 to 20 s, the ten slowest.",
        normal: "flat.",
        otherwise: "it rises with the overlay: what carries that. Alone: the pods of that pair. Connections to a Service count where they are accepted.",
    };
    let buckets: &[&str] = &["cluster", "node", "peer_node", "le"];
    let slow = each_buckets(POD_HANDSHAKE, &[]).rate(Window::Rate).sum_by(buckets).quantile(0.99).above(0);
    Row {
        title: "What do connections of pods meet on top of it?",
        height: 7,
        panels: vec![
            Panel::new("Handshakes of pods, 99th percentile", Kind::Lines, Unit::Seconds, handshake)
                .nothing("no connection between pods of two nodes")
                .ask(slow.top(10), "{{node}} with {{peer_node}}")
                .wide(12),
            Panel::new("Least round trip of pods", Kind::Lines, Unit::Seconds, least)
                .nothing("no connection between pods of two nodes")
                .ask(each(POD_LEAST, &[]).max_by(PAIR).top(10), "{{node}} with {{peer_node}}")
                .wide(12),
        ],
    }
}

fn sizes() -> Row {
    let passes = Text {
        shows: "The largest packet that was answered on each path of the chosen nodes.",
        normal: "1500 on the underlay, 50 bytes less on a VXLAN over it, 1280 in a tunnel of Tailscale, and 1230 on a VXLAN in that.",
        otherwise: "less than promised: something on the way takes no larger ones.",
    };
    let promised = Text {
        shows: "The largest packet that the kernel would send on each path of the chosen nodes.",
        normal: "the same as what passes.",
        otherwise: "too large: set the MTU of that layer to `leadline_path_fitting_mtu_bytes`, or to what passes. Too small: a router has told so, or a route says it.",
    };
    let name = "{{layer}} {{node}} {{peer_node}}";
    Row {
        title: "Do packets of full size pass?",
        height: 7,
        panels: vec![
            Panel::new("What passes", Kind::Table, Unit::Of("bytes"), passes)
                .nothing(OFF)
                .ask(each(PASSES, &[]).max_by(PATH), name)
                .value_name("largest packet")
                .wide(12),
            Panel::new("What the kernel would send", Kind::Table, Unit::Of("bytes"), promised)
                .nothing(OFF)
                .ask(each(PROMISED, &[]).max_by(PATH), name)
                .value_name("largest packet")
                .wide(12),
        ],
    }
}

fn signs() -> Row {
    let again = Text {
        shows: "Segments of TCP a second that pods sent again to pods of another node, full ones and smaller ones, and messages of routers a second that a packet to another node was too big: of each the ten pairs with most. Nothing is sent for it.",
        normal: "0, or as many segments of either size as the loss of the path makes; no messages, or some when a path becomes narrower.",
        otherwise: "full ones alone: large packets vanish without a word, see the runbook PathBlackHole. Both: losses. Messages that go on: whoever sends there does not heed them.",
    };
    let told = Text {
        shows: "The largest packet that a router has said it passes on, for as long as the kernel remembers it (10 min).",
        normal: "empty: each layer has the MTU of what carries it.",
        otherwise: "lower the MTU of that layer to it: the first packet of each path is lost every ten minutes.",
    };
    let segments = |size| {
        let of_size = each(POD_RETRANSMITS, &[is("size", size)]);
        of_size.rate(Window::Rate).sum_by(PAIR).top(10)
    };
    let refused = each(TOO_BIG, &[]).rate(Window::Rate).sum_by(PAIR).above(0).top(10);
    Row {
        title: "What says without probes that a path is too narrow?",
        height: 7,
        panels: vec![
            Panel::new("Sent again and refused", Kind::Lines, Unit::PerSecond, again)
                .nothing("pods of no other node are known")
                .ask(segments("full"), "{{node}} to {{peer_node}} full")
                .ask(segments("smaller"), "{{node}} to {{peer_node}} smaller")
                .ask(refused, "{{node}} to {{peer_node}} refused by a router")
                .wide(12),
            Panel::new("MTU that routers tell", Kind::Table, Unit::Of("bytes"), told)
                .nothing("none")
                .ask(each(TOLD, &[]).max_by(PAIR), "{{node}} {{peer_node}}")
                .value_name("largest packet")
                .wide(12),
        ],
    }
}

fn ride() -> Row {
    let device = Text {
        shows: "By which device packets of each path leave, and by which one those leave in turn that carry them.",
        normal: "the underlay and the tunnel by devices of their own, the overlay carried by one of them.",
        otherwise: "an overlay that leaves by eth0 where it should be in the tunnel is neither encrypted nor reachable from elsewhere.",
    };
    let nested = Text {
        shows: "Paths whose packets are encapsulated more often than their layer says.",
        normal: "empty.",
        otherwise: "an overlay in a tunnel must have 50 bytes less than the tunnel; a tunnel in the overlay should be kept out of it.",
    };
    let places = &["cluster", "node", "peer_node", "layer", "device", "carrier"];
    Row {
        title: "What does each layer ride on?",
        height: 7,
        panels: vec![
            Panel::new("Devices", Kind::Table, Unit::Count, device)
                .nothing(OFF)
                .ask(
                    each(DEVICE, &[]).max_by(places),
                    "{{layer}} {{node}} {{peer_node}} {{device}} {{carrier}}",
                )
                .wide(14),
            Panel::new("Nested", Kind::Timeline, Unit::Count, nested)
                .ask(each(NESTED, &[]).max_by(PATH).equals(1), "{{layer}} {{node}} to {{peer_node}}")
                .words(&[(1, "encapsulated twice", Colour::Yellow)])
                .nothing("none, or the probes are off")
                .wide(10),
        ],
    }
}

fn measurement() -> Row {
    let discarded = Text {
        shows: "Probes a second that say nothing of the network, by reason.",
        normal: "0.",
        otherwise: "pause: this node's agent gets no processor time. clock_step: a clock was set, here or there.",
    };
    let ignored = Text {
        shows: "Datagrams a second at the port of the probes that no probe of this node asked for, by reason.",
        normal: "0.",
        otherwise: "unauthenticated: a node has another key. Others: somebody else sends there.",
    };
    let requests = Text {
        shows: "Probes of other nodes a second, by what became of them.",
        normal: "only answered.",
        otherwise: "unknown_sender: a node that this one does not know, or the address of a NAT. unauthenticated: another key.",
    };
    let by = |family, label: &'static str| probes(family, &["cluster", label]);
    Row {
        title: "Is the measurement to be believed?",
        height: 6,
        panels: vec![
            Panel::new("Discarded probes", Kind::Lines, Unit::PerSecond, discarded)
                .nothing(OFF)
                .ask(by(DISCARDED, "reason"), "{{reason}}"),
            Panel::new("Ignored answers", Kind::Lines, Unit::PerSecond, ignored)
                .nothing(OFF)
                .ask(by(IGNORED, "reason"), "{{reason}}"),
            Panel::new("Probes of others", Kind::Lines, Unit::PerSecond, requests)
                .nothing(OFF)
                .ask(by(REQUESTS, "result"), "{{result}}"),
        ],
    }
}
