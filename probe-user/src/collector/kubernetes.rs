//! The Kubernetes API as this node sees it: the names of its pods and of the other nodes, who holds the leases of the
//! control plane, and how fresh that is.
//!
//! Tasks of the agent follow the API and put what it says here. When it is away, what is known stays: names of pods do
//! not change, and an agent that forgot them with the API would be blind just when it is needed.

mod descriptor;
mod lease;
pub mod state;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::{Sight, State, Watched};
use super::{CollectError, Collector, Support};
use crate::event::Timestamp;
use crate::identity::{PodName, PodSource};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};
use crate::source::kubernetes::Failure;

pub use self::descriptor::DESCRIPTORS;

/// The `reason` where there is no API to ask.
pub const NONE: &str = "the agent runs in no pod, and no kubeconfig is given";
/// The `reason` where credentials are there and cannot be used.
pub const UNUSABLE: &str = "the credentials for the Kubernetes API cannot be used, see the log";
/// The `reason` before the first answer.
const NOT_ANSWERED: &str = "the Kubernetes API has not answered yet";
/// The `reason` while it does not answer.
const UNREACHABLE: &str = "the Kubernetes API cannot be reached: names are the last known ones";
/// The `reason` where it does not take the credentials.
const UNAUTHORIZED: &str = "the Kubernetes API does not take the agent's credentials";
/// The `reason` where a right is missing.
const FORBIDDEN: &str =
    "RBAC does not let the agent list and watch pods, nodes, ciliumnodes or leases, see the log";
/// The `reason` of anything else.
const REFUSED: &str = "the Kubernetes API refuses what the agent asks, see the log";

/// What is known, shared between the tasks that follow the API, the collector, and whoever names pods.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<State>>);

impl Known {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PodSource for Known {
    fn read(&mut self) -> io::Result<Vec<(String, PodName)>> {
        let state = self.lock();
        let pods = state.pods.objects();
        Ok(pods
            .map(|pod| {
                (pod.cgroup_uid.clone(), PodName { namespace: pod.namespace.clone(), pod: pod.name.clone() })
            })
            .collect())
    }
}

/// The collector.
#[derive(Debug)]
pub struct Kubernetes {
    known: Known,
}

impl Kubernetes {
    /// A collector of what is known.
    #[must_use]
    pub const fn new(known: Known) -> Self {
        Self { known }
    }
}

/// The phrase for a failure.
const fn reason(failure: Failure) -> &'static str {
    match failure {
        Failure::Unreachable => UNREACHABLE,
        Failure::Unauthorized => UNAUTHORIZED,
        Failure::Forbidden => FORBIDDEN,
        Failure::Refused => REFUSED,
    }
}

impl Collector for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        let state = self.known.lock();
        let sights: Vec<Sight> = state.followed().map(|(_, watched)| watched.sight()).collect();
        let lost = sights.iter().find_map(|sight| match sight {
            Sight::Lost { failure, .. } => Some(*failure),
            Sight::Unknown | Sight::Live => None,
        });
        match lost {
            Some(failure) => Support::Degraded(reason(failure)),
            None if sights.contains(&Sight::Unknown) => Support::Degraded(NOT_ANSWERED),
            None => Support::Yes,
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        write(&self.known.lock(), sink);
        Ok(())
    }
}

