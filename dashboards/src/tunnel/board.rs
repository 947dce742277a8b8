//! The board of tunnels: by which way each peer is reached, whether it is alive by what is on the wire, what passes, and
//! keys and routes, of which tailscaled does not complain.

use leadline::metric::Descriptor;

use super::{KEY_EXPIRY, ONE_WAY};
use crate::board::{Board, Colour, Kind, Panel, Row, Text, Unit, WIDTH, each, each_buckets};
use crate::expression::{Expression, Window, family, is};
use crate::overview;

/// The name of the board in addresses.
pub const UID: &str = "leadline-tunnel";

const INFO: &Descriptor = family("leadline_tunnel_info");
const STATE: &Descriptor = family("leadline_tunnel_state");
const ONLINE: &Descriptor = family("leadline_tunnel_online");
const HEALTH: &Descriptor = family("leadline_tunnel_health_messages");
const ROUTE: &Descriptor = family("leadline_tunnel_route_approved");
const PATH: &Descriptor = family("leadline_tunnel_peer_path");
const PATH_CHANGES: &Descriptor = family("leadline_tunnel_peer_path_changes_total");
const ENDPOINT: &Descriptor = family("leadline_tunnel_peer_endpoint");
const NESTED: &Descriptor = family("leadline_tunnel_peer_nested");
const RECEIVED: &Descriptor = family("leadline_tunnel_peer_receive_bytes_total");
const SENT: &Descriptor = family("leadline_tunnel_peer_transmit_bytes_total");
const PEER_KEY_EXPIRED: &Descriptor = family("leadline_tunnel_peer_key_expired");
const RTT: &Descriptor = family("leadline_tunnel_peer_rtt_seconds");
const PINGS: &Descriptor = family("leadline_tunnel_peer_pings_total");
const REACHABLE: &Descriptor = family("leadline_tunnel_peer_reachable");

const NODE: &[&str] = &["cluster", "node"];
/// A tunnel from the node at its beginning.
const TUNNEL: &[&str] = &["cluster", "node", "peer"];

/// What is read where there is nothing.
const NONE: &str = "no node is part of a tailnet";

const DAY: f64 = 86_400.0;

/// The ways of a tunnel, the best one first; idle is none of them.
const WAYS: [&str; 3] = ["direct", "peer_relay", "derp"];

/// The board.
#[must_use]
pub fn board() -> Board {
    Board {
        uid: UID,
        title: "Tunnels",
        description: "The tunnels of the chosen nodes (Tailscale): by which way they reach each peer, what pings and \
                      handshakes on the wire say of that way, what passes, and the keys and routes that end or are not \
                      approved without a word of tailscaled. What is said of a peer is said by one end.",
        variables: Vec::new(),
        annotations: overview::annotations(),
        rows: vec![now(), way(), wire(), traffic(), keys()],
    }
}

/// The worst that is true of any tunnel.
#[must_use]
pub fn verdict() -> Panel {
    let verdict = Text {
        shows: "The worst of the chosen nodes' tunnels (Tailscale): not running, not answered by a peer, a route without approval, or relayed over TCP.",
        normal: "healthy; not seen where no node is part of a tailnet. Where UDP cannot pass, relayed is what there is.",
        otherwise: "one way: is UDP dropped? Relayed: what changed in a firewall? Not running: `tailscale status` on the node.",
    };
    let findings = vec![
        ("not running", Colour::Red, each(STATE, &[is("state", "running")]).equals(0)),
        ("one way", Colour::Red, each(ONE_WAY, &[]).equals(1)),
        ("no approval", Colour::Orange, each(ROUTE, &[]).equals(0)),
        ("relayed", Colour::Yellow, each(PATH, &[is("path", "derp")]).equals(1)),
    ];
    Panel::verdict("Tunnel", verdict, &["cluster"], each(INFO, &[]), findings)
}

/// By which way each peer is reached.
#[must_use]
pub fn ways() -> Panel {
    let way = Text {
        shows: "By which way each node sends to each peer. The peer may answer by another one.",
        normal: "direct, or idle while nothing is sent.",
        otherwise: "derp means over TCP through a relay of the provider: slower, and etcd may lose its leader over it.",
    };
    let found = |way: &'static str, number: u8| each(PATH, &[is("path", way)]).times(number);
    let first = found("idle", 0);
    let ways = WAYS.into_iter().zip(1..).fold(first, |all, (way, number)| all.or(found(way, number)));
    Panel::new("Way to each peer", Kind::Timeline, Unit::Count, way)
        .nothing(NONE)
        .ask(ways.sum_by(TUNNEL), "{{node}} to {{peer}}")
        .words(&[
            (0, "idle", Colour::Grey),
            (1, "direct", Colour::Green),
            (2, "peer relay", Colour::Yellow),
            (3, "derp", Colour::Orange),
        ])
}

