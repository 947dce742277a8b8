//! The board to begin with: which layer broke.
//!
//! One row a layer, each with a word first. The layers stand on each other in that order, so that the lowest broken row
//! is the cause of those above it.

use leadline::metric::Descriptor;

use crate::agent::FAILURES;
use crate::board::{self, Annotation, Board, Colour, Kind, Panel, Row, Text, Unit, all, each, each_buckets};
use crate::expression::{Expression, Window, family, is, is_not, like};
use crate::{etcd, vip};

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

const TUNNEL: &Descriptor = family("leadline_tunnel_info");
const TUNNEL_STATE: &Descriptor = family("leadline_tunnel_state");
const TUNNEL_PATH: &Descriptor = family("leadline_tunnel_peer_path");
const TUNNEL_ONE_WAY: &Descriptor = family("leadline_tunnel_peer_one_way");
const TUNNEL_ROUTE: &Descriptor = family("leadline_tunnel_route_approved");

const PATH_REACHABLE: &Descriptor = family("leadline_path_reachable");
const PATH_MEDIAN: &Descriptor = family("leadline_path_rtt_median_seconds");
const PATH_SENT: &Descriptor = family("leadline_path_probes_sent_total");
const PATH_LOST: &Descriptor = family("leadline_path_probes_lost_total");

const CLUSTER: &[&str] = &["cluster"];
const POD: &[&str] = &["cluster", "namespace", "pod"];
const PATH: &[&str] = &["cluster", "node", "peer_node", "layer"];

/// A share of segments sent again above which users notice.
const MANY_RETRANSMITS: f64 = 0.05;
/// Segments a second below which one that is sent again is no share of anything.
const FEW_SEGMENTS: f64 = 10.0;
/// A share of probes lost above which TCP slows down.
const MANY_LOSSES: f64 = 0.01;

