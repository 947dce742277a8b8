//! The families of the tunnel.

use crate::metric::{Descriptor, Kind, Profile};

/// Template: a gauge of this node.
const OWN: Descriptor = Descriptor {
    name: "",
    kind: Kind::Gauge,
    unit: None,
    help: "",
    labels: &[],
    profile: Profile::Minimal,
    source: "GET /localapi/v0/status of tailscaled",
    witness: "tailscale status --json at the same stage: difference 0",
};

/// Template: a gauge of a peer.
const PEER: Descriptor = Descriptor { labels: &["peer"], ..OWN };

pub(super) static INFO: Descriptor = Descriptor {
    name: "leadline_tunnel_info",
    help: "The tailscaled that is asked: its version, and the socket; 1.",
    labels: &["version", "socket"],
    ..OWN
};

pub(super) static STATE: Descriptor = Descriptor {
    name: "leadline_tunnel_state",
    help: "What tailscaled is doing, 1 for the state it is in. needs_login is also what an expired key of this node leads to.",
    labels: &["state"],
    ..OWN
};

pub(super) static ONLINE: Descriptor = Descriptor {
    name: "leadline_tunnel_online",
    help: "Whether this node is connected to the coordination server. The tunnels work without it.",
    ..OWN
};

pub(super) static HOME_RELAY: Descriptor = Descriptor {
    name: "leadline_tunnel_home_relay_info",
    help: "The DERP relay at which this node can be reached, by its code, the nearest one by what tailscaled measures itself; 1. Absent where it has none, as without any way to the relays: then nobody reaches it who has no direct path.",
    labels: &["relay"],
    ..OWN
};

pub(super) static KEY_EXPIRY: Descriptor = Descriptor {
    name: "leadline_tunnel_key_expiry_timestamp_seconds",
    unit: Some("seconds"),
    help: "When the key of this node ends, after which it is no part of the tailnet. Absent where it never does. Compare with time(): tailscaled's own health says nothing.",
    ..OWN
};

pub(super) static HEALTH: Descriptor = Descriptor {
    name: "leadline_tunnel_health_messages",
    help: "Complaints of tailscaled's health check. An expired key, a route without approval and a tunnel that loses all data are none.",
    ..OWN
};

pub(super) static ROUTE: Descriptor = Descriptor {
    name: "leadline_tunnel_route_approved",
    help: "Whether a route that this node offers to its tailnet was approved; without approval nobody uses it, and nothing else tells. At most 64. Absent while this node is not running.",
    labels: &["route"],
    source: "AdvertiseRoutes of GET /localapi/v0/prefs, AllowedIPs of this node in GET /localapi/v0/status",
    ..OWN
};

pub(super) static PATH: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_path",
    help: "The way by which this node sends to a peer, 1 for the one that it is: direct, peer_relay (through another node), derp (through a relay of the provider, over TCP), idle (nothing was sent for 45 s). The peer may answer another way: ask both ends.",
    labels: &["peer", "path"],
    ..PEER
};

pub(super) static CHANGES: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_path_changes_total",
    kind: Kind::Counter,
    help: "How often the path to a peer was seen to have become another one since the agent started; being idle in between is no change.",
    witness: "UDP blocked and unblocked in a test: one each",
    ..PEER
};

pub(super) static ENDPOINT: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_endpoint",
    help: "The address that this node sends to for a peer: its own, or that of the node that relays; 1. Absent through derp and while idle.",
    labels: &["peer", "endpoint"],
    ..PEER
};

pub(super) static ADDRESS: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_address_info",
    help: "An address of a peer in the tailnet; 1. By it members of etcd and others are found that are known by such an address: leadline_etcd_member_info has the same label.",
    labels: &["peer", "peer_address"],
    ..PEER
};

pub(super) static NESTED: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_nested",
    help: "Whether that address is one of a pod network or of an overlay device: then the tunnel rides on what may ride on the tunnel, with a smaller MTU at best. Absent where there is no address.",
    source: "GET /localapi/v0/status of tailscaled; routes and devices of overlays, peers.pod_cidrs",
    witness: "the networks that a test declares to be those of pods",
    ..PEER
};

pub(super) static HANDSHAKE: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_handshake_timestamp_seconds",
    unit: Some("seconds"),
    help: "The last WireGuard handshake with a peer, every two minutes while data flows. Absent where there was none since the peer was idle. A fresh one does not mean that data arrives. Of peers that tailscaled does not list it is that of the uplinks.",
    ..PEER
};

pub(super) static RECEIVED: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_receive_bytes_total",
    kind: Kind::Counter,
    unit: Some("bytes"),
    help: "WireGuard bytes from a peer on any path. tailscaled begins at 0 again after a peer was idle; this goes on from where it was.",
    ..PEER
};