fn now() -> Row {
    let online = Text {
        shows: "Whether each node is connected to the coordination server.",
        normal: "connected. The tunnels work without it, until a key or an address changes.",
        otherwise: "is its way to the internet, or to your own server, cut?",
    };
    let health = Text {
        shows: "Complaints of the health check of each node's tailscaled.",
        normal: "0.",
        otherwise: "`tailscale status` on the node has the texts.",
    };
    let key = Text {
        shows: "The time until the first key of the chosen nodes ends. Keys that never end are not counted.",
        normal: "weeks.",
        otherwise: "see the runbook TunnelKeyExpiring: after that nobody reaches the node through the tunnel.",
    };
    Row {
        title: "Is each node part of its tailnet?",
        height: 5,
        panels: vec![
            verdict().wide(5),
            Panel::new("First key ends in", Kind::Stat, Unit::Duration, key)
                .ask(each(KEY_EXPIRY, &[]).from_now().min_by(&["cluster"]), "{{cluster}}")
                .base(Colour::Red)
                .from(&[(DAY, Colour::Orange), (7.0 * DAY, Colour::Green)])
                .nothing("none ends")
                .wide(5),
            Panel::new("Complaints", Kind::Stat, Unit::Count, health)
                .ask(each(HEALTH, &[]).max_by(NODE), "{{node}}")
                .from(&[(1.0, Colour::Orange)])
                .nothing("not seen")
                .wide(7),
            Panel::new("Coordination server", Kind::Timeline, Unit::Count, online)
                .ask(each(ONLINE, &[]).max_by(NODE), "{{node}}")
                .words(&[(0, "away", Colour::Orange), (1, "connected", Colour::Green)])
                .nothing(NONE)
                .wide(7),
        ],
    }
}

fn way() -> Row {
    let endpoint = Text {
        shows: "The address that each node sends to for each peer.",
        normal: "one of the peer's own, outside of pods and overlay.",
        otherwise: "an address of the pod network: keep tailscaled out of the overlay, or each carries the other.",
    };
    let changes = Text {
        shows: "How often the way to a peer became another one.",
        normal: "0; one after a start.",
        otherwise: "again and again: a way that works now and then, as behind a NAT that forgets. Say by pings below which.",
    };
    let nested = Text {
        shows: "Peers that are sent to at an address of a pod network or of an overlay device.",
        normal: "empty.",
        otherwise: "the tunnel rides on what may ride on the tunnel: packets become smaller, and both end together.",
    };
    Row {
        title: "By which way?",
        height: 7,
        panels: vec![
            ways().wide(WIDTH),
            Panel::new("Endpoints", Kind::Table, Unit::Count, endpoint)
                .nothing("nothing is sent directly")
                .ask(
                    each(ENDPOINT, &[]).max_by(&["cluster", "node", "peer", "endpoint"]),
                    "{{node}} {{peer}} {{endpoint}}",
                )
                .wide(10),
            Panel::new("Changes of the way", Kind::Bars, Unit::Count, changes)
                .nothing(NONE)
                .ask(each(PATH_CHANGES, &[]).increase(Window::Rate).sum_by(TUNNEL), "{{node}} to {{peer}}")
                .wide(7),
            Panel::new("Nested", Kind::Timeline, Unit::Count, nested)
                .nothing("none")
                .ask(each(NESTED, &[]).max_by(TUNNEL).equals(1), "{{node}} to {{peer}}")
                .words(&[(1, "in the overlay", Colour::Yellow)])
                .wide(7),
        ],
    }
}