/// The board.
#[must_use]
pub fn board() -> Board {
    Board {
        uid: "leadline-overview",
        title: "Which layer broke",
        description: "One row a layer, and one word for each. Every layer stands on those below it as far as the \
                      path, so that the lowest broken one is where to begin; the address and the quorum stand on all. \
                      \"Not seen\" is no \"healthy\": then nothing on these nodes can tell.",
        variables: Vec::new(),
        annotations: annotations(),
        rows: vec![agents(), pod(), overlay(), tunnel(), path(), virtual_ip(), quorum()],
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
        height: 4,
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
                .from(&[(1.0, Colour::Red)])
                .nothing("none is a target"),
            Panel::new("Blind collectors", Kind::Stat, Unit::Of("blind"), blind_text)
                .ask(Expression::number(CLUSTER, blind, each(SUCCESS, &[]).max_by(collector)), "{{cluster}}")
                .words(&[(0, "none", Colour::Green)])
                .from(&[(1.0, Colour::Orange)]),
            Panel::new("Lost events", Kind::Stat, Unit::Of("lost"), lost_text)
                .ask(lost, "{{cluster}}")
                .words(&[(0, "none", Colour::Green)])
                .from(&[(1.0, Colour::Orange)]),
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

fn pod() -> Row {
    let verdict = Text {
        shows: "The worst that any pod of the chosen nodes meets at its own sockets: connections that nobody answers, or more than 5 % of its segments sent again.",
        normal: "healthy. Without families of pods (profile minimal): not seen.",
        otherwise: "the panels beside name pods and reasons. Where a row below is broken as well, begin there.",
    };
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
    };
    let class = ["cluster", "peer_class", "le"];
    let failed = each(CONNECT_FAILURES, &[]).rate(Window::Rate).sum_by(&["cluster", "reason"]);
    let findings = vec![
        ("connections fail", Colour::Red, unanswered().above(0)),
        ("retransmissions", Colour::Orange, retransmitted().above(MANY_RETRANSMITS)),
    ];
    Row {
        title: "Pods: do they reach their peers?",
        height: 7,
        panels: vec![
            Panel::verdict("Pods", verdict, CLUSTER, retransmitted(), findings).wide(4),
            Panel::new("Traffic of sockets", Kind::Lines, Unit::BytesPerSecond, traffic)
                .ask(bytes(RECEIVED), "{{peer_class}} in")
                .ask(bytes(SENT), "{{peer_class}} out")
                .wide(5),
            Panel::new("TCP round trip, 99th percentile", Kind::Lines, Unit::Seconds, rtt)
                .ask(
                    each_buckets(RTT, &[]).rate(Window::Rate).sum_by(&class).quantile(0.99),
                    "{{peer_class}}",
                )
                .wide(5),
            Panel::new("Segments sent again, worst pods", Kind::Lines, Unit::Share, again)
                .ask(retransmitted().top(5), "{{namespace}}/{{pod}}")
                .from(&[(0.01, Colour::Orange), (MANY_RETRANSMITS, Colour::Red)])
                .wide(5),
            Panel::new("Failed connections", Kind::Lines, Unit::PerSecond, failures)
                .ask(failed, "{{reason}}")
                .wide(5),
        ],
    }
}

fn overlay() -> Row {
    let verdict = Text {
        shows: "Whether the overlay's devices are up and have what packets to every other node need: route, neighbour, forwarding entry.",
        normal: "healthy; not seen where pods are routed without an overlay.",
        otherwise: "the panel beside names what is missing; restart the network agent (flanneld) of that node, and see its log.",
    };
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
    let findings = vec![
        ("device down", Colour::Red, each(OVERLAY_UP, &[]).equals(0)),
        ("entries missing", Colour::Orange, each(OVERLAY_MISSING, &[]).equals(1)),
    ];
    Row {
        title: "Overlay: does it carry pods' packets?",
        height: 6,
        panels: vec![
            Panel::verdict(
                "Overlay",
                verdict,
                CLUSTER,
                each(OVERLAY, &[is_not("backend", "none")]),
                findings,
            )
            .wide(4),
            Panel::new("Bytes to other nodes", Kind::Lines, Unit::BytesPerSecond, bytes)
                .ask(sent.top(10), "{{node}} to {{peer_node}}")
                .wide(10),
            Panel::new("Missing entries", Kind::Lines, Unit::Count, missing)
                .ask(gone, "{{node}} {{entry}}")
                .from(&[(1.0, Colour::Red)])
                .steps()
                .wide(10),
        ],
    }
}

/// The ways of a tunnel, the best one first; idle is none of them.
const WAYS: [&str; 3] = ["direct", "peer_relay", "derp"];

fn tunnel() -> Row {
    let verdict = Text {
        shows: "The worst of the chosen nodes' tunnels (Tailscale): not running, not answered by a peer, a route without approval, or relayed over TCP.",
        normal: "healthy; not seen where no node is part of a tailnet. Where UDP cannot pass, relayed is what there is.",
        otherwise: "one way: is UDP dropped? Relayed: what changed in a firewall? Not running: `tailscale status` on the node.",
    };
    let way = Text {
        shows: "By which way each node sends to each peer. The peer may answer by another one.",
        normal: "direct, or idle while nothing is sent.",
        otherwise: "derp means over TCP through a relay of the provider: slower, and etcd may lose its leader over it.",
    };
    let found = |way: &'static str, number: u8| each(TUNNEL_PATH, &[is("path", way)]).times(number);
    let first = found("idle", 0);
    let ways = WAYS.into_iter().zip(1..).fold(first, |all, (way, number)| all.or(found(way, number)));
    let findings = vec![
        ("not running", Colour::Red, each(TUNNEL_STATE, &[is("state", "running")]).equals(0)),
        ("one way", Colour::Red, each(TUNNEL_ONE_WAY, &[]).equals(1)),
        ("no approval", Colour::Orange, each(TUNNEL_ROUTE, &[]).equals(0)),
        ("relayed", Colour::Yellow, each(TUNNEL_PATH, &[is("path", "derp")]).equals(1)),
    ];
    Row {
        title: "Tunnel: does it reach its peers, and by which way?",
        height: 6,
        panels: vec![
            Panel::verdict("Tunnel", verdict, CLUSTER, each(TUNNEL, &[]), findings).wide(4),
            Panel::new("Way to each peer", Kind::Timeline, Unit::Count, way)
                .ask(ways.sum_by(&["cluster", "node", "peer"]), "{{node}} to {{peer}}")
                .words(&[
                    (0, "idle", Colour::Grey),
                    (1, "direct", Colour::Green),
                    (2, "peer relay", Colour::Yellow),
                    (3, "derp", Colour::Orange),
                ])
                .wide(20),
        ],
    }
}

fn path() -> Row {
    let verdict = Text {
        shows: "Whether the agents reach each other by probes, on the underlay and on the overlay, and lose less than 1 % of them.",
        normal: "healthy; not seen where the probes are off, as they are by default (`--collector.path=on`).",
        otherwise: "a loss on both layers is the network's; one on the overlay alone is the overlay's, as a drop of its UDP port.",
    };
    let rtt = Text {
        shows: "The slowest pair of nodes on each layer: the median of its last 64 round trips.",
        normal: "flat, and the overlay some microseconds above the underlay.",
        otherwise: "both layers rise: the network is slow. Only the overlay does: encapsulation, or a tunnel below it, is.",
    };
    let loss = Text {
        shows: "Probes lost of those sent, by layer and direction.",
        normal: "0.",
        otherwise: "one direction only: look at what filters or queues there; a round trip does not show which side it is.",
    };
    let sent = |labels| each(PATH_SENT, &[]).rate(Window::Rate).sum_by(labels);
    let lost = |labels| each(PATH_LOST, &[]).rate(Window::Rate).sum_by(labels);
    let layer: &[&str] = &["cluster", "layer"];
    let findings = vec![
        ("unreachable", Colour::Red, each(PATH_REACHABLE, &[]).equals(0)),
        ("losses", Colour::Orange, lost(PATH).over(PATH, sent(PATH)).above(MANY_LOSSES)),
    ];
    Row {
        title: "Underlay: is the path between the nodes well?",
        height: 6,
        panels: vec![
            Panel::verdict("Path", verdict, CLUSTER, each(PATH_REACHABLE, &[]), findings).wide(4),
            Panel::new("Round trip of the slowest pair", Kind::Lines, Unit::Seconds, rtt)
                .ask(each(PATH_MEDIAN, &[]).max_by(layer), "{{layer}}")
                .wide(10),
            Panel::new("Lost probes", Kind::Lines, Unit::Share, loss)
                .ask(
                    lost(&["cluster", "layer", "direction"]).over(layer, sent(layer)),
                    "{{layer}} {{direction}}",
                )
                .from(&[(MANY_LOSSES, Colour::Red)])
                .wide(10),
        ],
    }
}

fn virtual_ip() -> Row {
    Row {
        title: "Virtual addresses: does exactly one node have each, and does it serve?",
        height: 6,
        panels: vec![
            vip::board::verdict(CLUSTER, &[]).wide(4).more(vip::board::UID, None),
            vip::board::announced(&[]).wide(20).more(vip::board::UID, Some("vip")),
        ],
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
            etcd::board::verdict().wide(4).more(etcd::board::UID, None),
            Panel::new("Margin and healthy voters", Kind::Lines, Unit::Count, margin)
                .ask(of(etcd::MARGIN), "margin")
                .ask(of(etcd::board::HEALTHY_VOTERS), "healthy voters")
                .steps()
                .wide(20)
                .more(etcd::board::UID, None),
        ],
    }
}
