//! The board to begin with: which layer broke.
//!
//! One word a layer, side by side where a screen begins, and one row a layer below, in the same order. Each layer
//! stands on those before it, so that the first broken one is the cause of those after it: without etcd the API server
//! behind a virtual address serves nobody, and what pods meet comes last.

mod way;

use leadline::metric::Descriptor;

use crate::agent::FAILURES;
use crate::board::{
    self, Annotation, Board, Colour, HALF, Kind, Panel, Row, Text, Unit, WIDTH, all, each, each_buckets,
};
use crate::expression::{Expression, Window, family, is_not, like};
use crate::{etcd, path, tunnel, vip};
use way::{paths, tunnels};

const SUCCESS: &Descriptor = family("leadline_collector_success");
const SUPPORT: &Descriptor = family("leadline_collector_support");
const EVENTS_LOST: &Descriptor = family("leadline_events_lost_total");
const START: &Descriptor = family("process_start_time_seconds");

const RECEIVED: &Descriptor = family("leadline_node_receive_bytes_total");
const SENT: &Descriptor = family("leadline_node_transmit_bytes_total");
const RTT: &Descriptor = family("leadline_tcp_node_rtt_seconds");
const SEGMENTS: &Descriptor = family("leadline_tcp_transmit_segments_total");
const RETRANSMITS: &Descriptor = family("leadline_tcp_retransmit_segments_total");
const CONNECT_FAILURES: &Descriptor = family("leadline_tcp_connect_failures_total");

const OVERLAY: &Descriptor = family("leadline_overlay_info");
const OVERLAY_UP: &Descriptor = family("leadline_overlay_device_up");
const OVERLAY_MISSING: &Descriptor = family("leadline_overlay_entries_missing");
const OVERLAY_BYTES: &Descriptor = family("leadline_overlay_transmit_bytes_total");

const CLUSTER: &[&str] = &["cluster"];
const POD: &[&str] = &["cluster", "namespace", "pod"];

/// A share of segments sent again above which users notice.
const MANY_RETRANSMITS: f64 = 0.05;
/// Segments a second below which one that is sent again is no share of anything.
const FEW_SEGMENTS: f64 = 10.0;

/// The board.
#[must_use]
pub fn board() -> Board {
    Board {
        uid: "leadline-overview",
        title: "Which layer broke",
        description: "One word a layer, and below it one row a layer in the same order. The first broken one from the \
                      left is where to begin: a layer stands on those to its left, an API server behind a virtual \
                      address on etcd, and pods meet what broke below them. \"Not seen\" is no \"healthy\": then \
                      nothing on these nodes can tell.",
        variables: Vec::new(),
        annotations: annotations(),
        rows: vec![verdicts(), agents(), paths(), tunnels(), overlay(), quorum(), virtual_ip(), pod()],
    }
}

/// What explains a step in any panel.
#[must_use]
pub fn annotations() -> Vec<Annotation> {
    vec![
        vip::board::failovers(),
        etcd::board::leader_changes(),
        Annotation {
            name: "Agent restarts",
            expression: each(START, &[]).changes(Window::Rate).max_by(&["cluster", "node"]).above(0),
            title: "The agent of {{node}} began anew",
            colour: Colour::Grey,
        },
    ]
}

fn verdicts() -> Row {
    let layers = [
        path::board::verdict().more(path::board::UID, None),
        tunnel::board::verdict().more(tunnel::board::UID, None),
        overlay_verdict(),
        etcd::board::verdict().more(etcd::board::UID, None),
        vip::board::verdict(CLUSTER, &[]).more(vip::board::UID, None),
        pod_verdict(),
    ];
    Row {
        title: "Which layer broke? Begin with the first from the left that is not healthy",
        height: 4,
        panels: layers.into_iter().map(|panel| panel.wide(4)).collect(),
    }
}

