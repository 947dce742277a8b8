//! The board of virtual addresses: who has them, how fast they move, whether they serve, and what is behind them.
//!
//! Every observer says the same of an address, so that the truth is the greatest value of all nodes.

use leadline::metric::Descriptor;

use super::{ANNOUNCER, CONFLICT, FAILOVERS, HELD, LAST_FAILOVER, REACHABLE, SLOW, VIP};
use crate::board::{
    Annotation, Board, Colour, HALF, Kind, Panel, Row, Text, Unit, Variable, all, all_buckets, each,
};
use crate::expression::{Expression, Matcher, Window, family, is, is_not, like};
use crate::overview;

/// The name of the board in addresses.
pub const UID: &str = "leadline-vip";

const INFO: &Descriptor = family("leadline_vip_info");
const PHASES: &Descriptor = family("leadline_vip_failover_seconds");
const DUPLICATE: &Descriptor = family("leadline_vip_duplicate");
const STALE: &Descriptor = family("leadline_vip_neighbour_stale");
const UNSERVED: &Descriptor = family("leadline_vip_unserved");
const PROBES: &Descriptor = family("leadline_vip_probes_total");
const PROBE_SECONDS: &Descriptor = family("leadline_vip_probe_seconds");
const NOT_AFTER: &Descriptor = family("leadline_vip_certificate_not_after_timestamp_seconds");
const LISTENER: &Descriptor = family("leadline_vip_listener_info");
const GAP: &Descriptor = family("leadline_vrrp_advertisement_gap_ratio");
const PRIORITY: &Descriptor = family("leadline_vrrp_priority");
const SERVER_STATE: &Descriptor = family("leadline_haproxy_server_state");
const CHECK_RESULT: &Descriptor = family("leadline_haproxy_server_check_result");
const ACTIVE_SERVERS: &Descriptor = family("leadline_haproxy_backend_active_servers");

const CHOSEN: Matcher = like("vip", "$vip");
const PORT: &[&str] = &["cluster", "vip", "port"];
const WEEK: f64 = 604_800.0;

/// The board.
#[must_use]
pub fn board() -> Board {
    let chosen = Variable {
        name: "vip",
        label: "Virtual address",
        family: INFO,
        within: r#"cluster=~"$cluster",job=~"$job""#,
        all: ".*",
        is_multi: true,
    };
    Board {
        uid: UID,
        title: "Virtual addresses and failover",
        description: "Who has each virtual address, by the word of the nodes and by what is on the wire; how fast it \
                      moves and why; whether anybody is served there, and by what. No VRRP daemon is asked.",
        variables: vec![chosen],
        annotations: overview::annotations(),
        rows: vec![now(), owners(), moves(), service(), behind()],
    }
}

/// The moments of failovers.
#[must_use]
pub fn failovers() -> Annotation {
    Annotation {
        name: "Failovers",
        expression: all(FAILOVERS, &[]).increase(Window::Rate).max_by(&["cluster", "vip", "cause"]).above(0),
        title: "{{vip}} moved: {{cause}}",
        colour: Colour::Orange,
    }
}

