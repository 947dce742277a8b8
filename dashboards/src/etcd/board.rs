//! The board of etcd: the quorum and its margin, the members, elections, the wire between them, storage, and the control
//! plane that stands on it.

use leadline::metric::Descriptor;

use super::{CLUSTER, HAS_LEADER, HAS_QUORUM, LEADER, MARGIN, MEMBERS, NO_SPARE};
use crate::board::{Annotation, Board, Colour, Kind, Panel, Row, Text, Unit, all, each, each_buckets};
use crate::expression::{Expression, Matcher, Window, family, is};
use crate::overview;

/// The name of the board in addresses.
pub const UID: &str = "leadline-etcd";

pub(crate) const HEALTHY_VOTERS: &Descriptor = family("leadline_etcd_healthy_voters");

const INFO: &Descriptor = family("leadline_etcd_member_info");
const HEALTHY: &Descriptor = family("leadline_etcd_member_healthy");
const DISAGREEMENT: &Descriptor = family("leadline_etcd_disagreement");
const TERM: &Descriptor = family("leadline_etcd_term");
const LEADER_CHANGES: &Descriptor = family("leadline_etcd_leader_changes_total");
const HEARTBEAT_FAILURES: &Descriptor = family("leadline_etcd_heartbeat_send_failures_total");
const PROPOSALS_FAILED: &Descriptor = family("leadline_etcd_proposals_failed_total");
const BUDGET: &Descriptor = family("leadline_etcd_election_budget_ratio");
const PEER_ACTIVE: &Descriptor = family("leadline_etcd_peer_active");
const DATABASE: &Descriptor = family("leadline_etcd_database_bytes");
const QUOTA: &Descriptor = family("leadline_etcd_quota_bytes");
const ALARM: &Descriptor = family("leadline_etcd_alarm");
const FSYNC: &Descriptor = family("leadline_etcd_wal_fsync_seconds");
const COMMIT: &Descriptor = family("leadline_etcd_backend_commit_seconds");

const WIRE_RTT: &Descriptor = family("leadline_tcp_port_rtt_seconds");
const WIRE_SEGMENTS: &Descriptor = family("leadline_tcp_port_transmit_segments_total");
const WIRE_RETRANSMITS: &Descriptor = family("leadline_tcp_port_retransmit_segments_total");

const ALIVE: &Descriptor = family("leadline_control_plane_alive");
const READY: &Descriptor = family("leadline_control_plane_ready");
const NOT_AFTER: &Descriptor = family("leadline_certificate_not_after_timestamp_seconds");

const MEMBER: &[&str] = &["cluster", "member"];
const NAMED: &[&str] = &["cluster", "name"];
/// Where members speak to each other.
const PEERS: Matcher = is("port", "2380");
const WEEK: f64 = 604_800.0;

/// The board.
#[must_use]
pub fn board() -> Board {
    Board {
        uid: UID,
        title: "etcd and quorum",
        description: "Whether etcd can write and how far it is from not being able to, who takes part, what eats up the \
                      election timeout, and the control plane that stands on it. The number of voters is that of the \
                      member list, never of who answers.",
        variables: Vec::new(),
        annotations: overview::annotations(),
        rows: vec![now(), members(), elections(), wire(), storage(), control_plane()],
    }
}

/// The moments of other leaders.
#[must_use]
pub fn leader_changes() -> Annotation {
    Annotation {
        name: "Leader changes",
        expression: all(LEADER_CHANGES, &[]).increase(Window::Rate).max_by(CLUSTER).above(0),
        title: "etcd has another leader",
        colour: Colour::Blue,
    }
}

/// The worst that is true of the quorum.
#[must_use]
pub fn verdict() -> Panel {
    let text = Text {
        shows: "Whether enough voters are healthy and follow one leader, by the word of the node that sees most.",
        normal: "healthy; not seen without etcd.",
        otherwise: "see the runbooks EtcdQuorumLost, EtcdLeaderDisagreement and EtcdQuorumMarginZero.",
    };
    let voters = all(MEMBERS, &[is("role", "voter")]).max_by(CLUSTER).above(NO_SPARE);
    let followed = all(LEADER, &[]).max_by(&["cluster", "leader"]).equals(1).count_by(CLUSTER);
    let quorum = || all(HAS_QUORUM, &[]).max_by(CLUSTER);
    let findings = vec![
        ("quorum lost", Colour::Red, quorum().equals(0)),
        ("two leaders", Colour::Red, followed.above(1)),
        ("no spare", Colour::Orange, all(MARGIN, &[]).max_by(CLUSTER).equals(0).and_on(CLUSTER, voters)),
    ];
    Panel::verdict("Quorum", text, CLUSTER, quorum(), findings)
}

