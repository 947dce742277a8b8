//! The families of routers' messages.

use crate::metric::{Descriptor, Kind, Profile};

const PEER: &[&str] = &["peer_node"];
const SOURCE: &str = "ICMP type 3 code 4 and ICMPv6 type 2 that come in by a tapped uplink";

/// Messages.
pub(super) static MESSAGES: Descriptor = Descriptor {
    name: "leadline_path_too_big_messages_total",
    kind: Kind::Counter,
    unit: None,
    help: "Messages of routers that a packet of this node or of its pods to another node was too big for their next link: ICMP \"fragmentation needed\" (RFC 1191) and ICMPv6 \"packet too big\" (RFC 4443). Whose packet it was and where it went the quoted header says, by any address of the node or of its pods. A few are how the kernel learns the MTU of a path; they go on where a sender does not heed them. None come where something swallows large packets, or the messages. Anybody who knows two addresses can forge one: the kernel heeds only those about a connection that it has, and here each counts. At 0 from the start with up to 32 other nodes; with more, from the first message.",
    labels: PEER,
    profile: Profile::Minimal,
    source: SOURCE,
    witness: "IcmpOutDestUnreachs and Icmp6OutPktTooBigs of a router in the lab, and tcpdump: difference 0, over both families, about packets of a node and of a pod without encapsulation",
};

/// What was told last.
pub(super) static MTU: Descriptor = Descriptor {
    name: "leadline_path_too_big_mtu_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    help: "Largest IP packet that a router on the way to another node has said its next link takes: of the node's addresses and pods the one with the least. As in the kernel, a larger word about the same address counts only once the smaller one is forgotten, net.ipv4.route.mtu_expires or net.ipv6.route.mtu_expires (600 s) after it was last said. Absent where nothing was said since. A router that names no MTU (0, RFC 1191 section 5), or one below what every path takes (68, over IPv6 1280), is counted and says nothing here.",
    labels: PEER,
    profile: Profile::Minimal,
    source: "next-hop MTU of those messages; the two sysctls",
    witness: "MTU of the router's link: difference 0, over both families; gone within 2 s of the kernel's own exception (`ip route get`)",
};

/// Messages that are about no node.
pub(super) static OTHER: Descriptor = Descriptor {
    name: "leadline_path_too_big_other_messages_total",
    kind: Kind::Counter,
    unit: None,
    help: "The same messages where they are about no path to a node: destination, the quoted packet went to none that is known; source, it was sent by no address of this node and by no pod of it, so that the message is forged or passed on; malformed, it breaks the rules of its protocol.",
    labels: &["reason"],
    profile: Profile::Minimal,
    source: SOURCE,
    witness: "messages that the test forged: difference 0 for each reason",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[&MESSAGES, &MTU, &OTHER];
