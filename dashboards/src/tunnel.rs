//! Tunnels: data that is not answered while the daemon says that all is well, and keys that are about to end, of which it
//! says nothing either.

pub mod board;

use leadline::metric::Descriptor;

use crate::expression::{Expression, family};
use crate::rule::{Alert, Group, Severity};

const ONE_WAY: &Descriptor = family("leadline_tunnel_peer_one_way");
const KEY_EXPIRY: &Descriptor = family("leadline_tunnel_key_expiry_timestamp_seconds");

/// A tunnel as the agent at its beginning knows it.
const TUNNEL: &[&str] = &["cluster", "instance", "node", "peer"];
/// A node.
const NODE: &[&str] = &["cluster", "instance", "node"];

/// A day and a night to renew a key.
const SOON: f64 = 86_400.0;

/// The alerts.
#[must_use]
pub fn rules() -> Group {
    Group { subject: "tunnel", interval: 15, alerts: vec![one_way(), key_expiring()] }
}

/// A peer that is off looks the same as long as something is sent to it.
fn one_way() -> Alert {
    Alert {
        name: "TunnelOneWay",
        severity: Severity::Warning,
        expression: Expression::of(ONE_WAY, &[]).max_by(TUNNEL).equals(1),
        hold: 60,
        keep: 60,
        summary: "What a node sends through its tunnel to a peer is not answered.",
        description: "{{ $labels.instance }} sends data to {{ $labels.peer }} through the tunnel and hears nothing of it, or makes handshakes all the time. tailscaled may call that path direct and healthy.",
    }
}

/// Once it has ended the node is logged out, which is seen as such.
fn key_expiring() -> Alert {
    Alert {
        name: "TunnelKeyExpiring",
        severity: Severity::Warning,
        expression: Expression::of(KEY_EXPIRY, &[]).max_by(NODE).from_now().below(SOON),
        hold: 60,
        keep: 60,
        summary: "The key of a node ends within a day; then it is no part of its tailnet.",
        description: "The key by which {{ $labels.instance }} is part of its tailnet ends within a day, or has ended. Nobody reaches the node through the tunnel from then on, and tailscaled's health stays empty.",
    }
}
