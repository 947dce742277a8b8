//! The Kubernetes control plane on this node: which part lives, which is ready, and if not, which check fails.
//!
//! A task of the agent asks each component about once a second and puts the answers here; a scrape only shows the last
//! ones. `state` compares answers, `trouble` decides what is news, `events` puts it into words. A component that never
//! answered and of which nothing on this node speaks has no series. Who holds the leases of the controller-manager and
//! the scheduler is not a matter of this node, and is not read yet.

mod descriptor;
mod events;
pub mod state;
mod trouble;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::{State, Watched};
use super::{CollectError, Collector, Support};
use crate::event::Timestamp;
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};
use crate::source::control_plane::{Failure, Target};

pub use self::descriptor::DESCRIPTORS;

/// The `reason` before the first look.
const NOT_LOOKED: &str = "the control plane is still being looked for";
/// The `reason` where nothing speaks for one.
const NONE: &str = "no control plane on this node";
/// The `reason` where a component keeps strangers out.
const FORBIDDEN: &str = "a component has no anonymous access: whether it is ready is unknown";

/// What is known, shared between the task that asks and the collector.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<State>>);

impl Known {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The collector.
#[derive(Debug)]
pub struct ControlPlane {
    known: Known,
}

impl ControlPlane {
    /// A collector of what is known.
    #[must_use]
    pub const fn new(known: Known) -> Self {
        Self { known }
    }
}

impl Collector for ControlPlane {
    fn name(&self) -> &'static str {
        "control_plane"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        let state = self.known.lock();
        let is_forbidden = |watched: &Watched| watched.failure() == Some(Failure::Forbidden);
        match state.known().next() {
            None if state.has_looked() => Support::No(NONE),
            None => Support::No(NOT_LOOKED),
            Some(_) if state.known().any(|(_, watched)| is_forbidden(watched)) => {
                Support::Degraded(FORBIDDEN)
            }
            Some(_) => Support::Yes,
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        write(&self.known.lock(), sink);
        Ok(())
    }
}

/// A family, and which part of a component it shows.
type Column = (&'static Descriptor, fn(&Watched) -> Option<Value>);

fn write(state: &State, sink: &mut Sink<'_>) {
    let columns: [Column; 4] = [
        (&descriptor::ALIVE, |watched| watched.is_alive().map(flag)),
        (&descriptor::READY, |watched| watched.is_ready().map(flag)),
        (&descriptor::SECONDS, |watched| watched.took.map(|took| Value::Float(took.as_secs_f64()))),
        (&descriptor::ANSWERED, |watched| watched.answered.map(seconds)),
    ];
    let known: Vec<(&Target, String, &Watched)> =
        state.known().map(|(target, watched)| (target, target.endpoint(), watched)).collect();
    for (descriptor, read) in columns {
        let mut family = sink.family(descriptor);
        for (target, endpoint, watched) in &known {
            if let Some(value) = read(watched) {
                family.value(&[target.component.as_str(), endpoint], value);
            }
        }
    }
    let mut family = sink.family(&descriptor::FAILURE);
    for (target, endpoint, watched) in known.iter().filter(|(.., watched)| watched.is_alive().is_some()) {
        for reason in Failure::ALL {
            let labels = [target.component.as_str(), endpoint, reason.as_str()];
            family.value(&labels, flag(watched.failure() == Some(reason)));
        }
    }
    let mut family = sink.family(&descriptor::CHECK);
    for (target, endpoint, watched) in &known {
        for (check, passes) in &watched.checks {
            family.value(&[target.component.as_str(), endpoint, check], flag(*passes));
        }
    }
}

fn flag(is: bool) -> Value {
    Value::Integer(is.into())
}

#[expect(clippy::cast_precision_loss, reason = "half a microsecond of a time since 1970")]
fn seconds(time: Timestamp) -> Value {
    Value::Float(time.unix_nanos() as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::collector::control_plane::state::Moment;
    use crate::metric::Format;
    use crate::source::control_plane::{Checks, Component, Found, Report};

    const API: &str = r#"{component="kube_apiserver",endpoint="https://127.0.0.1:6443""#;

    fn page(known: &Known) -> String {
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Format::Text004);
        ControlPlane::new(known.clone()).collect(&mut sink).unwrap();
        sink.finish();
        String::from_utf8(out).unwrap()
    }

    fn target() -> Target {
        Target { component: Component::ApiServer, address: "127.0.0.1:6443".parse().unwrap() }
    }

    fn after(report: &Report, speaks: bool) -> Known {
        let known = Known::default();
        known.lock().follow(&Found::from([(target(), speaks)]));
        let moment = Moment { now: Duration::ZERO, time: Timestamp::from_unix_nanos(100_000_000_000) };
        known.lock().observe(&target(), report, moment);
        known
    }

    #[test]
    fn an_unready_server_is_shown_with_the_check_that_fails() {
        let known = after(
            &Report {
                health: Ok(()),
                readiness: Some(Err(Failure::Status)),
                checks: Some(Checks::from([("etcd".to_owned(), false), ("ping".to_owned(), true)])),
                health_checks: None,
                took: Some(Duration::from_millis(4)),
                is_kubernetes: true,
            },
            true,
        );
        let page = page(&known);
        for line in [
            format!("leadline_control_plane_alive{API}}} 1"),
            format!("leadline_control_plane_ready{API}}} 0"),
            format!(r#"leadline_control_plane_check{API},check="etcd"}} 0"#),
            format!(r#"leadline_control_plane_check{API},check="ping"}} 1"#),
            format!(r#"leadline_control_plane_failure{API},reason="status"}} 1"#),
            format!(r#"leadline_control_plane_failure{API},reason="late"}} 0"#),
            format!("leadline_control_plane_answer_seconds{API}}} 0.004"),
            format!("leadline_control_plane_last_answer_timestamp_seconds{API}}} 100"),
        ] {
            assert!(page.contains(&line), "{line} in {page}");
        }
        assert_eq!(ControlPlane::new(known).support(), Support::Yes);
    }

    #[test]
    fn who_keeps_strangers_out_is_alive_and_its_readiness_absent() {
        let known = after(
            &Report {
                health: Err(Failure::Forbidden),
                readiness: Some(Err(Failure::Forbidden)),
                checks: None,
                health_checks: None,
                took: Some(Duration::from_millis(4)),
                is_kubernetes: true,
            },
            false,
        );
        let page = page(&known);
        assert!(page.contains(&format!("leadline_control_plane_alive{API}}} 1")), "{page}");
        assert!(!page.contains("leadline_control_plane_ready{"), "{page}");
        assert!(page.contains(r#"reason="forbidden"} 1"#), "{page}");
        assert_eq!(ControlPlane::new(known).support(), Support::Degraded(FORBIDDEN));
    }

    #[test]
    fn where_nothing_speaks_for_one_there_are_no_series_but_a_reason() {
        assert_eq!(ControlPlane::new(Known::default()).support(), Support::No(NOT_LOOKED));
        let known = after(
            &Report {
                health: Err(Failure::Refused),
                readiness: Some(Err(Failure::Refused)),
                checks: None,
                health_checks: None,
                took: None,
                is_kubernetes: false,
            },
            false,
        );
        assert!(!page(&known).contains("leadline_control_plane_"));
        assert_eq!(ControlPlane::new(known).support(), Support::No(NONE));
    }
}
