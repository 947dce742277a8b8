//! The handle through which the rest of the agent counts.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector, process_collector::ProcessCollector, proto::MetricFamily,
};

use super::descriptor::{
    BUILD_INFO, EVENT_FILE_FAILURES, EVENTS_LOST, HTTP_BYTES, HTTP_CONNECTIONS, HTTP_DROPPED, HTTP_DURATION,
    HTTP_REQUESTS, NETLINK_FAILURES, NETLINK_RESYNCS,
};
use crate::metric::Descriptor;

/// Powers of four of a millisecond: from a health check to the longest allowed request.
const DURATION_BOUNDS: [f64; 7] = [0.001, 0.004, 0.016, 0.064, 0.256, 1.024, 4.096];

/// What this binary was built from.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// Version of the package.
    pub version: &'a str,
    /// Source revision, empty when the build did not know it.
    pub revision: &'a str,
}

/// Where a record can get lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// The ring buffer of the kernel programs was full.
    Ring,
    /// A netlink socket overran.
    Netlink,
    /// The ring buffer of the tap was full, or the agent too slow for it.
    Tap,
    /// The timeline wrapped before a follower came back.
    Timeline,
    /// The timeline wrapped before the event file could be written, or a line of it could not be read back.
    File,
}

/// Why the agent closed a connection that the client wanted to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Too many connections at once.
    Limit,
    /// The head of a request or a transfer took too long.
    Timeout,
    /// Accepting failed.
    Accept,
}

/// The agent's own metrics. Cheap to clone; every clone counts into the same registry.
#[derive(Clone, Debug)]
pub struct SelfMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    events_lost: IntCounterVec,
    event_file_failures: IntCounter,
    netlink_resyncs: IntCounter,
    netlink_failures: IntCounter,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    http_bytes: IntCounterVec,
    http_connections: IntGauge,
    http_dropped: IntCounterVec,
    /// Held while a counter is raised to a total, so that two readers do not both add the difference.
    raising: Mutex<()>,
}

impl EventSource {
    const ALL: [Self; 5] = [Self::Ring, Self::Netlink, Self::Tap, Self::Timeline, Self::File];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Netlink => "netlink",
            Self::Tap => "tap",
            Self::Timeline => "timeline",
            Self::File => "file",
        }
    }
}

impl DropReason {
    const ALL: [Self; 3] = [Self::Limit, Self::Timeout, Self::Accept];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Timeout => "timeout",
            Self::Accept => "accept",
        }
    }
}

impl SelfMetrics {
    /// A registry with everything that is known in advance at 0.
    ///
    /// # Errors
    /// When a descriptor is not acceptable to the registry: a mistake in the catalogue.
    pub fn new(build: &Build<'_>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let info = add(&registry, IntGaugeVec::new(opts(&BUILD_INFO), BUILD_INFO.labels)?)?;
        info.with_label_values(&[build.version, build.revision]).set(1);
        let duration = HistogramOpts::from(opts(&HTTP_DURATION)).buckets(DURATION_BOUNDS.to_vec());
        let inner = Inner {
            events_lost: add_counters(&registry, &EVENTS_LOST)?,
            event_file_failures: add(&registry, IntCounter::with_opts(opts(&EVENT_FILE_FAILURES))?)?,
            netlink_resyncs: add(&registry, IntCounter::with_opts(opts(&NETLINK_RESYNCS))?)?,
            netlink_failures: add(&registry, IntCounter::with_opts(opts(&NETLINK_FAILURES))?)?,
            http_requests: add_counters(&registry, &HTTP_REQUESTS)?,
            http_duration: add(&registry, HistogramVec::new(duration, HTTP_DURATION.labels)?)?,
            http_bytes: add_counters(&registry, &HTTP_BYTES)?,
            http_connections: add(&registry, IntGauge::with_opts(opts(&HTTP_CONNECTIONS))?)?,
            http_dropped: add_counters(&registry, &HTTP_DROPPED)?,
            registry,
            raising: Mutex::new(()),
        };
        let metrics = Self(Arc::new(inner));
        for source in EventSource::ALL {
            metrics.events_lost(source).inc_by(0);
        }
        for reason in DropReason::ALL {
            metrics.http_dropped(reason).inc_by(0);
        }
        Ok(metrics)
    }

    /// Records lost at `source`.
    #[must_use]
    pub fn events_lost(&self, source: EventSource) -> IntCounter {
        self.0.events_lost.with_label_values(&[source.as_str()])
    }

    /// Takes over a total that someone else keeps, such as a counter of the kernel programs.
    pub fn raise_events_lost(&self, source: EventSource, total: u64) {
        let _held = self.0.raising.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = self.events_lost(source);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// Failures to write the event file.
    #[must_use]
    pub fn event_file_failures(&self) -> &IntCounter {
        &self.0.event_file_failures
    }

    /// Full re-reads after a lost netlink message.
    #[must_use]
    pub fn netlink_resyncs(&self) -> &IntCounter {
        &self.0.netlink_resyncs
    }

    /// Failures to read the network's state.
    #[must_use]
    pub fn netlink_failures(&self) -> &IntCounter {
        &self.0.netlink_failures
    }

    /// Counts an answered request. `path` comes from the fixed routes.
    pub fn http_request(&self, path: &'static str, code: u16, seconds: f64) {
        self.0.http_requests.with_label_values(&[path, &code.to_string()]).inc();
        self.0.http_duration.with_label_values(&[path]).observe(seconds);
    }

    /// Bytes of response bodies of a route.
    #[must_use]
    pub fn http_bytes(&self, path: &'static str) -> IntCounter {
        self.0.http_bytes.with_label_values(&[path])
    }

    /// Open connections.
    #[must_use]
    pub fn http_connections(&self) -> &IntGauge {
        &self.0.http_connections
    }

    /// Connections closed for `reason`.
    #[must_use]
    pub fn http_dropped(&self, reason: DropReason) -> IntCounter {
        self.0.http_dropped.with_label_values(&[reason.as_str()])
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.0.registry.gather()
    }
}

fn opts(descriptor: &Descriptor) -> Opts {
    Opts::new(descriptor.name, descriptor.help)
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn add_counters(registry: &Registry, descriptor: &Descriptor) -> Result<IntCounterVec, prometheus::Error> {
    add(registry, IntCounterVec::new(opts(descriptor), descriptor.labels)?)
}
