//! The families of HAProxy.

use crate::metric::{Descriptor, Kind, Profile};

const WITNESS: &str = "HAProxy's other interface at the same stage of a failing server: difference 0";

/// Template: a gauge of a server.
const SERVER: Descriptor = Descriptor {
    name: "",
    kind: Kind::Gauge,
    unit: None,
    help: "",
    labels: &["backend", "server"],
    profile: Profile::Minimal,
    source: "`show stat` of the stats socket, or haproxy_server_* of its exporter",
    witness: WITNESS,
};

/// Template: a gauge of a backend.
const BACKEND: Descriptor = Descriptor {
    labels: &["backend"],
    source: "`show stat` of the stats socket, or haproxy_backend_* of its exporter",
    ..SERVER
};

/// Template: a gauge of a frontend.
const FRONTEND: Descriptor = Descriptor {
    labels: &["frontend"],
    source: "`show stat` of the stats socket, or haproxy_frontend_* of its exporter",
    ..SERVER
};

pub(super) static INFO: Descriptor = Descriptor {
    name: "leadline_haproxy_info",
    help: "Where HAProxy is asked: through its stats_socket or its metrics_page, and at which address; 1.",
    labels: &["through", "address"],
    source: "the agent's configuration, else /etc/haproxy/haproxy.cfg, else usual places",
    witness: "the configuration that HAProxy was started with in a test",
    ..SERVER
};

pub(super) static SERVER_STATE: Descriptor = Descriptor {
    name: "leadline_haproxy_server_state",
    help: "What HAProxy takes a server for, 1 for the state it is in. up and down until checks have failed or succeeded often enough to change it; maintenance: disabled, or its name has no address; drain: no new connections; no_check: it gets traffic unchecked, absent where the metrics_page is read, which calls that up.",
    labels: &["backend", "server", "state"],
    ..SERVER
};

pub(super) static CHECK_RESULT: Descriptor = Descriptor {
    name: "leadline_haproxy_server_check_result",
    help: "Result of the last health check of a server, 1 for the one it was: HAProxy's word in small letters. l4con: connection refused; l4tout, l6tout, l7tout: no connection, TLS or answer in time; l7sts: an answer such as HTTP 500; l7rsp: no valid answer; l4ok, l6ok, l7ok: good; ini, unk: none yet. Absent where a server is not checked.",
    labels: &["backend", "server", "result"],
    ..SERVER
};

pub(super) static SERVER_CHANGE: Descriptor = Descriptor {
    name: "leadline_haproxy_server_last_change_timestamp_seconds",
    unit: Some("seconds"),
    help: "When the state of a server changed last, to the second.",
    witness: "HAProxy's other interface: within a second",
    ..SERVER
};

pub(super) static SERVER_DOWNS: Descriptor = Descriptor {
    name: "leadline_haproxy_server_down_transitions_total",
    kind: Kind::Counter,
    help: "Times that a server went from up to down since HAProxy started, also for less than the second between two questions. Absent where a server is not checked.",
    ..SERVER
};

pub(super) static BACKEND_UP: Descriptor = Descriptor {
    name: "leadline_haproxy_backend_up",
    help: "Whether a backend has a server that takes connections; one without any servers is up.",
    ..BACKEND
};

pub(super) static BACKEND_ACTIVE: Descriptor = Descriptor {
    name: "leadline_haproxy_backend_active_servers",
    help: "Servers of a backend that get new connections, backup servers not counted.",
    ..BACKEND
};

pub(super) static BACKEND_CHANGE: Descriptor = Descriptor {
    name: "leadline_haproxy_backend_last_change_timestamp_seconds",
    unit: Some("seconds"),
    help: "When a backend came up or went down last, to the second.",
    witness: "HAProxy's other interface: within a second",
    ..BACKEND
};

pub(super) static BACKEND_CURRENT: Descriptor = Descriptor {
    name: "leadline_haproxy_backend_current_sessions",
    help: "Sessions that a backend has now.",
    ..BACKEND
};

pub(super) static BACKEND_SESSIONS: Descriptor = Descriptor {
    name: "leadline_haproxy_backend_sessions_total",
    kind: Kind::Counter,
    help: "Sessions that a backend was given, since HAProxy started.",
    ..BACKEND
};

pub(super) static FRONTEND_UP: Descriptor = Descriptor {
    name: "leadline_haproxy_frontend_up",
    help: "Whether a frontend takes connections; one at its limit does.",
    ..FRONTEND
};

pub(super) static FRONTEND_CURRENT: Descriptor = Descriptor {
    name: "leadline_haproxy_frontend_current_sessions",
    help: "Sessions that a frontend has now.",
    ..FRONTEND
};

pub(super) static FRONTEND_SESSIONS: Descriptor = Descriptor {
    name: "leadline_haproxy_frontend_sessions_total",
    kind: Kind::Counter,
    help: "Sessions that a frontend has taken, since HAProxy started.",
    ..FRONTEND
};

pub(super) static OMITTED: Descriptor = Descriptor {
    name: "leadline_haproxy_omitted",
    help: "Servers, backends and frontends that have no series, since 256 of each have.",
    labels: &["subject"],
    witness: "263 servers in a unit test",
    ..SERVER
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &INFO,
    &SERVER_STATE,
    &CHECK_RESULT,
    &SERVER_CHANGE,
    &SERVER_DOWNS,
    &BACKEND_UP,
    &BACKEND_ACTIVE,
    &BACKEND_CHANGE,
    &BACKEND_CURRENT,
    &BACKEND_SESSIONS,
    &FRONTEND_UP,
    &FRONTEND_CURRENT,
    &FRONTEND_SESSIONS,
    &OMITTED,
];
