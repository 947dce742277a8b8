//! etcd: whether there is a quorum, how far it is from its loss, and who is cut off.
//!
//! A node that is cut off sees no quorum, so that the truth is the greatest value of all nodes; no node asks another one.

pub mod board;

use leadline::metric::Descriptor;

use crate::expression::{Expression, family, is};
use crate::rule::{Alert, Group, Severity};

const HAS_QUORUM: &Descriptor = family("leadline_etcd_has_quorum");
pub(crate) const MARGIN: &Descriptor = family("leadline_etcd_quorum_margin");
const MEMBERS: &Descriptor = family("leadline_etcd_members");
const LEADER: &Descriptor = family("leadline_etcd_leader");
const HAS_LEADER: &Descriptor = family("leadline_etcd_has_leader");

const CLUSTER: &[&str] = &["cluster"];

/// The most voters of which none may fail even when all are well.
const NO_SPARE: i32 = 2;

/// The alerts.
#[must_use]
pub fn rules() -> Group {
    let alerts = vec![quorum_lost(), margin_zero(), leader_disagreement(), one_way_partition()];
    Group { subject: "etcd", interval: 5, alerts }
}

fn quorum_lost() -> Alert {
    Alert {
        name: "EtcdQuorumLost",
        severity: Severity::Critical,
        expression: Expression::of(HAS_QUORUM, &[]).max_by(CLUSTER).equals(0),
        hold: 10,
        keep: 30,
        summary: "etcd has lost its quorum.",
        description: "No node sees enough voters of etcd and a leader{{ with $labels.cluster }} in cluster {{ . }}{{ end }}: nothing can be written, and the API server does not serve.",
    }
}

/// Where all are well and none may fail, as with one voter or two, nothing has been used up.
fn margin_zero() -> Alert {
    let voters = Expression::of(MEMBERS, &[is("role", "voter")]).max_by(CLUSTER);
    Alert {
        name: "EtcdQuorumMarginZero",
        severity: Severity::Critical,
        expression: Expression::of(MARGIN, &[])
            .max_by(CLUSTER)
            .equals(0)
            .and_on(CLUSTER, voters.above(NO_SPARE)),
        hold: 60,
        keep: 30,
        summary: "One more failure loses the quorum of etcd.",
        description: "As many voters of etcd have failed{{ with $labels.cluster }} in cluster {{ . }}{{ end }} as may: the next one ends the cluster.",
    }
}

/// Counted over all nodes: two halves of a cluster may each follow their own, and no node see both.
fn leader_disagreement() -> Alert {
    let followed = Expression::of(LEADER, &[]).max_by(&["cluster", "leader"]).equals(1);
    Alert {
        name: "EtcdLeaderDisagreement",
        severity: Severity::Critical,
        expression: followed.count_by(CLUSTER).above(1),
        hold: 30,
        keep: 30,
        summary: "Members of etcd follow different leaders.",
        description: "Members of etcd follow {{ $value }} leaders at once{{ with $labels.cluster }} in cluster {{ . }}{{ end }}: the cluster is cut in two, or two clusters are taken for one.",
    }
}

/// A node that sees the quorum has an answer of the member: it lives, and not all ways to it are cut. Whether streams
/// are active says nothing of this: etcd 3.6 shows both ends as active for as long as TCP keeps trying.
fn one_way_partition() -> Alert {
    let observer: &[&str] = &["cluster", "instance"];
    Alert {
        name: "EtcdOneWayPartition",
        severity: Severity::Warning,
        expression: Expression::of(HAS_LEADER, &[])
            .equals(0)
            .and_on(observer, Expression::of(HAS_QUORUM, &[]).equals(1))
            .max_by(&["cluster", "member"]),
        hold: 30,
        keep: 30,
        summary: "A member of etcd lives and does not hear its leader.",
        description: "Member {{ $labels.member }} of etcd{{ with $labels.cluster }} in cluster {{ . }}{{ end }} answers a node that sees the quorum, and follows no leader: a way between members is cut, maybe in one direction only.",
    }
}