/// What each member is called.
fn names() -> Expression {
    all(INFO, &[]).max_by(&["cluster", "member", "name"]).one_by(MEMBER)
}

/// What is true of members, by their names and further labels.
fn by_name(of_members: Expression, further: &[&'static str]) -> Expression {
    of_members.named(MEMBER, &["name"], names()).max_by(&[NAMED, further].concat())
}

fn now() -> Row {
    let margin = Text {
        shows: "How many more voters may fail.",
        normal: "1 of three voters, 2 of five.",
        otherwise: "0: mend before anything else. Below 0: the quorum is lost; see the runbook EtcdQuorumLost.",
    };
    let leader = Text {
        shows: "The members that others follow.",
        normal: "one.",
        otherwise: "none: an election goes on, or the quorum is lost. Two: the cluster is cut in two.",
    };
    let plane = Text {
        shows: "The worst component of the control plane on the chosen nodes, by its own word.",
        normal: "healthy; not seen where none runs.",
        otherwise: "the timeline below names it; the check that fails is in `leadline_control_plane_check`.",
    };
    let certificate = Text {
        shows: "The time until the first certificate of the chosen nodes ends, in files and as servers show them.",
        normal: "weeks.",
        otherwise: "the table below names it: renew it, and restart the server where the two differ.",
    };
    let followed = all(LEADER, &[]).max_by(&["cluster", "leader"]).equals(1).renamed("leader", "member");
    Row {
        title: "Can etcd write, and for how much longer?",
        height: 4,
        panels: vec![
            verdict().wide(5),
            Panel::new("May still fail", Kind::Stat, Unit::Count, margin)
                .ask(all(MARGIN, &[]).max_by(CLUSTER), "{{cluster}}")
                .base(Colour::Red)
                .from(&[(0.0, Colour::Orange), (1.0, Colour::Green)])
                .nothing("not seen")
                .wide(4),
            Panel::new("Leader", Kind::Names, Unit::Count, leader)
                .ask(by_name(followed, &[]), "{{name}}")
                .base(Colour::Blue)
                .nothing("nobody")
                .wide(5),
            Panel::verdict("Control plane", plane, CLUSTER, each(ALIVE, &[]), unwell()).wide(5),
            Panel::new("First certificate ends in", Kind::Stat, Unit::Duration, certificate)
                .ask(each(NOT_AFTER, &[]).from_now().min_by(CLUSTER), "{{cluster}}")
                .base(Colour::Red)
                .from(&[(WEEK, Colour::Orange), (4.0 * WEEK, Colour::Green)])
                .nothing("none seen")
                .wide(5),
        ],
    }
}

fn members() -> Row {
    let healthy = Text {
        shows: "Whether each member of the list answers in time and follows the leader of most, as the node sees that sees most.",
        normal: "all take part.",
        otherwise: "`leadline_etcd_member_failure` says why it does not answer; one that answers and follows nobody is cut off.",
    };
    let leader = Text {
        shows: "Whom members follow, over time.",
        normal: "one strip is blue for weeks.",
        otherwise: "two at once: cut in two. A leader that changes often: see what eats up the election timeout.",
    };
    let disagreement = Text {
        shows: "What members say differently, and members that live and hear no leader, as one does to which a way is cut in one direction only.",
        normal: "all fine.",
        otherwise: "see the runbooks EtcdLeaderDisagreement and EtcdOneWayPartition, and the streams below.",
    };
    let followed = all(LEADER, &[]).max_by(&["cluster", "leader"]).renamed("leader", "member");
    let sees = all(HAS_QUORUM, &[]).equals(1);
    let deaf = all(HAS_LEADER, &[]).is(0).and_on(&["cluster", "instance"], sees).max_by(MEMBER);
    Row {
        title: "Who takes part?",
        height: 7,
        panels: vec![
            Panel::new("Members", Kind::Timeline, Unit::Count, healthy)
                .nothing("no etcd was found")
                .ask(by_name(all(HEALTHY, &[]).max_by(MEMBER), &[]), "{{name}}")
                .words(&[(0, "does not take part", Colour::Red), (1, "takes part", Colour::Green)]),
            Panel::new("Leader over time", Kind::Timeline, Unit::Count, leader)
                .nothing("no etcd was found")
                .ask(by_name(followed, &[]), "{{name}}")
                .words(&[(0, "follows", Colour::Grey), (1, "leads", Colour::Blue)]),
            Panel::new("Disagreement and one-way cuts", Kind::Timeline, Unit::Count, disagreement)
                .nothing("no etcd was found")
                .ask(all(DISAGREEMENT, &[]).max_by(&["cluster", "subject"]), "{{subject}}")
                .ask(by_name(deaf, &[]), "{{name}} hears its leader")
                .words(&[(0, "fine", Colour::Green), (1, "trouble", Colour::Red)]),
        ],
    }
}

fn elections() -> Row {
    let term = Text {
        shows: "The term that each member is in: every election begins another one.",
        normal: "flat, and the same for all.",
        otherwise: "steps are elections; one member alone that climbs cannot hear the others and stands for election in vain.",
    };
    let trouble = Text {
        shows: "Changes of leader, heartbeats that were sent too late, and proposals that failed, at each node's member.",
        normal: "0.",
        otherwise: "late heartbeats before a change of leader: the leader's disk or processor. None before it: the network.",
    };
    let budget = Text {
        shows: "What takes part of the election timeout, as a share of it: fsync of the log, and the round trip to the farthest peer.",
        normal: "below a tenth. Empty where nothing says how long the timeout is: set `etcd.election_timeout`.",
        otherwise: "near 1 elections begin by themselves: a faster disk or path, or a longer timeout.",
    };
    let node: &[&str] = &["cluster", "node"];
    let grown = |family| all(family, &[]).increase(Window::Rate).max_by(node);
    Row {
        title: "Elections: what makes them, and what might?",
        height: 8,
        panels: vec![
            Panel::new("Term", Kind::Lines, Unit::Count, term)
                .nothing("no etcd was found")
                .ask(by_name(all(TERM, &[]).max_by(MEMBER), &[]), "{{name}}")
                .around()
                .steps(),
            Panel::new("Leader changes and what precedes them", Kind::Bars, Unit::Count, trouble)
                .nothing("no etcd was found")
                .ask(grown(LEADER_CHANGES), "{{node}} leader changes")
                .ask(grown(HEARTBEAT_FAILURES), "{{node}} late heartbeats")
                .ask(grown(PROPOSALS_FAILED), "{{node}} failed proposals"),
            Panel::new("Election timeout used up", Kind::Lines, Unit::Share, budget)
                .nothing("no etcd, or its election timeout is not known")
                .ask(each(BUDGET, &[]).max_by(&["cluster", "node", "part"]), "{{node}} {{part}}")
                .from(&[(0.1, Colour::Yellow), (0.5, Colour::Red)]),
        ],
    }
}

fn wire() -> Row {
    let rtt = Text {
        shows: "Round trips on the wire between the members, at their own port: the 99th percentile.",
        normal: "below a millisecond within a site, and less than a tenth of the heartbeat interval.",
        otherwise: "one pair: its path; see the overview's underlay and tunnel. All pairs with one member: its node.",
    };
    let again = Text {
        shows: "Segments between the members that were sent again, of those sent.",
        normal: "0.",
        otherwise: "a lossy path delays heartbeats by 200 ms and more each time, and elections follow.",
    };
    let streams = Text {
        shows: "Whether each member has a stream with each other one, by its own word.",
        normal: "all open.",
        otherwise: "compare both ends: of a way that is cut in one direction only one end says so, and etcd 3.6 for minutes neither.",
    };
    let pair: &[&str] = &["cluster", "node", "peer_address"];
    let shown: &[&str] = &["cluster", "node", "name"];
    let addresses =
        || all(INFO, &[]).max_by(&["cluster", "peer_address", "name"]).one_by(&["cluster", "peer_address"]);
    let to_name =
        |of: Expression| of.named(&["cluster", "peer_address"], &["name"], addresses()).max_by(shown);
    let buckets = ["cluster", "node", "peer_address", "le"];
    let slow = each_buckets(WIRE_RTT, &[PEERS]).rate(Window::Rate).sum_by(&buckets).quantile(0.99);
    let sum = |family| each(family, &[PEERS]).rate(Window::Rate).sum_by(pair);
    let share = sum(WIRE_RETRANSMITS).over(pair, sum(WIRE_SEGMENTS).at_least(1.0));
    let peer_names = names().renamed("member", "peer_member").renamed("name", "peer_name");
    let peer_names = peer_names.max_by(&["cluster", "peer_member", "peer_name"]);
    let open = all(PEER_ACTIVE, &[]).max_by(&["cluster", "member", "peer_member"]);
    let open = open.named(&["cluster", "peer_member"], &["peer_name"], peer_names);
    Row {
        title: "Do the members reach each other?",
        height: 8,
        panels: vec![
            Panel::new("Round trip on the wire, 99th percentile", Kind::Lines, Unit::Seconds, rtt)
                .nothing("no traffic between members measured")
                .ask(to_name(slow), "{{node}} to {{name}}"),
            Panel::new("Segments sent again", Kind::Lines, Unit::Share, again)
                .nothing("no traffic between members measured")
                .ask(to_name(share), "{{node}} to {{name}}")
                .from(&[(0.01, Colour::Orange), (0.05, Colour::Red)]),
            Panel::new("Streams between members", Kind::Timeline, Unit::Count, streams)
                .nothing("no etcd was found")
                .ask(by_name(open, &["peer_name"]), "{{name}} to {{peer_name}}")
                .words(&[(0, "closed", Colour::Red), (1, "open", Colour::Green)]),
        ],
    }
}

fn storage() -> Row {
    let quota = Text {
        shows: "The database file of each member as a share of its quota.",
        normal: "below a half, and flat: compaction keeps it so.",
        otherwise: "at 1 nothing can be written: compact and defragment, one member after the other, then raise the quota.",
    };
    let alarms = Text {
        shows: "Alarms that stand at a member.",
        normal: "none.",
        otherwise: "nospace: make space, then `etcdctl alarm disarm`. corrupt: take the member out and add it anew.",
    };
    let disk = Text {
        shows: "The 99th percentiles of fsync of the log and of commits of the database, at each node's member.",
        normal: "fsync below 10 ms, commits below 25 ms.",
        otherwise: "a slow disk is the most common reason of elections: who else writes to it?",
    };
    let node = ["cluster", "node", "le"];
    let slow = |family| each_buckets(family, &[]).rate(Window::Rate).sum_by(&node).quantile(0.99);
    let full = all(DATABASE, &[]).max_by(MEMBER).over(MEMBER, all(QUOTA, &[]).max_by(MEMBER));
    let alarm = all(ALARM, &[]).max_by(&["cluster", "member", "alarm"]);
    Row {
        title: "Storage: is there space, and is the disk fast enough?",
        height: 7,
        panels: vec![
            Panel::new("Quota used up", Kind::Lines, Unit::Share, quota)
                .nothing("no etcd was found")
                .ask(by_name(full, &[]), "{{name}}")
                .from(&[(0.8, Colour::Orange), (0.95, Colour::Red)]),
            Panel::new("Alarms", Kind::Timeline, Unit::Count, alarms)
                .nothing("no etcd was found")
                .ask(by_name(alarm, &["alarm"]), "{{name}} {{alarm}}")
                .words(&[(0, "none", Colour::Green), (1, "stands", Colour::Red)]),
            Panel::new("Disk, 99th percentile", Kind::Lines, Unit::Seconds, disk)
                .nothing("no etcd was found")
                .ask(slow(FSYNC), "{{node}} fsync")
                .ask(slow(COMMIT), "{{node}} commit")
                .from(&[(0.025, Colour::Red)]),
        ],
    }
}

/// What is wrong with components of the control plane, the worst first.
fn unwell() -> Vec<(&'static str, Colour, Expression)> {
    vec![
        ("down", Colour::Red, each(ALIVE, &[]).equals(0)),
        ("not ready", Colour::Orange, each(READY, &[]).equals(0)),
    ]
}

fn control_plane() -> Row {
    let components = Text {
        shows: "Whether each component lives and is ready, by its own word.",
        normal: "healthy. Without anonymous access it is known that the API server lives, not whether it is ready.",
        otherwise: "not ready while etcd has no quorum is what follows from that; else see `leadline_control_plane_check`.",
    };
    let certificates = Text {
        shows: "The time until each certificate of the chosen nodes ends, by file and by the address of the server that shows it.",
        normal: "weeks, and the same for a file and its server.",
        otherwise: "a server that lags behind its file was not restarted after the renewal.",
    };
    let component = &["cluster", "node", "component"];
    let place = &["cluster", "node", "purpose", "location"];
    let timeline = Panel::verdict("Components", components, component, each(ALIVE, &[]), unwell())
        .nothing("no control plane runs on these nodes");
    Row {
        title: "The control plane that stands on it",
        height: 8,
        panels: vec![
            timeline.over_time("{{component}} on {{node}}").wide(8),
            Panel::new("Certificates", Kind::Table, Unit::Duration, certificates)
                .nothing("no certificate was found")
                .ask(each(NOT_AFTER, &[]).from_now().min_by(place), "{{node}} {{purpose}} {{location}}")
                .value_name("ends in")
                .base(Colour::Red)
                .from(&[(WEEK, Colour::Orange), (4.0 * WEEK, Colour::Green)])
                .wide(16),
        ],
    }
}
