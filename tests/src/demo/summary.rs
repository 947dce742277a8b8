//! The closing words: what each pod has sent and received, beside what iperf3 says.

use crate::demo::figures::Totals;
use crate::demo::plan::{Kind, PodPlan};
use crate::demo::table::show;
use crate::demo::traffic::Payload;

/// The whole text.
pub(crate) fn text(totals: &[(PodPlan, Totals)], payloads: &[Payload]) -> String {
    let mut lines = vec![
        String::new(),
        "in total, as the agents counted it (layer 3)".into(),
        format!("{:<16} {:>13} {:>13} {:>12}", "POD", "RECEIVED", "SENT", "RETRANSMITS"),
    ];
    lines.extend(totals.iter().map(|(pod, total)| row(pod, total)));
    lines.push(String::new());
    lines.push("beside iperf3, which counts payload without headers and without what was sent again".into());
    lines.extend(payloads.iter().flat_map(|payload| comparison(totals, payload)));
    lines.push(
        "headers add 2.33 % to these datagrams and 3.72 % to full TCP segments; what has arrived but".into(),
    );
    lines.push("was not read when iperf3 was interrupted is in the agents' numbers only".into());
    lines.join("\n")
}

fn row(pod: &PodPlan, total: &Totals) -> String {
    let number = |value: Option<u64>| show(value, |value| value.to_string());
    let (received, sent) = (number(total.receive), number(total.transmit));
    let retransmits = number(total.retransmits);
    format!("{:<16} {received:>13} {sent:>13} {retransmits:>12}", pod.full_name())
}

/// Both ends of a flow.
fn comparison(totals: &[(PodPlan, Totals)], payload: &Payload) -> [String; 2] {
    let flow = payload.flow;
    let protocol = if matches!(flow.kind, Kind::Datagrams(_)) { "UDP" } else { "TCP" };
    let of = |name: &str| totals.iter().find(|(pod, _)| pod.name == name).map(|(_, total)| *total);
    let sent = of(flow.client).and_then(|total| total.transmit);
    let received = of(flow.server).and_then(|total| total.receive);
    [
        compared(&format!("{protocol} {} sent", flow.client), sent, payload.sent),
        compared(&format!("{protocol} {} received", flow.server), received, payload.received),
    ]
}

fn compared(what: &str, ours: Option<u64>, theirs: Option<u64>) -> String {
    let more = ours.zip(theirs).and_then(|(ours, theirs)| hundredths(ours, theirs));
    format!(
        "{what:<20} payload {:>12}, agent {:>12}, {} more",
        show(theirs, |bytes| bytes.to_string()),
        show(ours, |bytes| bytes.to_string()),
        show(more, percent),
    )
}

fn percent(hundredths: i64) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    format!("{sign}{}.{:02} %", hundredths.abs() / 100, hundredths.abs() % 100)
}

/// By how many hundredths of a percent one number exceeds another.
fn hundredths(ours: u64, theirs: u64) -> Option<i64> {
    let (ours, theirs) = (i128::from(ours), i128::from(theirs));
    i64::try_from(((ours - theirs) * 10_000).checked_div(theirs)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::{FLOWS, PODS};

    #[test]
    fn what_is_more_is_told_in_percent() {
        let line = compared("UDP camera sent", Some(1_024_000), Some(1_000_000));
        assert_eq!(line, "UDP camera sent      payload      1000000, agent      1024000, 2.40 % more");
        assert!(compared("x", Some(98), Some(100)).ends_with(" -2.00 % more"));
    }

    #[test]
    fn what_is_not_known_is_not_compared() {
        assert!(compared("x", Some(5), None).ends_with(", agent            5, - more"));
        assert_eq!(hundredths(5, 0), None);
    }

    #[test]
    fn every_pod_and_both_ends_of_a_flow_are_listed() {
        let total = Totals { receive: Some(11), transmit: Some(22), retransmits: None };
        let totals: Vec<_> = PODS.iter().map(|pod| (*pod, total)).collect();
        let text = text(&totals, &[Payload { flow: FLOWS[1], sent: Some(20), received: Some(10) }]);
        assert!(PODS.iter().all(|pod| text.contains(&pod.full_name())), "{text}");
        assert!(text.contains("UDP camera sent") && text.contains("UDP screen received"), "{text}");
        assert!(text.contains("10.00 % more"), "{text}");
    }
}