fn wire() -> Row {
    let rtt = Text {
        shows: "The 99th percentile of the pings by which tailscaled watches its ways, uplink to uplink, at the ten slowest tunnels.",
        normal: "the round trip of the path below, and a millisecond or less of the two daemons.",
        otherwise: "compare with the underlay on the board of paths: only the tunnel is slow where a daemon has no processor time.",
    };
    let unanswered = Text {
        shows: "Pings a second that had no answer when the next one was sent, at addresses that had answered before.",
        normal: "0.",
        otherwise: "the way loses packets; tailscaled leaves it after seconds, and comes back to it.",
    };
    let reachable = Text {
        shows: "Whether an address from which the peer has answered still answers, some seconds before tailscaled takes another way.",
        normal: "answered; nothing while nothing is sent.",
        otherwise: "UDP is dropped on the way, or the peer is gone.",
    };
    let one_way = Text {
        shows: "Tunnels whose data is not answered, whatever tailscaled says of them.",
        normal: "empty.",
        otherwise: "see the runbook TunnelOneWay.",
    };
    let buckets: &[&str] = &["cluster", "node", "peer", "le"];
    let slow = each_buckets(RTT, &[]).rate(Window::Rate).sum_by(buckets).quantile(0.99).above(0);
    let silent = each(PINGS, &[is("result", "unanswered")]).rate(Window::Rate);
    let name = "{{node}} to {{peer}}";
    Row {
        title: "Is it alive, by what is on the wire?",
        height: 7,
        panels: vec![
            Panel::new("Round trip of pings, 99th percentile", Kind::Lines, Unit::Seconds, rtt)
                .nothing("no pings on the wire")
                .ask(slow.top(10), name)
                .wide(12),
            Panel::new("Pings without an answer", Kind::Lines, Unit::PerSecond, unanswered)
                .nothing("no pings on the wire")
                .ask(silent.sum_by(TUNNEL), name)
                .wide(12),
            Panel::new("Answered on the wire", Kind::Timeline, Unit::Count, reachable)
                .nothing("no pings on the wire")
                .ask(each(REACHABLE, &[]).max_by(TUNNEL), name)
                .words(&[(0, "silent", Colour::Red), (1, "answered", Colour::Green)])
                .wide(14),
            Panel::new("One way", Kind::Timeline, Unit::Count, one_way)
                .nothing("none")
                .ask(each(ONE_WAY, &[]).max_by(TUNNEL).equals(1), name)
                .words(&[(1, "not answered", Colour::Red)])
                .wide(10),
        ],
    }
}

fn traffic() -> Row {
    let bytes = Text {
        shows: "Bytes of WireGuard of the ten busiest tunnels.",
        normal: "what your cluster usually sends between sites.",
        otherwise: "out, and never in: the tunnel is one way, or the peer has nothing to say.",
    };
    let passing = |family| -> Expression { each(family, &[]).rate(Window::Rate).sum_by(TUNNEL).top(10) };
    Row {
        title: "What passes?",
        height: 7,
        panels: vec![
            Panel::new("Bytes of each tunnel", Kind::Lines, Unit::BytesPerSecond, bytes)
                .nothing(NONE)
                .ask(passing(RECEIVED), "{{node}} from {{peer}}")
                .ask(passing(SENT), "{{node}} to {{peer}}")
                .wide(WIDTH),
        ],
    }
}

fn keys() -> Row {
    let routes = Text {
        shows: "Routes that the chosen nodes offer to their tailnet.",
        normal: "approved; nothing where none is offered.",
        otherwise: "without approval nobody uses the route, and nothing else says so: approve it in the admin console or by the policy.",
    };
    let expired = Text {
        shows: "Peers whose key has ended, by the word of each node's tailscaled, which sends them nothing then.",
        normal: "empty.",
        otherwise: "log the peer in again, or switch the end of its key off.",
    };
    Row {
        title: "Keys and routes: what ends without a word?",
        height: 6,
        panels: vec![
            Panel::new("Routes", Kind::Timeline, Unit::Count, routes)
                .nothing("no node offers a route")
                .ask(each(ROUTE, &[]).max_by(&["cluster", "node", "route"]), "{{route}} by {{node}}")
                .words(&[(0, "not approved", Colour::Orange), (1, "approved", Colour::Green)])
                .wide(12),
            Panel::new("Keys of peers that have ended", Kind::Timeline, Unit::Count, expired)
                .nothing("none")
                .ask(each(PEER_KEY_EXPIRED, &[]).max_by(TUNNEL).equals(1), "{{peer}} seen by {{node}}")
                .words(&[(1, "ended", Colour::Red)])
                .wide(12),
        ],
    }
}