pub(super) static TRANSMITTED: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_transmit_bytes_total",
    kind: Kind::Counter,
    unit: Some("bytes"),
    help: "WireGuard bytes to a peer on any path, also those that were lost; as above.",
    ..PEER
};

pub(super) static PEER_ONLINE: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_online",
    help: "Whether a peer is connected to the coordination server, by its word. It says nothing of the tunnel to it, nor of an expired key.",
    ..PEER
};

pub(super) static PEER_KEY_EXPIRY: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_key_expiry_timestamp_seconds",
    unit: Some("seconds"),
    help: "When the key of a peer ends. Absent where it never does.",
    ..PEER
};

pub(super) static PEER_EXPIRED: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_key_expired",
    help: "Whether the key of a peer has ended by tailscaled's word, which then sends it nothing. Where clocks are off that differs from what the timestamp says.",
    ..PEER
};

pub(super) static ONE_WAY: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_one_way",
    help: "Whether what this node sends to a peer is not answered: nothing came for 15 s after something went out, or three handshakes were made within a minute, as WireGuard does when it hears nothing of its data. 0 while idle. Of peers that tailscaled does not list (no socket, plain WireGuard) the handshakes on the uplinks are counted, which follow each other only while there is data; absent before the first one.",
    source: "GET /localapi/v0/status of tailscaled; the tap: handshakes on the uplinks",
    witness: "data dropped on the switch while tailscale ping is answered, with tailscaled's socket and without; wireguard-go without Tailscale",
    ..PEER
};

const WIRE: &str = "the tap: packets of the uplinks";

pub(super) static RTT: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_rtt_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "Round trips of the pings by which tailscaled watches a path to a peer, every 3 s while it is spoken to: from this node's uplink to it, and as long as the other daemon takes to answer. Directly and through a peer relay; what goes through DERP is not seen. The peer is that which tailscaled names; without it the node, else the address. Absent with collector.vip off, whose tap this is.",
    source: WIRE,
    witness: "tcpdump on the uplink: number exact but for one about each scrape, mean within 100 us, of which 40 us are the way from its place to the tap's and back; tailscale ping at the same time: within 5 ms",
    ..PEER
};

pub(super) static PINGS: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_pings_total",
    kind: Kind::Counter,
    help: "Those pings, by what became of them: answered, or unanswered when the next one was sent. Only pings to addresses that have answered before: tailscaled also tries those that never will.",
    labels: &["peer", "result"],
    source: WIRE,
    witness: "tcpdump on the uplink: exact but for one about each scrape",
    ..PEER
};

pub(super) static REACHABLE: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_reachable",
    help: "Whether an address from which a peer has answered pings or handshakes still does: 0 when one is not answered for 1 s and nothing else has come from there for 3.5 s, which is before tailscaled leaves the path. Absent where nothing was asked for a minute.",
    source: WIRE,
    witness: "UDP blocked on the switch: 0 within 5 s, and 1 after it passes again",
    ..PEER
};

pub(super) static HANDSHAKE_RTT: Descriptor = Descriptor {
    name: "leadline_tunnel_peer_handshake_rtt_seconds",
    unit: Some("seconds"),
    help: "The last handshake of WireGuard that this node began: from its initiation to the response, with the time that the other end calculates. Of any WireGuard, also without tailscaled.",
    source: WIRE,
    witness: "tcpdump on the uplink, within 1 ms",
    ..PEER
};

pub(super) static FOREIGN: Descriptor = Descriptor {
    name: "leadline_tunnel_foreign_packets_total",
    kind: Kind::Counter,
    help: "Packets of UDP that begin as those of tunnels do, and have a length that none of them has.",
    source: WIRE,
    witness: "garbage of each kind sent in a test: exact",
    ..OWN
};

pub(super) static OMITTED: Descriptor = Descriptor {
    name: "leadline_tunnel_omitted",
    help: "Peers and routes that have no series, since 256 peers and 64 routes have. Peers that were never spoken to give way to those that are. An endpoint is an address that answers pings or handshakes, and whose peer has none of the 256 series of the wire.",
    labels: &["subject"],
    witness: "300 peers in a unit test",
    ..OWN
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &INFO,
    &STATE,
    &ONLINE,
    &HOME_RELAY,
    &KEY_EXPIRY,
    &HEALTH,
    &ROUTE,
    &PATH,
    &CHANGES,
    &ENDPOINT,
    &ADDRESS,
    &NESTED,
    &HANDSHAKE,
    &RECEIVED,
    &TRANSMITTED,
    &PEER_ONLINE,
    &PEER_KEY_EXPIRY,
    &PEER_EXPIRED,
    &ONE_WAY,
    &RTT,
    &PINGS,
    &REACHABLE,
    &HANDSHAKE_RTT,
    &FOREIGN,
    &OMITTED,
];
