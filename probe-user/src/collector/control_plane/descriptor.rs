//! The families of the control plane.

use crate::metric::{Descriptor, Kind, Profile};

/// Template: a gauge of a component at an endpoint.
const COMPONENT: Descriptor = Descriptor {
    name: "",
    kind: Kind::Gauge,
    unit: None,
    help: "",
    labels: &["component", "endpoint"],
    profile: Profile::Minimal,
    source: "GET /livez and /readyz?verbose, of the controller-manager and the kubelet GET /healthz?verbose, without credentials",
    witness: "the lab's own requests to a component that is killed, frozen and started again",
};

pub(super) static ALIVE: Descriptor = Descriptor {
    name: "leadline_control_plane_alive",
    help: "Whether a component on this node lives by its own word, /livez or /healthz; 401 and 403 count, since who keeps strangers out lives. Absent of components that never answered and of which no file of the node speaks. Through a virtual address it is leadline_vip_reachable.",
    ..COMPONENT
};

pub(super) static READY: Descriptor = Descriptor {
    name: "leadline_control_plane_ready",
    help: "Whether a component answered its last /readyz with 200. Absent where that is not known: without anonymous access, and of components that do not tell ready from alive (controller-manager, kubelet).",
    ..COMPONENT
};

pub(super) static CHECK: Descriptor = Descriptor {
    name: "leadline_control_plane_check",
    help: "The checks that a component lists: 1 passes, 0 fails. Of an answer that lists none the last ones stay while the component answers. At most 64 a component, the failing ones first.",
    labels: &["component", "endpoint", "check"],
    witness: "/readyz?verbose and /healthz?verbose as the lab reads them: difference 0",
    ..COMPONENT
};

pub(super) static FAILURE: Descriptor = Descriptor {
    name: "leadline_control_plane_failure",
    help: "What is wrong with a component, 1 for the reason it is, health before readiness; all 0 while nothing is. refused: nobody listens; late: no answer within control_plane.timeout, to /readyz within twice that; unreachable: no way there; reset: the other end broke off; tls, http: it speaks neither with us; status: it says itself that it is not well or not ready; forbidden: it lives and tells nothing without credentials.",
    labels: &["component", "endpoint", "reason"],
    witness: "what the test has done to the component",
    ..COMPONENT
};

pub(super) static SECONDS: Descriptor = Descriptor {
    name: "leadline_control_plane_answer_seconds",
    unit: Some("seconds"),
    help: "The time of the last answer about the health of a component, from connect to end, with the TLS handshake.",
    witness: "curl's own time of the same request at the same stage: within 0.25 s on a busy machine, the order of magnitude on an idle one",
    ..COMPONENT
};

pub(super) static ANSWERED: Descriptor = Descriptor {
    name: "leadline_control_plane_last_answer_timestamp_seconds",
    unit: Some("seconds"),
    help: "When a component answered about its health last, whatever it said. Absent where it never has.",
    witness: "the time of the kill in a test: within poll interval and timeout",
    ..COMPONENT
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[&ALIVE, &READY, &CHECK, &FAILURE, &SECONDS, &ANSWERED];
