//! What the agent says about itself, and where each number comes from.

use crate::metric::{Descriptor, Kind, Profile};

const PROCESS: &str = "/proc/self, through the prometheus crate";
const HTTP: &str = "the HTTP server";
const WITNESS_HTTP: &str = "requests counted by the client in a test, difference 0";

/// Template: plain gauge without labels.
const BASE: Descriptor = Descriptor {
    name: "",
    kind: Kind::Gauge,
    unit: None,
    help: "",
    labels: &[],
    profile: Profile::Minimal,
    source: HTTP,
    witness: WITNESS_HTTP,
};

/// Every family of the `self` collector.
pub const DESCRIPTORS: &[&Descriptor] = &[
    &BUILD_INFO,
    &EVENTS_LOST,
    &EVENT_FILE_FAILURES,
    &NETLINK_RESYNCS,
    &NETLINK_FAILURES,
    &HTTP_REQUESTS,
    &HTTP_DURATION,
    &HTTP_BYTES,
    &HTTP_CONNECTIONS,
    &HTTP_DROPPED,
    &Descriptor {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        unit: Some("seconds"),
        help: "User and system CPU time of the agent, in whole seconds.",
        source: PROCESS,
        witness: "getrusage, to the second",
        ..BASE
    },
    &Descriptor {
        name: "process_open_fds",
        help: "Open file descriptors of the agent.",
        source: PROCESS,
        witness: "entries of /proc/self/fd",
        ..BASE
    },
    &Descriptor {
        name: "process_max_fds",
        help: "Soft limit of open file descriptors of the agent; absent when unlimited.",
        source: PROCESS,
        witness: "getrlimit",
        ..BASE
    },
    &Descriptor {
        name: "process_virtual_memory_bytes",
        unit: Some("bytes"),
        help: "Virtual memory of the agent; includes memory-mapped kernel maps.",
        source: PROCESS,
        witness: "VmSize of /proc/self/status",
        ..BASE
    },
    &Descriptor {
        name: "process_resident_memory_bytes",
        unit: Some("bytes"),
        help: "Resident memory of the agent.",
        source: PROCESS,
        witness: "VmRSS of /proc/self/status",
        ..BASE
    },
    &Descriptor {
        name: "process_start_time_seconds",
        unit: Some("seconds"),
        help: "Start of the agent, in seconds since 1970, to the second.",
        source: PROCESS,
        witness: "the wall clock at start, within 1 s",
        ..BASE
    },
    &Descriptor {
        name: "process_threads",
        help: "Threads of the agent.",
        source: PROCESS,
        witness: "entries of /proc/self/task",
        ..BASE
    },
];

pub(super) static BUILD_INFO: Descriptor = Descriptor {
    name: "leadline_build_info",
    help: "Always 1; the labels name the version and the source revision of the agent.",
    labels: &["version", "revision"],
    source: "the build",
    witness: "`leadline --version`",
    ..BASE
};
pub(super) static EVENTS_LOST: Descriptor = Descriptor {
    name: "leadline_events_lost_total",
    kind: Kind::Counter,
    help: "Records lost before they were read; ring: kernel buffer full; netlink: socket overrun; tap: frames of an uplink that found the buffer full; timeline: \
           overwritten before a follower of the event API asked for them; file: overwritten before the event file could be written, and lines of it that could not be read back at the start.",
    labels: &["source"],
    source: "the kernel programs' loss counter, ENOBUFS of netlink sockets, sequence numbers of the timeline",
    witness: "gaps in the sequence a follower sees, difference 0",
    ..BASE
};
pub(super) static EVENT_FILE_FAILURES: Descriptor = Descriptor {
    name: "leadline_event_file_failures_total",
    kind: Kind::Counter,
    help: "Times that the event file could not be written, one a second while it lasts; the events wait in memory.",
    source: "errors of write, fdatasync and rename",
    witness: "a full file system in a test",
    ..BASE
};
pub(super) static NETLINK_RESYNCS: Descriptor = Descriptor {
    name: "leadline_netlink_resyncs_total",
    kind: Kind::Counter,
    help: "Times that links, addresses, routes and neighbours were read again in full after a lost message.",
    source: "ENOBUFS of netlink sockets",
    witness: "a socket overrun provoked in a test",
    ..BASE
};
pub(super) static NETLINK_FAILURES: Descriptor = Descriptor {
    name: "leadline_netlink_failures_total",
    kind: Kind::Counter,
    help: "Times that links, addresses, routes and neighbours could no longer be read, or still not at the next attempt.",
    source: "errors of netlink sockets, dumps without an answer",
    witness: "answers swallowed by a filter on the agent's socket, then no descriptor to be had, in a test",
    ..BASE
};
pub(super) static HTTP_REQUESTS: Descriptor = Descriptor {
    name: "leadline_http_requests_total",
    kind: Kind::Counter,
    help: "HTTP requests answered; path other stands for every path that does not exist.",
    labels: &["path", "code"],
    ..BASE
};
pub(super) static HTTP_DURATION: Descriptor = Descriptor {
    name: "leadline_http_request_duration_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "Time from the head of a request to its response being ready, waiting followers included.",
    labels: &["path"],
    ..BASE
};
pub(super) static HTTP_BYTES: Descriptor = Descriptor {
    name: "leadline_http_response_bytes_total",
    kind: Kind::Counter,
    unit: Some("bytes"),
    help: "Bytes of response bodies handed to connections, after compression.",
    labels: &["path"],
    ..BASE
};
pub(super) static HTTP_CONNECTIONS: Descriptor =
    Descriptor { name: "leadline_http_connections", help: "Open HTTP connections.", ..BASE };
pub(super) static HTTP_DROPPED: Descriptor = Descriptor {
    name: "leadline_http_connections_dropped_total",
    kind: Kind::Counter,
    help: "Connections closed by the agent against the client's will; limit: too many at once; timeout: a head or \
           a transfer took too long; accept: the kernel had none to give.",
    labels: &["reason"],
    ..BASE
};