/// A family, and which part of a resource it shows.
type Column = (&'static Descriptor, fn(&dyn Watched) -> Option<Value>);

fn write(state: &State, sink: &mut Sink<'_>) {
    let mut family = sink.family(&descriptor::POD);
    for pod in state.pods.objects() {
        let (kind, name) =
            pod.workload.as_ref().map_or(("", ""), |workload| (&workload.kind, &workload.name));
        family.value(&[&pod.namespace, &pod.name, &pod.uid, name, kind], Value::Integer(1));
    }
    let columns: [Column; 3] = [
        (&descriptor::UP, |watched| Some(Value::Integer((watched.sight() == Sight::Live).into()))),
        (&descriptor::CONFIRMED, |watched| watched.confirmed().map(seconds)),
        (&descriptor::OBJECTS, |watched| watched.confirmed().map(|_| Value::Integer(watched.count()))),
    ];
    for (descriptor, read) in columns {
        let mut family = sink.family(descriptor);
        for (resource, watched) in state.followed() {
            if let Some(value) = read(watched) {
                family.value(&[resource.as_str()], value);
            }
        }
    }
    let mut family = sink.family(&descriptor::FAILURES);
    for (resource, watched) in state.followed() {
        for failure in Failure::ALL {
            family.value(&[resource.as_str(), failure.as_str()], Value::Integer(watched.failures(failure)));
        }
    }
    let leases: Vec<_> = state.leases.iter().flat_map(state::Objects::objects).collect();
    lease::write(&leases, sink);
}

#[expect(clippy::cast_precision_loss, reason = "half a microsecond of a time since 1970")]
fn seconds(time: Timestamp) -> Value {
    Value::Float(time.unix_nanos() as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::state::Moment;
    use super::*;
    use crate::metric::Format;
    use crate::source::kubernetes::{ClusterPod, Seen, Workload};

    const AT: Moment = Moment { now: Duration::ZERO, time: Timestamp::from_unix_nanos(100_000_000_000) };

    fn pod() -> ClusterPod {
        ClusterPod {
            uid: "u1".into(),
            cgroup_uid: "c1".into(),
            namespace: "shop".into(),
            name: "web-0".into(),
            workload: Some(Workload { kind: "StatefulSet".into(), name: "web".into() }),
        }
    }

    fn with_pods() -> Known {
        let known = Known::default();
        known.lock().pods.observe(Ok(Seen::All(vec![pod()])), AT);
        known
    }

    fn page(known: &Known) -> String {
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Format::Text004);
        Kubernetes::new(known.clone()).collect(&mut sink).unwrap();
        sink.finish();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_pod_is_shown_with_its_workload_and_named_by_its_cgroup() {
        let mut known = with_pods();
        let text = page(&known);
        let info = r#"leadline_pod_info{namespace="shop",pod="web-0",uid="u1",workload="web",workload_kind="StatefulSet"} 1"#;
        assert!(text.contains(info), "{text}");
        let name = PodName { namespace: "shop".into(), pod: "web-0".into() };
        assert_eq!(known.read().unwrap(), [("c1".to_owned(), name)]);
    }

    #[test]
    fn what_the_api_has_not_said_is_absent() {
        let text = page(&with_pods());
        assert!(text.contains(r#"leadline_kubernetes_objects{resource="pods"} 1"#), "{text}");
        assert!(!text.contains(r#"leadline_kubernetes_objects{resource="nodes"}"#), "{text}");
        assert!(text.contains(r#"leadline_kubernetes_watch_up{resource="nodes"} 0"#), "{text}");
    }

    #[test]
    fn leases_are_shown_and_waited_for_where_they_are_followed() {
        let known = with_pods();
        known.lock().nodes.observe(Ok(Seen::All(Vec::new())), AT);
        assert!(!page(&known).contains(r#"resource="leases""#), "{}", page(&known));
        known.lock().leases();
        let text = page(&known);
        assert!(text.contains(r#"leadline_kubernetes_watch_up{resource="leases"} 0"#), "{text}");
        assert_eq!(Kubernetes::new(known).support(), Support::Degraded(NOT_ANSWERED));
    }

    #[test]
    fn names_stay_while_the_api_is_away_and_the_collector_says_so() {
        let known = with_pods();
        known.lock().nodes.observe(Ok(Seen::All(Vec::new())), AT);
        let support = || Kubernetes::new(known.clone()).support();
        assert_eq!(support(), Support::Yes);
        known.lock().pods.observe(Err(Failure::Unreachable), AT);
        assert_eq!(support(), Support::Degraded(UNREACHABLE));
        let text = page(&known);
        assert!(text.contains("leadline_pod_info{"), "{text}");
        assert!(text.contains(r#"leadline_kubernetes_watch_up{resource="pods"} 0"#), "{text}");
        assert!(text.contains(r#"failures_total{resource="pods",reason="unreachable"} 1"#), "{text}");
    }
}
