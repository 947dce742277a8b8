//! The families of watched ports.

use crate::kernel::PortCount;
use crate::metric::{Descriptor, Kind, Profile};

const PEER: &[&str] = &["port", "peer_address"];

const fn counter(
    name: &'static str,
    help: &'static str,
    source: &'static str,
    witness: &'static str,
) -> Descriptor {
    Descriptor {
        name,
        kind: Kind::Counter,
        unit: None,
        help,
        labels: PEER,
        profile: Profile::Minimal,
        source,
        witness,
    }
}

const RTT_SOURCE: &str = "srtt_us at BPF_SOCK_OPS_*_ESTABLISHED_CB, tcp_sock.rtt_min afterwards";

/// Round trips.
pub(super) static RTT: Descriptor = Descriptor {
    name: "leadline_tcp_port_rtt_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "Network round trip of the connections of a watched port with one peer on another node, whichever end has the port: the handshake unless a part of it was sent again, and each connection's windowed minimum at most once a second. Free of delayed acknowledgements and of the peer's thinking. Names of etcd's members join by address through leadline_etcd_member_info.",
    labels: PEER,
    profile: Profile::Minimal,
    source: RTT_SOURCE,
    witness: "tcpdump of the same connections, with and without an injected delay of 20 ms: mean between the least and the greatest of SYN to SYN-ACK and data to acknowledgement",
};

/// The least of them.
pub(super) static MIN_RTT: Descriptor = Descriptor {
    name: "leadline_tcp_port_min_rtt_seconds",
    kind: Kind::Gauge,
    unit: Some("seconds"),
    help: "Least round trip that was sampled of a watched port's connections with the peer in the last 10 to 20 seconds; absent where there was none. The minimum of one connection is the kernel's and has a window of its own (net.ipv4.tcp_min_rtt_wlen, 300 s): of a connection that lives on, a path that became longer shows that much later, one that became shorter at once.",
    labels: PEER,
    profile: Profile::Minimal,
    source: RTT_SOURCE,
    witness: "least of SYN to SYN-ACK and data to acknowledgement in tcpdump's record: within 0.05 ms",
};

/// A family, and which count it shows.
pub(super) type Counter = (Descriptor, fn(&PortCount) -> u64);

/// Plain counters.
pub(super) static COUNTERS: [Counter; 7] = [
    (
        counter(
            "leadline_tcp_port_transmit_segments_total",
            "TCP segments that this node's connections of a watched port sent to the peer, retransmitted ones included. What the kernel sends without a connection is not: SYN-ACKs, acknowledgements in TIME-WAIT, resets of strangers.",
            "cgroup_skb egress, skb gso_segs",
            "segments from SYN to FIN in tcpdump's record: difference 0",
        ),
        |count| count.transmit_segments,
    ),
    (
        counter(
            "leadline_tcp_port_retransmit_segments_total",
            "TCP segments that this node's connections of a watched port sent again to the peer. Of connections older than the agent, those since it saw them first.",
            "BPF_SOCK_OPS_RETRANS_CB (__tcp_retransmit_skb); tcp_sock.total_retrans of connections older than the agent",
            "RetransSegs of the network namespace: difference 0, SYN-ACKs excepted",
        ),
        |count| count.tcp.retransmit_segments,
    ),
    (
        counter(
            "leadline_tcp_port_retransmit_timeouts_total",
            "Retransmission timeouts of a watched port's connections with the peer; of those older than the agent only in its own network namespace, which is the host's, and since Linux 6.12.",
            "BPF_SOCK_OPS_RTO_CB (tcp_retransmit_timer)",
            "TCPTimeouts of the network namespace: difference 0, SYN-ACKs excepted",
        ),
        |count| count.tcp.retransmit_timeouts,
    ),
    (
        counter(
            "leadline_tcp_port_connects_total",
            "Connections that this node opened to the peer, to a watched port or from one.",
            "BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB",
            "number of connect(2) calls of the test: difference 0",
        ),
        |count| count.tcp.connects,
    ),
    (
        counter(
            "leadline_tcp_port_accepts_total",
            "Connections of the peer that this node accepted, at a watched port or from one, from its first answer on.",
            "BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB",
            "number of accept(2) calls of the test: difference 0",
        ),
        |count| count.tcp.accepts,
    ),
    (
        counter(
            "leadline_tcp_port_resets_received_total",
            "Established connections of a watched port that a RST of the peer ended.",
            "BPF_SOCK_OPS_STATE_CB from ESTABLISHED or CLOSE_WAIT to CLOSE with sk_err ECONNRESET or EPIPE (tcp_reset)",
            "connections that the server of the test reset: difference 0",
        ),
        |count| count.tcp.resets_received,
    ),
    (
        counter(
            "leadline_tcp_port_resets_sent_total",
            "Established connections of a watched port that this node gave up with a RST.",
            "BPF_SOCK_OPS_STATE_CB from ESTABLISHED or CLOSE_WAIT to CLOSE without an error (tcp_close, tcp_disconnect)",
            "connections that the client of the test reset: difference 0",
        ),
        |count| count.tcp.resets_sent,
    ),
];

/// Failed attempts by reason.
pub(super) static CONNECT_FAILURES: Descriptor = Descriptor {
    name: "leadline_tcp_port_connect_failures_total",
    kind: Kind::Counter,
    unit: None,
    help: "Attempts of this node to connect to the peer, to a watched port or from one, that failed after a SYN was sent: refused, timed_out, unreachable, aborted by the program, other.",
    labels: &["port", "peer_address", "reason"],
    profile: Profile::Minimal,
    source: "BPF_SOCK_OPS_STATE_CB from SYN_SENT to CLOSE, reason from sk_err",
    witness: "errno of connect(2) in the test: difference 0",
};

/// Peers beyond those that are told apart.
pub(super) static SLOTS_EXHAUSTED: Descriptor = Descriptor {
    name: "leadline_tcp_port_slots_exhausted_total",
    kind: Kind::Counter,
    unit: None,
    help: "Look-ups of connections that found 256 pairs of watched port and peer counted already, since the agent started: theirs are in no family of watched ports. The families by pod have them.",
    labels: &[],
    profile: Profile::Minimal,
    source: "the programs' control record",
    witness: "44 peers beyond 256: counted 44 times",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &RTT,
    &MIN_RTT,
    &COUNTERS[0].0,
    &COUNTERS[1].0,
    &COUNTERS[2].0,
    &COUNTERS[3].0,
    &COUNTERS[4].0,
    &COUNTERS[5].0,
    &COUNTERS[6].0,
    &CONNECT_FAILURES,
    &SLOTS_EXHAUSTED,
];
