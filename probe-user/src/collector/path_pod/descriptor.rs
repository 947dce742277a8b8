//! The families of paths between pods.

use crate::metric::{Descriptor, Kind, Profile};

const PEER: &[&str] = &["peer_node"];

/// Handshakes.
pub(super) static HANDSHAKE: Descriptor = Descriptor {
    name: "leadline_path_pod_handshake_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "Round trips of TCP handshakes between pods of this node and pods of another one, whichever end opened the connection: from the SYN to its answer, or from the answer to the acknowledgement; none where that end had to send its part again. The top of the ladder above the layers of leadline_path_rtt_seconds, but from stack to stack and not from device to device. Whose pod it is the addresses of the socket say: behind a service the connecting end has that of the service, so that only the node of the accepting end counts the connection (the other one in leadline_tcp_node_rtt_seconds, by peer_class), and pods in the host's network are none. At 0 from the start with up to 32 other nodes; with more, from the first connection.",
    labels: PEER,
    profile: Profile::Minimal,
    source: "srtt_us at BPF_SOCK_OPS_*_ESTABLISHED_CB; addresses of the socket looked up in the peer trie",
    witness: "number of connect(2) calls of the test: difference 0, to two nodes, over IPv4 and IPv6; tcpdump at the pods' devices, SYN to SYN-ACK and SYN-ACK to acknowledgement, with and without an injected delay of 20 ms: mean within 0.1 ms",
};

/// The least round trip.
pub(super) static MIN_RTT: Descriptor = Descriptor {
    name: "leadline_path_pod_min_rtt_seconds",
    kind: Kind::Gauge,
    unit: Some("seconds"),
    help: "Least round trip of TCP between pods of this node and pods of another one that was sampled in the last 10 to 20 seconds: of handshakes, and the minimum of each connection at most once a second, of those older than the agent too; absent where there was none. The minimum of one connection is the kernel's and has a window of its own (net.ipv4.tcp_min_rtt_wlen, 300 s): while a connection lives on, a path that became longer shows that much later here, and at once in the handshakes.",
    labels: PEER,
    profile: Profile::Minimal,
    source: "srtt_us at BPF_SOCK_OPS_*_ESTABLISHED_CB, tcp_sock.rtt_min afterwards",
    witness: "least minrtt of `ss -ti` of the same connections, which are held open: within 0.05 ms",
};

/// Segments sent again.
pub(super) static RETRANSMITS: Descriptor = Descriptor {
    name: "leadline_path_pod_retransmit_segments_total",
    kind: Kind::Counter,
    unit: None,
    help: "Segments of TCP that pods of this node have sent again to pods of another one. Full ones have as many bytes as the connection lets a segment have at that moment (its MSS), or up to 40 less, which options take; smaller ones less, as most requests have, and a SYN or FIN. Full ones alone that grow while connections hang are a path that is too narrow and does not say so; both are losses. Connections older than the agent are not counted here. Absent without BTF and before Linux 5.11. At 0 from the start with up to 32 other nodes.",
    labels: &["peer_node", "size"],
    profile: Profile::Minimal,
    source: "segments at BPF_SOCK_OPS_RETRANS_CB; sk_buff.len and tcp_sock.mss_cache at the tracepoint tcp_retransmit_skb, in the same call",
    witness: "tcpdump at the pod's device, by sequence numbers and length, and TcpRetransSegs of its namespace: difference 0 in both sizes, over IPv4 and IPv6, while large packets vanish, while small ones do, for small writes under way at once, and when the MSS has become smaller",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[&HANDSHAKE, &MIN_RTT, &RETRANSMITS];
