//! The families of probes.

use crate::metric::{Descriptor, Kind, Profile};

const PROBE: &str = "TCP connect, TLS handshake and GET /readyz from this node to the virtual address";
const SERVICE: &[&str] = &["vip", "port"];

const fn of_service(
    name: &'static str,
    kind: Kind,
    unit: Option<&'static str>,
    labels: &'static [&'static str],
    help: &'static str,
    witness: &'static str,
) -> Descriptor {
    Descriptor { name, kind, unit, help, labels, profile: Profile::Minimal, source: PROBE, witness }
}

pub(super) static REACHABLE: Descriptor = of_service(
    "leadline_vip_reachable",
    Kind::Gauge,
    None,
    SERVICE,
    "Whether the service behind the virtual address answered the last probe as its kind demands. Said by eight nodes and by the holder, of a port that is only tried once it has accepted a connection. max by: anybody reaches it; min by: all do; never sum.",
    "a TLS server that is killed, frozen and started again",
);

pub(super) static PROBES: Descriptor = of_service(
    "leadline_vip_probes_total",
    Kind::Counter,
    None,
    &["vip", "port", "result"],
    "Probes by result. ok; refused; timeout: two seconds for everything; unreachable: no way there; reset: the other end broke off; tls_failed: it speaks no TLS, or refuses ours; http_status: not 200, and not 401 or 403, which a server without anonymous access says; http_failed: no HTTP; local_error: no probe was made.",
    "servers of each kind",
);

pub(super) static SECONDS: Descriptor = of_service(
    "leadline_vip_probe_seconds",
    Kind::Histogram,
    Some("seconds"),
    &["vip", "port", "phase"],
    "Phases of the probes that completed them. connect: the TCP handshake; tls: the TLS handshake; http: from the request to the status line, whatever the status.",
    "connect: SYN to SYN-ACK in tcpdump's record of the same node; the probe's own waking comes on top, 0.1 to 0.5 ms on average",
);

pub(super) static NOT_AFTER: Descriptor = of_service(
    "leadline_vip_certificate_not_after_timestamp_seconds",
    Kind::Gauge,
    Some("seconds"),
    SERVICE,
    "When the certificate ends that the service showed at the last TLS handshake. The certificate is not checked otherwise. Every observer says it: min by, never sum.",
    "`openssl x509 -enddate`, exact",
);

pub(super) static UNSERVED: Descriptor = of_service(
    "leadline_vip_unserved",
    Kind::Gauge,
    None,
    SERVICE,
    "Whether this node has the virtual address and the service did not answer the last probe from here: the address is where nothing serves. Absent on nodes without the address.",
    "a TLS server that is killed on the holder of the address",
);

pub(super) static IGNORED: Descriptor = Descriptor {
    name: "leadline_vip_probe_ignored_targets",
    kind: Kind::Gauge,
    unit: None,
    help: "Services behind virtual addresses that no node probes, since there are 64 others.",
    labels: &[],
    profile: Profile::Minimal,
    source: "virtual addresses and ports, and the configuration",
    witness: "101 services in a unit test",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[&REACHABLE, &PROBES, &SECONDS, &NOT_AFTER, &UNSERVED, &IGNORED];
