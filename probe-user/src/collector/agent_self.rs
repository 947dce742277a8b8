//! The agent about itself: HTTP, losses, netlink, the process, the build.
//!
//! These few metrics live in a registry of the `prometheus` crate, because they are counted where things happen and
//! not read at scrape. At scrape the registry is walked into the same sink as everything else, so that both formats,
//! the cap and the catalogue hold for them too.

mod descriptor;
mod metrics;

pub use descriptor::DESCRIPTORS;
pub use metrics::{Build, DropReason, EventSource, SelfMetrics};

use prometheus::proto;

use super::{CollectError, Collector, Support};
use crate::metric::{
    Buckets, Descriptor, Kind, Value,
    sink::{Family, Sink},
};

/// The collector named `self`.
#[derive(Debug)]
pub struct AgentSelf {
    metrics: SelfMetrics,
}

/// A family of the registry that the catalogue does not know as it is.
#[derive(Debug, thiserror::Error)]
#[error("metric {0} is registered but not described: add it to the descriptors of the self collector")]
struct Undescribed(String);

impl AgentSelf {
    /// A collector over these metrics.
    #[must_use]
    pub fn new(metrics: SelfMetrics) -> Self {
        Self { metrics }
    }
}

impl Collector for AgentSelf {
    fn name(&self) -> &'static str {
        "self"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        Support::Yes
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        for family in self.metrics.gather() {
            let descriptor = DESCRIPTORS
                .iter()
                .find(|descriptor| descriptor.name == family.name())
                .ok_or_else(|| CollectError(Box::new(Undescribed(family.name().to_owned()))))?;
            let mut target = sink.family(descriptor);
            for metric in family.get_metric().iter().filter(|metric| !is_unread(descriptor, metric)) {
                write_metric(&mut target, descriptor, metric);
            }
        }
        Ok(())
    }
}

/// The crate exports 0 for a fact about the process that it could not read or that has no limit; none of them can be 0.
fn is_unread(descriptor: &Descriptor, metric: &proto::Metric) -> bool {
    let process_gauge = descriptor.kind == Kind::Gauge && descriptor.name.starts_with("process_");
    process_gauge && metric.get_gauge().get_value() == 0.0
}

fn write_metric(target: &mut Family<'_>, descriptor: &Descriptor, metric: &proto::Metric) {
    let labels: Vec<&str> = descriptor.labels.iter().map(|name| label_value(metric, name)).collect();
    match descriptor.kind {
        Kind::Counter => target.value(&labels, Value::Float(metric.get_counter().get_value())),
        Kind::Gauge => target.value(&labels, Value::Float(metric.get_gauge().get_value())),
        Kind::Histogram => write_histogram(target, &labels, metric.get_histogram()),
    }
}

/// The crate sorts labels by name; the descriptor has the order of the sink.
fn label_value<'a>(metric: &'a proto::Metric, name: &str) -> &'a str {
    metric.get_label().iter().find(|pair| pair.name() == name).map_or("", |pair| pair.value())
}

/// The crate counts cumulatively and leaves +Inf to the total.
fn write_histogram(target: &mut Family<'_>, labels: &[&str], histogram: &proto::Histogram) {
    let buckets = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let (bounds, mut cumulative): (Vec<f64>, Vec<u64>) =
        buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).unzip();
    cumulative.push(histogram.get_sample_count());
    let below = [0].into_iter().chain(cumulative.iter().copied());
    let counts: Vec<u64> =
        cumulative.iter().zip(below).map(|(count, below)| count.saturating_sub(below)).collect();
    target.histogram(labels, &Buckets { bounds: &bounds, counts: &counts, sum: histogram.get_sample_sum() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{Format, catalogue::check_name};

    fn metrics() -> SelfMetrics {
        SelfMetrics::new(&Build { version: "1.2.3", revision: "abc" }).unwrap()
    }

    fn page(metrics: &SelfMetrics) -> String {
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Format::Text004);
        AgentSelf::new(metrics.clone()).collect(&mut sink).unwrap();
        sink.finish();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_descriptor_follows_the_rules() {
        for descriptor in DESCRIPTORS {
            assert_eq!(check_name(descriptor), Ok(()));
        }
    }

    #[test]
    fn what_is_known_in_advance_starts_at_zero() {
        let text = page(&metrics());
        for line in [
            "leadline_events_lost_total{source=\"ring\"} 0",
            "leadline_events_lost_total{source=\"timeline\"} 0",
            "leadline_events_lost_total{source=\"file\"} 0",
            "leadline_event_file_failures_total 0",
            "leadline_netlink_resyncs_total 0",
            "leadline_http_connections 0",
            "leadline_http_connections_dropped_total{reason=\"limit\"} 0",
            "leadline_build_info{version=\"1.2.3\",revision=\"abc\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn labels_come_in_the_order_of_the_descriptor() {
        let metrics = metrics();
        metrics.http_request("/metrics", 200, 0.003);
        assert!(page(&metrics).contains("leadline_http_requests_total{path=\"/metrics\",code=\"200\"} 1\n"));
    }

    #[test]
    fn histograms_arrive_cumulative_with_their_total() {
        let metrics = metrics();
        metrics.http_request("/metrics", 200, 0.003);
        metrics.http_request("/metrics", 200, 0.003);
        metrics.http_request("/metrics", 200, 100.0);
        let text = page(&metrics);
        for line in ["le=\"0.001\"} 0", "le=\"0.004\"} 2", "le=\"4.096\"} 2", "le=\"+Inf\"} 3"] {
            assert!(text.contains(&format!("{{path=\"/metrics\",{line}\n")), "{line} in {text}");
        }
        assert!(
            text.contains("leadline_http_request_duration_seconds_count{path=\"/metrics\"} 3\n"),
            "{text}"
        );
    }

    #[test]
    fn the_process_describes_itself() {
        let text = page(&metrics());
        for name in ["process_resident_memory_bytes ", "process_start_time_seconds ", "process_open_fds "] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            assert!(value.parse::<f64>().unwrap() > 0.0, "{name}{value}");
        }
    }

    #[test]
    fn an_unlimited_or_unread_fact_is_absent_and_not_zero() {
        let descriptor = DESCRIPTORS.iter().find(|d| d.name == "process_max_fds").unwrap();
        let mut gauge = proto::Gauge::default();
        assert!(is_unread(descriptor, &proto::Metric::from_gauge(gauge.clone())));
        gauge.set_value(1024.0);
        assert!(!is_unread(descriptor, &proto::Metric::from_gauge(gauge)));
    }

    #[test]
    fn totals_of_the_kernel_are_taken_over_and_never_go_back() {
        let metrics = metrics();
        for total in [5, 9, 7] {
            metrics.raise_events_lost(EventSource::Ring, total);
        }
        assert_eq!(metrics.events_lost(EventSource::Ring).get(), 9);
    }
}
