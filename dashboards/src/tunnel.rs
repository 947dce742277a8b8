//! Tunnels: data that is not answered while the daemon says that all is well, keys that are about to end, of which it says
//! nothing either, and members of etcd behind a relay.

pub mod board;

use leadline::metric::Descriptor;

use crate::expression::{Expression, family, is};
use crate::rule::{Alert, Group, Severity};

const ONE_WAY: &Descriptor = family("leadline_tunnel_peer_one_way");
const PATH: &Descriptor = family("leadline_tunnel_peer_path");
const ADDRESS: &Descriptor = family("leadline_tunnel_peer_address_info");
const MEMBER: &Descriptor = family("leadline_etcd_member_info");
const KEY_EXPIRY: &Descriptor = family("leadline_tunnel_key_expiry_timestamp_seconds");

/// A tunnel as the agent at its beginning knows it.
const TUNNEL: &[&str] = &["cluster", "instance", "node", "peer"];
/// The same with an address of the peer in the tailnet.
const ADDRESSED: &[&str] = &["cluster", "instance", "node", "peer", "peer_address"];
/// A member of etcd by its address.
const MEMBER_ADDRESS: &[&str] = &["cluster", "peer_address"];
/// A node.
const NODE: &[&str] = &["cluster", "instance", "node"];

/// A day and a night to renew a key.
const SOON: f64 = 86_400.0;

/// The alerts.
#[must_use]
pub fn rules() -> Group {
    Group { subject: "tunnel", interval: 15, alerts: vec![one_way(), etcd_member_relayed(), key_expiring()] }
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

/// Members that are known by an address of the tailnet have nothing but the tunnel.
fn etcd_member_relayed() -> Alert {
    let members = Expression::of(MEMBER, &[]).max_by(MEMBER_ADDRESS);
    let of_members = Expression::of(ADDRESS, &[]).max_by(ADDRESSED).and_on(MEMBER_ADDRESS, members);
    Alert {
        name: "TunnelEtcdMemberRelayed",
        severity: Severity::Warning,
        expression: Expression::of(PATH, &[is("path", "derp")])
            .max_by(TUNNEL)
            .equals(1)
            .and_on(TUNNEL, of_members),
        hold: 60,
        keep: 60,
        summary: "A node reaches a member of etcd only through a relay of the tailnet.",
        description: "{{ $labels.instance }} sends to {{ $labels.peer }}, a member of etcd, through a DERP relay: over TCP and by way of the provider. Round trips of etcd grow by as much, and with the relay it loses the member.",
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
