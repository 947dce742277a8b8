//! The numbers of the table, from two scrapes of an agent.

use std::time::{Duration, Instant};

use crate::demo::plan::PodPlan;
use crate::scrape::{Sample, Samples};

/// A scrape, and when it was made.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    pub(crate) samples: Samples,
}

/// What one pod does at the moment; none for what the agent does not say or what has not happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Bits per second.
    pub(crate) receive: Option<f64>,
    /// Bits per second.
    pub(crate) transmit: Option<f64>,
    /// Mean of the round trips measured in between, in seconds.
    pub(crate) rtt: Option<f64>,
    /// Segments per second.
    pub(crate) retransmits: Option<f64>,
}

/// What one pod has done since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) receive: Option<u64>,
    pub(crate) transmit: Option<u64>,
    pub(crate) retransmits: Option<u64>,
}

impl Rates {
    /// The rates between two scrapes of the same agent.
    pub(crate) fn between(earlier: &Snapshot, later: &Snapshot, pod: &PodPlan) -> Self {
        let seconds = later.at.saturating_duration_since(earlier.at);
        let added = |name: &str| added(&earlier.samples, &later.samples, name, pod);
        let round_trips = added("leadline_tcp_rtt_seconds_count").filter(|count| *count > 0.0);
        let bits = |bytes| per_second(bytes, seconds).map(|rate| rate * 8.0);
        Self {
            receive: added("leadline_pod_receive_bytes_total").and_then(bits),
            transmit: added("leadline_pod_transmit_bytes_total").and_then(bits),
            rtt: added("leadline_tcp_rtt_seconds_sum").zip(round_trips).map(|(sum, count)| sum / count),
            retransmits: added("leadline_tcp_retransmit_segments_total")
                .and_then(|segments| per_second(segments, seconds)),
        }
    }
}

impl Totals {
    /// What the scrape says of the pod.
    pub(crate) fn of(samples: &Samples, pod: &PodPlan) -> Self {
        let total = |name| samples.sum(name, |sample| is_of(sample, pod));
        Self {
            receive: total("leadline_pod_receive_bytes_total"),
            transmit: total("leadline_pod_transmit_bytes_total"),
            retransmits: total("leadline_tcp_retransmit_segments_total"),
        }
    }
}

/// How much the sum of a pod's series grew. A series that was not there before began at 0 since the pod appeared.
fn added(earlier: &Samples, later: &Samples, name: &str, pod: &PodPlan) -> Option<f64> {
    let before = sum(earlier, name, pod).unwrap_or(0.0);
    sum(later, name, pod).map(|after| after - before)
}

fn sum(samples: &Samples, name: &str, pod: &PodPlan) -> Option<f64> {
    let mut values = samples.of(name, |sample| is_of(sample, pod)).map(Sample::value).peekable();
    values.peek()?;
    values.sum()
}

fn is_of(sample: &Sample, pod: &PodPlan) -> bool {
    sample.label("namespace") == Some(pod.namespace) && sample.label("pod") == Some(pod.name)
}

fn per_second(amount: f64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| amount / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrape::parse;

    const POD: PodPlan = PodPlan { node: 1, namespace: "shop", name: "web" };

    fn snapshots(earlier: &str, later: &str) -> (Snapshot, Snapshot) {
        let at = Instant::now();
        let snapshot = |text: &str, at| {
            let text = text.replace("POD", "namespace=\"shop\",pod=\"web\"");
            Snapshot { at, samples: parse(&text).unwrap() }
        };
        (snapshot(earlier, at), snapshot(later, at + Duration::from_secs(2)))
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let (earlier, later) = snapshots(
            "leadline_pod_receive_bytes_total{POD,peer_class=\"service\"} 100\n\
             leadline_pod_receive_bytes_total{POD,peer_class=\"node\"} 20\n\
             leadline_tcp_rtt_seconds_sum{POD} 1.5\nleadline_tcp_rtt_seconds_count{POD} 3\n\
             leadline_tcp_retransmit_segments_total{POD} 7\n",
            "leadline_pod_receive_bytes_total{POD,peer_class=\"service\"} 300\n\
             leadline_pod_receive_bytes_total{POD,peer_class=\"node\"} 25\n\
             leadline_pod_receive_bytes_total{namespace=\"other\",pod=\"web\",peer_class=\"node\"} 9999\n\
             leadline_tcp_rtt_seconds_sum{POD} 2.5\nleadline_tcp_rtt_seconds_count{POD} 7\n\
             leadline_tcp_retransmit_segments_total{POD} 17\n",
        );
        let expected =
            Rates { receive: Some(820.0), transmit: None, rtt: Some(0.25), retransmits: Some(5.0) };
        assert_eq!(Rates::between(&earlier, &later, &POD), expected);
    }

    #[test]
    fn without_a_new_round_trip_there_is_none() {
        let text = "leadline_tcp_rtt_seconds_sum{POD} 2.5\nleadline_tcp_rtt_seconds_count{POD} 7\n";
        let (earlier, later) = snapshots(text, text);
        assert_eq!(Rates::between(&earlier, &later, &POD).rtt, None);
    }

    #[test]
    fn a_new_series_began_at_zero() {
        let (earlier, later) = snapshots("up 1\n", "leadline_pod_transmit_bytes_total{POD} 250\n");
        assert_eq!(Rates::between(&earlier, &later, &POD).transmit, Some(1000.0));
        assert_eq!(Rates::between(&later, &earlier, &POD), Rates::default());
    }

    #[test]
    fn totals_stay_exact() {
        let (_, later) = snapshots(
            "",
            "leadline_pod_transmit_bytes_total{POD,peer_class=\"a\"} 9007199254740993\n\
             leadline_pod_transmit_bytes_total{POD,peer_class=\"b\"} 1\n",
        );
        let expected = Totals { transmit: Some(9_007_199_254_740_994), ..Totals::default() };
        assert_eq!(Totals::of(&later.samples, &POD), expected);
    }
}
