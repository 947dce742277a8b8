//! Virtual addresses: who has them, whether they serve, how long a failover took.
//!
//! Every observer says the same of an address, so that the truth is the greatest value of all: a node that hears nobody
//! is outvoted by one that does.

pub mod board;

use leadline::metric::Descriptor;

use crate::expression::{Expression, Window, family, is_not, like};
use crate::rule::{Alert, Group, Severity};

const ANNOUNCER: &Descriptor = family("leadline_vip_announcer");
const CONFLICT: &Descriptor = family("leadline_vip_conflict");
const HELD: &Descriptor = family("leadline_vip_held");
const REACHABLE: &Descriptor = family("leadline_vip_reachable");
const FAILOVERS: &Descriptor = family("leadline_vip_failovers_total");
const LAST_FAILOVER: &Descriptor = family("leadline_vip_last_failover_seconds");

/// An address of a cluster.
const VIP: &[&str] = &["cluster", "vip"];
/// An address as one observer knows it.
const OBSERVED: &[&str] = &["cluster", "instance", "vip"];

/// Seconds for which two nodes must have had an address: longer than two scrapes are apart, of which one may be of
/// before a failover and the other one of after it.
const BOTH_HELD: u32 = 30;
/// Seconds for which a failover is told.
const RECENT: u32 = 300;
/// A failover of VRRP with its usual interval of a second takes 3.6 s, and clients of Kubernetes give up after ten.
const SLOW: i32 = 5;

/// The alerts.
#[must_use]
pub fn rules() -> Group {
    Group { subject: "vip", interval: 5, alerts: vec![lost(), split_brain(), unreachable(), failover_slow()] }
}

fn lost() -> Alert {
    Alert {
        name: "VipLost",
        severity: Severity::Critical,
        expression: Expression::of(ANNOUNCER, &[]).max_by(VIP).equals(0),
        hold: 10,
        keep: 30,
        summary: "Nobody announces a virtual address any more.",
        description: "No node announces {{ $labels.vip }}{{ with $labels.cluster }} of cluster {{ . }}{{ end }}, as all agents see it: what clients send to it goes nowhere, or to a node that no longer takes part.",
    }
}

/// What was heard of both, or both say of themselves where no observer can hear both.
fn split_brain() -> Alert {
    let heard = Expression::of(CONFLICT, &[]).max_by(VIP).equals(1);
    // Still, and for long: a node that has died is no holder, whatever its last samples say.
    let holds = Expression::of(HELD, &[])
        .equals(1)
        .and_on(OBSERVED, Expression::of(HELD, &[]).min_over(BOTH_HELD).equals(1))
        .max_by(OBSERVED);
    Alert {
        name: "VipSplitBrain",
        severity: Severity::Critical,
        expression: heard.or(holds.count_by(VIP).above(1)),
        hold: 5,
        keep: 30,
        summary: "Two nodes hold on to one virtual address.",
        description: "Two nodes have {{ $labels.vip }}{{ with $labels.cluster }} of cluster {{ . }}{{ end }} at once: which of them a client reaches is chance.",
    }
}

fn unreachable() -> Alert {
    Alert {
        name: "VipUnreachable",
        severity: Severity::Critical,
        expression: Expression::of(REACHABLE, &[]).max_by(&["cluster", "vip", "port"]).equals(0),
        hold: 15,
        keep: 30,
        summary: "No node reaches the service behind a virtual address.",
        description: "Port {{ $labels.port }} of {{ $labels.vip }}{{ with $labels.cluster }} of cluster {{ . }}{{ end }} answers none of the nodes that probe it.",
    }
}

/// Of a move whose cause is unknown the observer has not heard all, or nobody said when it began.
fn failover_slow() -> Alert {
    let moved = Expression::of(FAILOVERS, &[is_not("cause", "unknown")]).increase(Window::Seconds(RECENT));
    let took = Expression::of(LAST_FAILOVER, &[like("phase", "detect|total")]).above(SLOW);
    Alert {
        name: "VipFailoverSlow",
        severity: Severity::Warning,
        expression: took.and_on(OBSERVED, moved.sum_by(OBSERVED).above(0)).max_by(VIP),
        hold: 0,
        keep: 0,
        summary: "A virtual address was away for longer than a failover should take.",
        description: "The last move of {{ $labels.vip }}{{ with $labels.cluster }} of cluster {{ . }}{{ end }} took {{ $value | humanizeDuration }}, from the last sign of the old owner to the new one.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_observer_says_is_never_added_up() {
        for alert in rules().alerts {
            let text = alert.expression.to_string();
            for part in text.split("sum by ").skip(1) {
                assert!(part.starts_with("(cluster, instance, vip)"), "{}: {text}", alert.name);
            }
        }
    }
}