fn agents() -> Row {
    let collector = &["cluster", "node", "collector"];
    let failing = each(SUCCESS, &[]).max_by(collector).equals(0);
    let blind = failing.or(each(SUPPORT, &[like("reason", FAILURES)]).max_by(collector));
    let lost = each(EVENTS_LOST, &[]).increase(Window::Range).sum_by(CLUSTER);
    let down = Text {
        shows: "Agents that cannot be scraped. All other panels are blind to what only they see.",
        normal: "all up.",
        otherwise: "see the runbook LeadlineAgentDown, and read the other rows as what the remaining nodes see.",
    };
    let blind_text = Text {
        shows: "Collectors that fail, or could not do on their node what they should; not those that have nothing to look at.",
        normal: "none.",
        otherwise: "`leadline_collector_support` has the reasons; see the runbook LeadlineAgentBlind.",
    };
    let lost_text = Text {
        shows: "Events that were lost within the time shown, before anybody read them.",
        normal: "none.",
        otherwise: "counters stay exact, but moves of addresses and changes of leaders may be missing: see the label `source`.",
    };
    Row {
        title: "Do the agents see?",
        height: 3,
        panels: vec![
            Panel::new("Agents", Kind::Stat, Unit::Of("down"), down)
                .ask(
                    Expression::number(
                        CLUSTER,
                        board::up().max_by(&["cluster", "node"]).equals(0),
                        board::up(),
                    ),
                    "{{cluster}}",
                )
                .words(&[(0, "all up", Colour::Green)])
                .from(&[(HALF, Colour::Red)])
                .nothing("none is a target"),
            Panel::new("Blind collectors", Kind::Stat, Unit::Of("blind"), blind_text)
                .ask(Expression::number(CLUSTER, blind, each(SUCCESS, &[]).max_by(collector)), "{{cluster}}")
                .words(&[(0, "none", Colour::Green)])
                .from(&[(HALF, Colour::Orange)])
                .nothing("no agent seen"),
            Panel::new("Lost events", Kind::Stat, Unit::Of("lost"), lost_text)
                .ask(lost, "{{cluster}}")
                .words(&[(0, "none", Colour::Green)])
                .from(&[(HALF, Colour::Orange)])
                .nothing("no agent seen"),
        ],
    }
}

/// Segments sent again over all of a pod.
fn retransmitted() -> Expression {
    let all = each(SEGMENTS, &[]).rate(Window::Rate).sum_by(POD).at_least(FEW_SEGMENTS);
    each(RETRANSMITS, &[]).rate(Window::Rate).sum_by(POD).over(POD, all)
}

/// Attempts to connect that nobody answered: refusals are answers.
fn unanswered() -> Expression {
    let unanswered = each(CONNECT_FAILURES, &[like("reason", "timed_out|unreachable")]);
    unanswered.rate(Window::Rate).sum_by(&["cluster", "namespace", "pod", "reason"])
}

fn pod_verdict() -> Panel {
    let verdict = Text {
        shows: "The worst that any pod of the chosen nodes meets at its own sockets: connections that nobody answers, or more than 5 % of its segments sent again.",
        normal: "healthy. Without families of pods (profile minimal): not seen.",
        otherwise: "the row of pods below names pods and reasons. Where a layer to the left is broken as well, begin there.",
    };
    let findings = vec![
        ("connections fail", Colour::Red, unanswered().above(0)),
        ("retransmissions", Colour::Orange, retransmitted().above(MANY_RETRANSMITS)),
    ];
    Panel::verdict("Pods", verdict, CLUSTER, retransmitted(), findings)
}

fn pod() -> Row {
    let traffic = Text {
        shows: "Bytes of layer 3 that the sockets of the chosen nodes receive and send, by what the peer is, loopback left out.",
        normal: "what your cluster usually does; compare with an earlier time.",
        otherwise: "a class that falls to nothing names the way that broke: pod_remote rides on the overlay, node on the underlay.",
    };
    let rtt = Text {
        shows: "The 99th percentile of network round trips of TCP by class of peer, free of the peer's thinking.",
        normal: "below a millisecond within a site, and flat.",
        otherwise: "compare pod_remote with node: when both rose it is the path, when only pod_remote did it is the overlay.",
    };
    let again = Text {
        shows: "The five pods that send the greatest share of their segments again; of pods with little traffic, of 10 a second.",
        normal: "below 1 %.",
        otherwise: "one pod alone: look at it and at its peers. All pods of a node: look at the node's path below.",
    };
    let failures = Text {
        shows: "Attempts to connect that failed, by reason.",
        normal: "few, and refused ones at most while something is rolled out.",
        otherwise: "refused: the service is down. timed_out: packets are dropped. unreachable: there is no route.",
    };
    let bytes = |family| {
        each(family, &[is_not("peer_class", "loopback")])
            .rate(Window::Rate)
            .sum_by(&["cluster", "peer_class"])
            // Most clusters have half of the classes.
            .above(0)
    };
    let class = ["cluster", "peer_class", "le"];
    let failed = each(CONNECT_FAILURES, &[]).rate(Window::Rate).sum_by(&["cluster", "reason"]);
    Row {
        title: "Pods: do they reach their peers?",
        height: 7,
        panels: vec![
            Panel::new("Traffic of sockets", Kind::Lines, Unit::BytesPerSecond, traffic)
                .nothing("no traffic measured")
                .ask(bytes(RECEIVED), "{{peer_class}} in")
                .ask(bytes(SENT), "{{peer_class}} out")
                .wide(12),
            Panel::new("TCP round trip, 99th percentile", Kind::Lines, Unit::Seconds, rtt)
                .nothing("no TCP traffic measured")
                .ask(
                    each_buckets(RTT, &[]).rate(Window::Rate).sum_by(&class).quantile(0.99).above(0),
                    "{{peer_class}}",
                )
                .wide(12),
            Panel::new("Segments sent again, worst pods", Kind::Lines, Unit::Share, again)
                .nothing("no pod sends 10 segments a second")
                .ask(retransmitted().top(5), "{{namespace}}/{{pod}}")
                .from(&[(0.01, Colour::Orange), (MANY_RETRANSMITS, Colour::Red)])
                .wide(12),
            Panel::new("Failed connections", Kind::Lines, Unit::PerSecond, failures)
                .nothing("no attempt to connect measured")
                .ask(failed, "{{reason}}")
                .wide(12),
        ],
    }
}

