//! Paths between nodes: one layer that is broken where another one of the same pair is not, and packets that vanish for
//! their size.

pub mod board;

use leadline::metric::Descriptor;

use crate::expression::{Expression, family};
use crate::rule::{Alert, Group, Severity};

const REACHABLE: &Descriptor = family("leadline_path_reachable");
const BLACK_HOLE: &Descriptor = family("leadline_path_mtu_black_hole");

/// A path as the agent at its beginning knows it.
const PATH: &[&str] = &["cluster", "instance", "node", "peer_node", "layer"];
/// A pair of nodes.
const PAIR: &[&str] = &["cluster", "instance", "node", "peer_node"];

/// The alerts.
#[must_use]
pub fn rules() -> Group {
    Group { subject: "path", interval: 15, alerts: vec![layer_unreachable(), black_hole()] }
}

/// A node that is off is unreachable on all layers, which others tell better.
fn layer_unreachable() -> Alert {
    let reachable = || Expression::of(REACHABLE, &[]).max_by(PATH);
    Alert {
        name: "PathLayerUnreachable",
        severity: Severity::Warning,
        expression: reachable().equals(0).and_on(PAIR, reachable().equals(1)),
        hold: 30,
        keep: 60,
        summary: "A node is unreachable on one layer and reachable on another.",
        description: "{{ $labels.instance }} reaches {{ $labels.peer_node }} no more on the layer {{ $labels.layer }}, but on another one: that layer is broken between them, and neither node is down.",
    }
}

fn black_hole() -> Alert {
    Alert {
        name: "PathBlackHole",
        severity: Severity::Warning,
        expression: Expression::of(BLACK_HOLE, &[]).max_by(PATH).equals(1),
        hold: 30,
        keep: 60,
        summary: "Large packets vanish between two nodes while small ones pass.",
        description: "Packets of full size from {{ $labels.instance }} to {{ $labels.peer_node }}, or their answers, are lost on the layer {{ $labels.layer }} without a word: connections open and then hang.",
    }
}
