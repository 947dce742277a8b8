//! The families of TCP health.

use probe_common::tcp::{Durations, TcpCell};

use crate::ledger::Counts;
use crate::metric::{Descriptor, Kind, Profile};

const POD: &[&str] = &["namespace", "pod"];

const fn seconds(
    name: &'static str,
    profile: Profile,
    help: &'static str,
    source: &'static str,
    witness: &'static str,
) -> Descriptor {
    Descriptor {
        name,
        kind: Kind::Histogram,
        unit: Some("seconds"),
        help,
        labels: POD,
        profile,
        source,
        witness,
    }
}

const fn counter(
    name: &'static str,
    profile: Profile,
    help: &'static str,
    source: &'static str,
    witness: &'static str,
) -> Descriptor {
    Descriptor { name, kind: Kind::Counter, unit: None, help, labels: POD, profile, source, witness }
}

const RTT_SOURCE: &str = "srtt_us at BPF_SOCK_OPS_*_ESTABLISHED_CB, tcp_sock.rtt_min afterwards";
const RTT_WITNESS: &str = "injected delay of 20 ms while the server thinks for 30 ms: within 0.2 ms";

/// A family, and which part of the TCP health it shows.
pub(super) type Histogram = (Descriptor, fn(&TcpCell) -> &Durations);
/// A family, and which count it shows.
pub(super) type Counter = (Descriptor, fn(&Counts) -> u64);

/// Round trips, acknowledgement times, connect times.
pub(super) static HISTOGRAMS: [Histogram; 3] = [
    (
        seconds(
            "leadline_tcp_rtt_seconds",
            Profile::Standard,
            "Network round trip of the pod's TCP connections: the handshake unless a part of it was sent again, and each connection's windowed minimum at most once a second. Free of delayed acknowledgements and of the peer's thinking.",
            RTT_SOURCE,
            RTT_WITNESS,
        ),
        |cell| &cell.rtt,
    ),
    (
        seconds(
            "leadline_tcp_ack_seconds",
            Profile::Detailed,
            "Every acknowledgement time that the kernel sampled, delayed acknowledgements and answers that the peer thought about included. Not network latency. Kernels that pass no arguments to the callback give smoothed times; connections older than the agent give none. Only in the detailed profile.",
            "BPF_SOCK_OPS_RTT_CB (tcp_rtt_estimator)",
            "rtt of `ss -ti` of the same connections, 30 ms of thinking on 20 ms of network: mean of the samples within 2 ms",
        ),
        |cell| &cell.ack,
    ),
    (
        seconds(
            "leadline_tcp_connect_seconds",
            Profile::Detailed,
            "Time from the first SYN to the established connection, as the connecting pod sees it, lost SYNs included. Only in the detailed profile.",
            "BPF_SOCK_OPS_TCP_CONNECT_CB to BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB",
            "connect(2) timed by the client: within 1 ms",
        ),
        |cell| &cell.connect,
    ),
];

/// The same round trips, node-wide.
pub(super) static NODE_RTT: Descriptor = Descriptor {
    name: "leadline_tcp_node_rtt_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "Network round trip of all TCP connections of local sockets by class of peer.",
    labels: &["peer_class"],
    profile: Profile::Minimal,
    source: RTT_SOURCE,
    witness: RTT_WITNESS,
};

/// Plain counters.
pub(super) static COUNTERS: [Counter; 7] = [
    (
        counter(
            "leadline_tcp_transmit_segments_total",
            Profile::Standard,
            "TCP segments that the pod sent, retransmitted ones included.",
            "cgroup_skb egress, skb gso_segs",
            "OutSegs + RetransSegs of the pod's network namespace: difference 0",
        ),
        |counts| counts.traffic.transmit_packets,
    ),
    (
        counter(
            "leadline_tcp_retransmit_segments_total",
            Profile::Standard,
            "TCP segments that the pod sent again.",
            "BPF_SOCK_OPS_RETRANS_CB (__tcp_retransmit_skb); tcp_sock.total_retrans of connections older than the agent",
            "RetransSegs of the pod's network namespace: difference 0, SYN-ACKs excepted",
        ),
        |counts| counts.tcp.retransmit_segments,
    ),
    (
        counter(
            "leadline_tcp_retransmit_timeouts_total",
            Profile::Detailed,
            "Retransmission timeouts of the pod's connections, those older than the agent excepted. Only in the detailed profile.",
            "BPF_SOCK_OPS_RTO_CB (tcp_retransmit_timer)",
            "TCPTimeouts of the pod's network namespace: difference 0, SYN-ACKs excepted",
        ),
        |counts| counts.tcp.retransmit_timeouts,
    ),
    (
        counter(
            "leadline_tcp_connects_total",
            Profile::Standard,
            "Connections that the pod opened.",
            "BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB",
            "number of connect(2) calls of the test: difference 0",
        ),
        |counts| counts.tcp.connects,
    ),
    (
        counter(
            "leadline_tcp_accepts_total",
            Profile::Detailed,
            "Connections that the pod accepted, from its first answer on. Only in the detailed profile.",
            "BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB",
            "number of accept(2) calls of the test: difference 0",
        ),
        |counts| counts.tcp.accepts,
    ),
    (
        counter(
            "leadline_tcp_resets_received_total",
            Profile::Standard,
            "Established connections of the pod that a RST of the peer ended. Established is ESTABLISHED and CLOSE-WAIT, as in RFC 4022: a RST after the pod's own FIN does not count.",
            "BPF_SOCK_OPS_STATE_CB from ESTABLISHED or CLOSE_WAIT to CLOSE with sk_err ECONNRESET or EPIPE (tcp_reset)",
            "EstabResets of the pod's network namespace, which is received and sent together: difference 0",
        ),
        |counts| counts.tcp.resets_received,
    ),
    (
        counter(
            "leadline_tcp_resets_sent_total",
            Profile::Detailed,
            "Established connections that the pod gave up with a RST: closed with data unread, or with SO_LINGER 0. Only in the detailed profile.",
            "BPF_SOCK_OPS_STATE_CB from ESTABLISHED or CLOSE_WAIT to CLOSE without an error (tcp_close, tcp_disconnect)",
            "OutRsts and EstabResets of the pod's network namespace: difference 0",
        ),
        |counts| counts.tcp.resets_sent,
    ),
];

/// Failed attempts by reason.
pub(super) static CONNECT_FAILURES: Descriptor = Descriptor {
    name: "leadline_tcp_connect_failures_total",
    kind: Kind::Counter,
    unit: None,
    help: "Connection attempts of the pod that failed after a SYN was sent: refused, timed_out, unreachable, aborted by the program, other.",
    labels: &["namespace", "pod", "reason"],
    profile: Profile::Standard,
    source: "BPF_SOCK_OPS_STATE_CB from SYN_SENT to CLOSE, reason from sk_err",
    witness: "errno of connect(2) in the test: difference 0",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &NODE_RTT,
    &HISTOGRAMS[0].0,
    &HISTOGRAMS[1].0,
    &HISTOGRAMS[2].0,
    &COUNTERS[0].0,
    &COUNTERS[1].0,
    &COUNTERS[2].0,
    &COUNTERS[3].0,
    &COUNTERS[4].0,
    &COUNTERS[5].0,
    &COUNTERS[6].0,
    &CONNECT_FAILURES,
];
