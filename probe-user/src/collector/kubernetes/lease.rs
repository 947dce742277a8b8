//! What is told and shown of leases: pure.

use std::collections::BTreeMap;

use super::descriptor;
use super::seconds;
use crate::event::{Kind, Occurrence, Timestamp};
use crate::metric::Value;
use crate::metric::sink::Sink;
use crate::source::kubernetes::ClusterLease;

/// Who held each lease last.
#[derive(Debug, Default)]
pub struct Holders(BTreeMap<String, String>);

impl Holders {
    /// Takes note of the leases as they are; tells which have another holder than the last one that is known. A lease
    /// between two holders is no news: the next one is.
    pub fn observe<'a>(
        &mut self,
        leases: impl Iterator<Item = &'a ClusterLease>,
        time: Timestamp,
    ) -> Vec<Occurrence> {
        let mut events = Vec::new();
        for lease in leases {
            let Some(holder) = &lease.holder else { continue };
            let before = self.0.insert(lease.name.clone(), holder.clone());
            if let Some(before) = before.filter(|before| before != holder) {
                let event = Occurrence::now(Kind::LeaseMoved, &lease.name).at(time);
                events.push(event.with("from", before).with("to", holder));
            }
        }
        events
    }
}

/// Writes the families.
pub(super) fn write(leases: &[&ClusterLease], sink: &mut Sink<'_>) {
    let mut family = sink.family(&descriptor::HOLDER);
    for (name, holder) in leases.iter().filter_map(|lease| Some((&lease.name, lease.holder.as_ref()?))) {
        family.value(&[name, holder], Value::Integer(1));
    }
    let mut family = sink.family(&descriptor::TRANSITIONS);
    for (name, count) in leases.iter().filter_map(|lease| Some((&lease.name, lease.transitions?))) {
        family.value(&[name], Value::Integer(count));
    }
    let mut family = sink.family(&descriptor::RENEWED);
    for (name, nanos) in leases.iter().filter_map(|lease| Some((&lease.name, lease.renewed?))) {
        family.value(&[name], seconds(Timestamp::from_unix_nanos(nanos)));
    }
    let mut family = sink.family(&descriptor::DURATION);
    for (name, duration) in leases.iter().filter_map(|lease| Some((&lease.name, lease.duration?))) {
        family.value(&[name], Value::Integer(duration.as_secs()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metric::Format;

    const AT: Timestamp = Timestamp::from_unix_nanos(7);

    fn lease(holder: Option<&str>) -> ClusterLease {
        ClusterLease {
            name: "kube-scheduler".to_owned(),
            holder: holder.map(str::to_owned),
            transitions: Some(3),
            renewed: Some(1_500_000_000),
            duration: Some(Duration::from_secs(15)),
        }
    }

    fn told(holders: &mut Holders, holder: Option<&str>) -> Vec<(Kind, String, Vec<String>)> {
        let events = holders.observe(std::iter::once(&lease(holder)), AT);
        let of = |event: Occurrence| (event.kind, event.subject, event.details.into_values().collect());
        events.into_iter().map(of).collect()
    }

    #[test]
    fn another_holder_is_told_with_the_one_before() {
        let mut holders = Holders::default();
        assert!(told(&mut holders, Some("node1")).is_empty(), "the first that is seen is no news");
        assert!(told(&mut holders, Some("node1")).is_empty(), "a renewal is no news");
        assert!(told(&mut holders, None).is_empty(), "nobody is no news");
        let details = ["node1", "node2"].map(str::to_owned).to_vec();
        let expected = (Kind::LeaseMoved, "kube-scheduler".to_owned(), details);
        assert_eq!(told(&mut holders, Some("node2")), [expected]);
    }

    fn page(lease: &ClusterLease) -> String {
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Format::Text004);
        write(&[lease], &mut sink);
        sink.finish();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_lease_is_shown_with_its_holder_and_age() {
        let text = page(&lease(Some("node1")));
        for line in [
            r#"leadline_kubernetes_lease_holder_info{lease="kube-scheduler",holder="node1"} 1"#,
            r#"leadline_kubernetes_lease_transitions_total{lease="kube-scheduler"} 3"#,
            r#"leadline_kubernetes_lease_renewed_timestamp_seconds{lease="kube-scheduler"} 1.5"#,
            r#"leadline_kubernetes_lease_duration_seconds{lease="kube-scheduler"} 15"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn what_a_lease_does_not_say_is_absent() {
        let text = page(&ClusterLease { transitions: None, ..lease(None) });
        assert!(!text.contains("holder_info{") && !text.contains("transitions_total{"), "{text}");
    }
}
