//! Pods that came and went, told to the timeline under their names: pure.
//!
//! A pod's name is on disk some milliseconds after its first cgroup. Until it is found, what happened to the pod waits
//! here with its time.

use std::time::Instant;

use crate::event::{Kind, Occurrence, Timestamp};
use crate::identity::{Change, Owner, PATIENCE, PodName};

/// Changes of pods that are still to be told.
#[derive(Debug, Default)]
pub(super) struct PodEvents {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    kind: Kind,
    uid: String,
    time: Timestamp,
    since: Instant,
}

impl PodEvents {
    /// Takes note of changes; units of the host are not events.
    pub(super) fn note(&mut self, changes: Vec<Change>, time: Timestamp, now: Instant) {
        for change in changes {
            let (kind, owner) = match change {
                Change::Appeared(owner) => (Kind::PodStarted, owner),
                Change::Departed(owner) => (Kind::PodStopped, owner),
            };
            if let Owner::Pod { uid } = owner {
                self.waiting.push(Waiting { kind, uid, time, since: now });
            }
        }
    }

    /// Hands over what can be told: under its name, or by the UID when none has come for as long as pages wait for it.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        name_of: impl Fn(&str) -> Option<PodName>,
        mut record: impl FnMut(Occurrence),
    ) {
        self.waiting.retain(|waiting| {
            let named = name_of(&waiting.uid).map(|name| format!("{}/{}", name.namespace, name.pod));
            let by_uid = || (now.duration_since(waiting.since) >= PATIENCE).then(|| waiting.uid.clone());
            let Some(subject) = named.or_else(by_uid) else { return true };
            record(Occurrence::now(waiting.kind, subject).at(waiting.time).with("uid", waiting.uid.as_str()));
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pod() -> Owner {
        Owner::Pod { uid: "f49bc5ea-916a-4212-99f5-faa047ac2f8b".to_owned() }
    }

    fn noted(start: Instant) -> PodEvents {
        let mut events = PodEvents::default();
        let time = Timestamp::from_unix_nanos(7);
        let etcd = Owner::Unit("etcd.service".to_owned());
        events.note(vec![Change::Appeared(etcd), Change::Appeared(pod())], time, start);
        events.note(vec![Change::Departed(pod())], time, start + Duration::from_secs(1));
        events
    }

    fn told(events: &mut PodEvents, now: Instant, name: Option<&str>) -> Vec<(Kind, String)> {
        let mut told = Vec::new();
        let name = name.map(|pod| PodName { namespace: "shop".to_owned(), pod: pod.to_owned() });
        events.tell(
            now,
            |_| name.clone(),
            |event| {
                assert_eq!(event.time, Timestamp::from_unix_nanos(7));
                told.push((event.kind, event.subject));
            },
        );
        told
    }

    #[test]
    fn events_of_a_pod_wait_for_its_name_and_keep_their_order() {
        let start = Instant::now();
        let mut events = noted(start);
        assert_eq!(told(&mut events, start, None), []);
        let both = [Kind::PodStarted, Kind::PodStopped].map(|kind| (kind, "shop/web".to_owned()));
        assert_eq!(told(&mut events, start, Some("web")), both);
        assert_eq!(told(&mut events, start, Some("web")), []);
    }

    #[test]
    fn a_pod_that_gets_no_name_is_told_by_its_uid() {
        let start = Instant::now();
        let mut events = noted(start);
        let Owner::Pod { uid } = pod() else { unreachable!() };
        assert_eq!(told(&mut events, start + PATIENCE, None), [(Kind::PodStarted, uid.clone())]);
        let later = start + PATIENCE + Duration::from_secs(1);
        assert_eq!(told(&mut events, later, None), [(Kind::PodStopped, uid)]);
    }
}