/// The worst that is true of the addresses.
#[must_use]
pub fn verdict(labels: &[&'static str], chosen: &[Matcher]) -> Panel {
    let text = Text {
        shows: "The worst that is true of a virtual address: two nodes hold on to it, nobody announces it, nobody reaches its service, or its holder does not serve.",
        normal: "healthy; not seen where no address was heard of.",
        otherwise: "see the runbooks VipSplitBrain, VipLost and VipUnreachable.",
    };
    let of = |family| all(family, chosen);
    let findings = vec![
        ("split brain", Colour::Red, of(CONFLICT).max_by(VIP).equals(1)),
        ("nobody has it", Colour::Red, of(ANNOUNCER).max_by(VIP).equals(0)),
        ("unreachable", Colour::Red, of(REACHABLE).max_by(PORT).equals(0)),
        ("holder serves not", Colour::Orange, of(UNSERVED).max_by(PORT).equals(1)),
    ];
    Panel::verdict("Virtual addresses", text, labels, of(INFO).max_by(VIP), findings)
}

/// Who announces each address, over time.
#[must_use]
pub fn announced(chosen: &[Matcher]) -> Panel {
    let text = Text {
        shows: "Who announces each address on the wire: routers by their address, stations by their hardware address.",
        normal: "exactly one green strip an address at any time; it changes strips in a failover.",
        otherwise: "two at once are a split brain: can the nodes hear each other's advertisements? None: the daemon is dead everywhere.",
    };
    Panel::new("Who announces it, on the wire", Kind::Timeline, Unit::Count, text)
        .nothing("no virtual address was heard of")
        .ask(all(ANNOUNCER, chosen).max_by(&["cluster", "vip", "source"]), "{{vip}} by {{source}}")
        .words(&[(0, "silent", Colour::Grey), (1, "announces", Colour::Green)])
}

fn now() -> Row {
    let holder = Text {
        shows: "The nodes that have the address on a device now.",
        normal: "one node an address; none where it is only announced (MetalLB, kube-vip without the device).",
        otherwise: "two nodes: a split brain, or a daemon that died and left its address behind.",
    };
    let last = Text {
        shows: "How long nobody served the address in its last move, as far as it was seen: from the last sign of the old owner to the first packet of the new one.",
        normal: "milliseconds after a shutdown, about 3.6 s after a crash with an interval of one second. Nothing before the first move.",
        otherwise: "see the phases below: detect is the interval of advertisements, announce the new owner's delay, converge the network's.",
    };
    let count = Text {
        shows: "Moves within the time shown, by any cause.",
        normal: "0 but for maintenance.",
        otherwise: "an address that moves to and fro has a flapping link, a flapping check, or two masters of one priority.",
    };
    let grown = all(FAILOVERS, &[CHOSEN]).increase(Window::Range);
    Row {
        title: "How is it now?",
        height: 4,
        panels: vec![
            verdict(VIP, &[CHOSEN]).wide(5),
            Panel::new("Holder", Kind::Names, Unit::Count, holder)
                .ask(
                    all(HELD, &[CHOSEN]).max_by(&["cluster", "vip", "node"]).equals(1),
                    "{{vip}} on {{node}}",
                )
                .base(Colour::Blue)
                .nothing("no node")
                .wide(5),
            Panel::new("Last failover, without service", Kind::Stat, Unit::Seconds, last)
                .ask(all(LAST_FAILOVER, &[CHOSEN, is("phase", "total")]).max_by(VIP), "{{vip}}")
                .from(&[(1.0, Colour::Yellow), (f64::from(SLOW), Colour::Red)])
                .nothing("none seen")
                .wide(5),
            Panel::new("Failovers", Kind::Stat, Unit::Count, count)
                .ask(grown.sum_by(&["cluster", "vip", "node"]).max_by(VIP), "{{vip}}")
                .from(&[(HALF, Colour::Yellow), (5.0 - HALF, Colour::Orange)])
                .nothing("not seen")
                .wide(4),
            certificate(),
        ],
    }
}

fn certificate() -> Panel {
    let text = Text {
        shows: "The time until the certificate ends that the service showed last.",
        normal: "weeks.",
        otherwise: "below a week renew it, and restart the server if it does not read its file again.",
    };
    Panel::new("Certificate ends in", Kind::Stat, Unit::Duration, text)
        .ask(all(NOT_AFTER, &[CHOSEN]).from_now().min_by(PORT), "{{vip}}:{{port}}")
        .base(Colour::Red)
        .from(&[(WEEK, Colour::Orange), (4.0 * WEEK, Colour::Green)])
        .nothing("no TLS seen")
        .wide(5)
}

fn owners() -> Row {
    let held = Text {
        shows: "Whether each node has the address on a device, by the kernel's word.",
        normal: "one green strip an address at any time.",
        otherwise: "two at once: take the address from the node that does not announce it (see beside), if no daemon does.",
    };
    let trouble = Text {
        shows: "Two routers that hold on to an address, an answer of a station that announces nothing, and neighbour tables that lead to where the address was.",
        normal: "all fine; stale for a moment after a failover.",
        otherwise: "split brain: mend the link. duplicate: find the host with that hardware address. stale: the switch or the node ignored the announcement.",
    };
    let of = |family, labels: &[&'static str]| all(family, &[CHOSEN]).max_by(labels);
    let node = &["cluster", "vip", "node"];
    Row {
        title: "Who has it, and who says so?",
        height: 8,
        panels: vec![
            Panel::new("Who has it, by node", Kind::Timeline, Unit::Count, held)
                .nothing("no virtual address is known")
                .ask(each(HELD, &[CHOSEN]).max_by(node), "{{vip}} on {{node}}")
                .words(&[(0, "not here", Colour::Grey), (1, "has it", Colour::Green)]),
            announced(&[CHOSEN]),
            Panel::new("Conflicts, duplicates, stale neighbours", Kind::Timeline, Unit::Count, trouble)
                .nothing("no virtual address is known")
                .ask(of(CONFLICT, VIP), "{{vip}} split brain")
                .ask(of(DUPLICATE, VIP), "{{vip}} duplicate")
                .ask(of(STALE, node), "{{vip}} stale on {{node}}")
                .words(&[(0, "fine", Colour::Green), (1, "yes", Colour::Red)]),
        ],
    }
}

fn moves() -> Row {
    let causes = Text {
        shows: "Moves by cause, as the observer saw them that saw most.",
        normal: "none; shutdown and preempted while nodes are maintained.",
        otherwise: "timeout: the owner died or was cut off. link: its link went. unknown: the observer missed something, or the address is only announced.",
    };
    let phases = Text {
        shows: "The phases of the last move of each address: detect, announce, converge, and the total without service.",
        normal: "flat between moves. detect is 3.6 intervals after a crash; announce and converge are some milliseconds.",
        otherwise: "a long detect: a shorter interval. A long converge: the network does not learn from gratuitous ARP.",
    };
    let gaps = Text {
        shows: "Times between advertisements of an active router over its interval, the 99th percentile.",
        normal: "about 1.",
        otherwise: "from 2 on advertisements are lost or late; at 3 and a little a backup takes over. Look at the owner's load and link.",
    };
    let priority = Text {
        shows: "The priority that each router advertised last.",
        normal: "flat; a backup that never was the owner has none.",
        otherwise: "a fall is a check of the daemon that fails; two routers with one priority are decided by their addresses.",
    };
    let observed = ["cluster", "node", "vrid", "family", "source", "le"];
    let router: &[&str] = &["cluster", "vrid", "family", "source"];
    let gap = all_buckets(GAP, &[]).rate(Window::Rate).sum_by(&observed).quantile(0.99).max_by(router);
    let cause = &["cluster", "vip", "cause"];
    Row {
        title: "How does it move?",
        height: 8,
        panels: vec![
            Panel::new("Failovers by cause", Kind::Bars, Unit::Count, causes)
                .nothing("no virtual address is known")
                .ask(all(FAILOVERS, &[CHOSEN]).increase(Window::Rate).max_by(cause), "{{vip}} {{cause}}")
                .wide(6),
            Panel::new("Phases of the last failover", Kind::Lines, Unit::Seconds, phases)
                .ask(all(LAST_FAILOVER, &[CHOSEN]).max_by(&["cluster", "vip", "phase"]), "{{vip}} {{phase}}")
                .from(&[(f64::from(SLOW), Colour::Red)])
                .nothing("no failover yet")
                .steps()
                .wide(6),
            Panel::new("Gaps between advertisements", Kind::Lines, Unit::Of("intervals"), gaps)
                .nothing("no VRRP was heard")
                .ask(gap, "{{vrid}} {{family}} {{source}}")
                .from(&[(2.0, Colour::Orange), (3.0, Colour::Red)])
                .wide(6),
            Panel::new("Priorities", Kind::Lines, Unit::Count, priority)
                .nothing("no VRRP was heard")
                .ask(all(PRIORITY, &[]).max_by(router), "{{vrid}} {{family}} {{source}}")
                .around()
                .steps()
                .wide(6),
        ],
    }
}

/// How long the phases of all moves took within the time shown.
fn durations() -> Panel {
    let text = Text {
        shows: "The 95th percentile of each phase of all moves within the time shown, as the slowest observer saw it.",
        normal: "as in the last move. Empty without a move.",
        otherwise: "compare with what clients can wait: those of Kubernetes give up after ten seconds.",
    };
    let observed = ["cluster", "node", "vip", "phase", "le"];
    let grown = all_buckets(PHASES, &[CHOSEN]).increase(Window::Range).sum_by(&observed);
    let phases = grown.quantile(0.95).above(0).max_by(&["cluster", "vip", "phase"]);
    Panel::new("Failover times, 95th percentile", Kind::Table, Unit::Seconds, text)
        .nothing("no failover within the time shown")
        .ask(phases, "{{vip}} {{phase}}")
        .value_name("took")
        .from(&[(f64::from(SLOW), Colour::Red)])
        .wide(6)
}

fn service() -> Row {
    let reachable = Text {
        shows: "Whether each node that probes the address is answered there as the kind of service demands.",
        normal: "all green, but for a blink during a failover. Of a port that was only tried once it has accepted a connection.",
        otherwise: "one node: its path or its neighbour table. All nodes: the service; see the failed probes, and what is behind.",
    };
    let failed = Text {
        shows: "Probes that failed, by why.",
        normal: "0.",
        otherwise: "refused: nobody listens at the holder. timeout: packets are dropped. http_status: it answers and is not ready.",
    };
    let result = &["cluster", "vip", "port", "result"];
    let bad = all(PROBES, &[CHOSEN, is_not("result", "ok")]).rate(Window::Rate).sum_by(result);
    let timed = ["cluster", "node", "vip", "port", "phase", "le"];
    let took = all_buckets(PROBE_SECONDS, &[CHOSEN]).rate(Window::Rate).sum_by(&timed).quantile(0.95);
    Row {
        title: "Is anybody served there?",
        height: 7,
        panels: vec![
            Panel::new("Reachable from each node", Kind::Timeline, Unit::Count, reachable)
                .nothing("no node probes a virtual address")
                .ask(
                    each(REACHABLE, &[CHOSEN]).max_by(&["cluster", "node", "vip", "port"]),
                    "{{vip}}:{{port}} from {{node}}",
                )
                .words(&[(0, "not answered", Colour::Red), (1, "answered", Colour::Green)])
                .wide(8),
            Panel::new("Failed probes", Kind::Lines, Unit::PerSecond, failed)
                .nothing("no node probes a virtual address")
                .ask(bad, "{{vip}}:{{port}} {{result}}")
                .from(&[(0.01, Colour::Red)])
                .wide(8),
            probe_times(took.max_by(&["cluster", "vip", "port", "phase"])),
        ],
    }
}

fn probe_times(took: Expression) -> Panel {
    let text = Text {
        shows: "How long the steps of a probe took at the slowest node: TCP handshake, TLS handshake, answer.",
        normal: "milliseconds; http has the server's own thinking.",
        otherwise: "a slow connect is the network's, a slow http the server's: see etcd, on which the API server waits.",
    };
    Panel::new("Steps of a probe, 95th percentile", Kind::Lines, Unit::Seconds, text)
        .nothing("no node probes a virtual address")
        .ask(took, "{{vip}}:{{port}} {{phase}}")
        .wide(8)
}

/// The states of a server, by their numbers from 1.
const STATES: [(&str, Colour); 5] = [
    ("up", Colour::Green),
    ("down", Colour::Red),
    ("maintenance", Colour::Yellow),
    ("drain", Colour::Yellow),
    ("no_check", Colour::Blue),
];

fn servers() -> Panel {
    let text = Text {
        shows: "What HAProxy takes each server behind it for.",
        normal: "up. Empty without HAProxy.",
        otherwise: "down: its last check says why. no_check: it gets traffic whether it works or not.",
    };
    let server = &["cluster", "node", "backend", "server"];
    let states = STATES
        .into_iter()
        .zip(1_u8..)
        .map(|((state, _), number)| each(SERVER_STATE, &[is("state", state)]).times(number));
    let states = states.reduce(Expression::or).map(|all| all.sum_by(server));
    let words: Vec<_> =
        STATES.into_iter().zip(1..).map(|((state, colour), number)| (number, state, colour)).collect();
    let mut timeline = Panel::new("HAProxy's servers", Kind::Timeline, Unit::Count, text)
        .words(&words)
        .nothing("no HAProxy was found")
        .wide(8);
    if let Some(states) = states {
        timeline = timeline.ask(states, "{{backend}}/{{server}} on {{node}}");
    }
    timeline
}

fn behind() -> Row {
    let checks = Text {
        shows: "The result of each server's last check, in HAProxy's words.",
        normal: "l4ok, l6ok or l7ok.",
        otherwise: "l4con: nobody listens. l4tout: dropped. l7sts: it answers, and says no.",
    };
    let active = Text {
        shows: "Servers of each backend that get new connections.",
        normal: "all of them.",
        otherwise: "at 0 the address is held by a node that can serve nobody.",
    };
    let listeners = Text {
        shows: "Which process gets the connections to each port of an address that a node holds, and what it is bound to.",
        normal: "one process a port.",
        otherwise: "two processes on one port: one of them answers in place of the other when the address moves.",
    };
    let result = &["cluster", "node", "backend", "server", "result"];
    let listener = &["cluster", "node", "vip", "port", "process", "local_address"];
    Row {
        title: "What is behind it?",
        height: 6,
        panels: vec![
            servers(),
            Panel::new("HAProxy's last checks", Kind::Table, Unit::Count, checks)
                .nothing("no HAProxy was found")
                .ask(
                    each(CHECK_RESULT, &[]).max_by(result).equals(1),
                    "{{node}} {{backend}} {{server}} {{result}}",
                )
                .wide(9),
            Panel::new("Servers that take connections", Kind::Lines, Unit::Count, active)
                .nothing("no HAProxy was found")
                .ask(
                    each(ACTIVE_SERVERS, &[]).max_by(&["cluster", "node", "backend"]),
                    "{{backend}} on {{node}}",
                )
                .steps()
                .wide(7),
            Panel::new("Who listens", Kind::Table, Unit::Count, listeners)
                .nothing("nobody listens at a virtual address")
                .ask(
                    each(LISTENER, &[CHOSEN]).max_by(listener),
                    "{{vip}} {{port}} {{process}} {{local_address}} {{node}}",
                )
                .wide(14),
            durations().wide(10),
        ],
    }
}
