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
    help: "Segments of TCP that pods of this node have sent again to pods of another one. Full ones have as many bytes as the connection lets a segment have (its MSS), smaller ones less, as most requests do, and a SYN or FIN. Full ones alone that grow while connections hang are a path that is too narrow and does not say so; both are losses. A buffer of one segment counts as full where at least as many bytes were sent from its beginning on: of several small writes that are under way at once (TCP_NODELAY) one that is sent again may count as full and have less, but more than half where the kernel puts them together again (net.ipv4.tcp_retrans_collapse). Connections that are older than the agent are not counted here. At 0 from the start with up to 32 other nodes.",
    labels: &["peer_node", "size"],
    profile: Profile::Minimal,
    source: "BPF_SOCK_OPS_RETRANS_CB: segments of the buffer, its sequence number against snd_nxt and mss_cache",
    witness: "tcpdump at the pod's device, by sequence numbers and length, and TcpRetransSegs of its namespace: difference 0 in full and smaller ones while large packets vanish and while small ones do; 0 in their sum for small writes under way at once",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[&HANDSHAKE, &MIN_RTT, &RETRANSMITS];