fn overlay_verdict() -> Panel {
    let verdict = Text {
        shows: "Whether the overlay's devices are up and have what packets to every other node need: route, neighbour, forwarding entry.",
        normal: "healthy; not seen where pods are routed without an overlay.",
        otherwise: "the row of the overlay below names what is missing; restart the network agent (flanneld) of that node, and see its log.",
    };
    let findings = vec![
        ("device down", Colour::Red, each(OVERLAY_UP, &[]).equals(0)),
        ("entries missing", Colour::Orange, each(OVERLAY_MISSING, &[]).equals(1)),
    ];
    let seen = each(OVERLAY, &[is_not("backend", "none")]);
    Panel::verdict("Overlay", verdict, CLUSTER, seen, findings)
}

fn overlay() -> Row {
    let bytes = Text {
        shows: "Inner bytes that leave for other nodes by the overlay device, the ten busiest pairs.",
        normal: "what your pods usually send; both directions of a pair have something.",
        otherwise: "a pair that falls to nothing while others go on is cut: see what is missing, then the path.",
    };
    let missing = Text {
        shows: "Entries that are missing on the chosen nodes, by kind.",
        normal: "0; for seconds after a node joins some are missing.",
        otherwise: "route: its pods are not routed. neighbour, forwarding: packets to it are not sent. `leadline_overlay_entries_missing` has the pair.",
    };
    let sent = each(OVERLAY_BYTES, &[]).rate(Window::Rate).sum_by(&["cluster", "node", "peer_node"]);
    let gone = each(OVERLAY_MISSING, &[]).sum_by(&["cluster", "node", "entry"]);
    Row {
        title: "Overlay: does it carry pods' packets?",
        height: 6,
        panels: vec![
            Panel::new("Bytes to other nodes", Kind::Lines, Unit::BytesPerSecond, bytes)
                .nothing("no overlay seen")
                .ask(sent.top(10), "{{node}} to {{peer_node}}")
                .wide(12),
            Panel::new("Missing entries", Kind::Lines, Unit::Count, missing)
                .nothing("no overlay seen")
                .ask(gone, "{{node}} {{entry}}")
                .from(&[(1.0, Colour::Red)])
                .steps()
                .wide(12),
        ],
    }
}

fn virtual_ip() -> Row {
    Row {
        title: "Virtual addresses: does exactly one node have each, and does it serve?",
        height: 6,
        panels: vec![vip::board::announced(&[]).wide(WIDTH).more(vip::board::UID, Some("vip"))],
    }
}

fn quorum() -> Row {
    let margin = Text {
        shows: "How many more voters of etcd may fail before nothing can be written, and how many are healthy now.",
        normal: "1 of three voters, 2 of five.",
        otherwise: "0: the next failure ends the cluster, so mend before anything else. Below 0: it has ended.",
    };
    let of = |family| all(family, &[]).max_by(CLUSTER);
    Row {
        title: "Quorum: can etcd still write?",
        height: 6,
        panels: vec![
            Panel::new("Margin and healthy voters", Kind::Lines, Unit::Count, margin)
                .nothing("no etcd seen")
                .ask(of(etcd::MARGIN), "margin")
                .ask(of(etcd::board::HEALTHY_VOTERS), "healthy voters")
                .steps()
                .wide(WIDTH)
                .more(etcd::board::UID, None),
        ],
    }
}
