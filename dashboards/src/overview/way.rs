//! The layers at the bottom: the path between nodes, and the tunnel that it may lead through.

use leadline::metric::Descriptor;

use super::CLUSTER;
use crate::board::{Colour, Kind, Panel, Row, Text, Unit, WIDTH, each};
use crate::expression::{Expression, Window, family, is};

const TUNNEL: &Descriptor = family("leadline_tunnel_info");
const TUNNEL_STATE: &Descriptor = family("leadline_tunnel_state");
const TUNNEL_PATH: &Descriptor = family("leadline_tunnel_peer_path");
const TUNNEL_ONE_WAY: &Descriptor = family("leadline_tunnel_peer_one_way");
const TUNNEL_ROUTE: &Descriptor = family("leadline_tunnel_route_approved");

const PATH_REACHABLE: &Descriptor = family("leadline_path_reachable");
const PATH_MEDIAN: &Descriptor = family("leadline_path_rtt_median_seconds");
const PATH_SENT: &Descriptor = family("leadline_path_probes_sent_total");
const PATH_LOST: &Descriptor = family("leadline_path_probes_lost_total");
const PATH_BLACK_HOLE: &Descriptor = family("leadline_path_mtu_black_hole");

const PATH: &[&str] = &["cluster", "node", "peer_node", "layer"];

/// A share of probes lost above which TCP slows down.
const MANY_LOSSES: f64 = 0.01;

/// The ways of a tunnel, the best one first; idle is none of them.
const WAYS: [&str; 3] = ["direct", "peer_relay", "derp"];

pub(super) fn tunnel_verdict() -> Panel {
    let verdict = Text {
        shows: "The worst of the chosen nodes' tunnels (Tailscale): not running, not answered by a peer, a route without approval, or relayed over TCP.",
        normal: "healthy; not seen where no node is part of a tailnet. Where UDP cannot pass, relayed is what there is.",
        otherwise: "one way: is UDP dropped? Relayed: what changed in a firewall? Not running: `tailscale status` on the node.",
    };
    let findings = vec![
        ("not running", Colour::Red, each(TUNNEL_STATE, &[is("state", "running")]).equals(0)),
        ("one way", Colour::Red, each(TUNNEL_ONE_WAY, &[]).equals(1)),
        ("no approval", Colour::Orange, each(TUNNEL_ROUTE, &[]).equals(0)),
        ("relayed", Colour::Yellow, each(TUNNEL_PATH, &[is("path", "derp")]).equals(1)),
    ];
    Panel::verdict("Tunnel", verdict, CLUSTER, each(TUNNEL, &[]), findings)
}

pub(super) fn tunnel() -> Row {
    let way = Text {
        shows: "By which way each node sends to each peer. The peer may answer by another one.",
        normal: "direct, or idle while nothing is sent.",
        otherwise: "derp means over TCP through a relay of the provider: slower, and etcd may lose its leader over it.",
    };
    let found = |way: &'static str, number: u8| each(TUNNEL_PATH, &[is("path", way)]).times(number);
    let first = found("idle", 0);
    let ways = WAYS.into_iter().zip(1..).fold(first, |all, (way, number)| all.or(found(way, number)));
    Row {
        title: "Tunnel: does it reach its peers, and by which way?",
        height: 6,
        panels: vec![
            Panel::new("Way to each peer", Kind::Timeline, Unit::Count, way)
                .nothing("no node is part of a tailnet")
                .ask(ways.sum_by(&["cluster", "node", "peer"]), "{{node}} to {{peer}}")
                .words(&[
                    (0, "idle", Colour::Grey),
                    (1, "direct", Colour::Green),
                    (2, "peer relay", Colour::Yellow),
                    (3, "derp", Colour::Orange),
                ])
                .wide(WIDTH),
        ],
    }
}

/// Probes a second of that kind.
fn probes(family: &'static Descriptor, labels: &[&'static str]) -> Expression {
    each(family, &[]).rate(Window::Rate).sum_by(labels)
}

pub(super) fn path_verdict() -> Panel {
    let verdict = Text {
        shows: "Whether the agents reach each other by probes, on the underlay, in the tunnel and on the overlay, lose less than 1 % of them, and get those of full size.",
        normal: "healthy; not seen where the probes are off, as they are by default (`--collector.path=on`).",
        otherwise: "a loss on all layers is the network's; one on the overlay or in the tunnel alone is theirs, as a drop of its UDP port. Black hole: large packets vanish; lower the MTU of that layer, or let ICMP pass.",
    };
    let findings = vec![
        ("unreachable", Colour::Red, each(PATH_REACHABLE, &[]).equals(0)),
        ("black hole", Colour::Red, each(PATH_BLACK_HOLE, &[]).equals(1)),
        (
            "losses",
            Colour::Orange,
            probes(PATH_LOST, PATH).over(PATH, probes(PATH_SENT, PATH)).above(MANY_LOSSES),
        ),
    ];
    Panel::verdict("Path", verdict, CLUSTER, each(PATH_REACHABLE, &[]), findings)
}

pub(super) fn path() -> Row {
    let rtt = Text {
        shows: "The slowest pair of nodes on each layer: the median of its last 64 round trips.",
        normal: "flat; the overlay some microseconds above what carries it, the tunnel some hundred.",
        otherwise: "all layers rise: the network is slow. Only one does, and what it carries: that layer is.",
    };
    let loss = Text {
        shows: "Probes lost of those sent, by layer and direction.",
        normal: "0.",
        otherwise: "one direction only: look at what filters or queues there; a round trip does not show which side it is.",
    };
    let layer: &[&str] = &["cluster", "layer"];
    Row {
        title: "Path: is the underlay between the nodes well?",
        height: 6,
        panels: vec![
            Panel::new("Round trip of the slowest pair", Kind::Lines, Unit::Seconds, rtt)
                .nothing("the probes are off: --collector.path=on")
                .ask(each(PATH_MEDIAN, &[]).max_by(layer), "{{layer}}")
                .wide(12),
            Panel::new("Lost probes", Kind::Lines, Unit::Share, loss)
                .nothing("the probes are off: --collector.path=on")
                .ask(
                    probes(PATH_LOST, &["cluster", "layer", "direction"])
                        .over(layer, probes(PATH_SENT, layer)),
                    "{{layer}} {{direction}}",
                )
                .from(&[(MANY_LOSSES, Colour::Red)])
                .wide(12),
        ],
    }
}
