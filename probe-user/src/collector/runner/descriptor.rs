//! What the runner says about collectors.

use crate::metric::{Descriptor, Kind, Profile};

pub(super) static SUCCESS: Descriptor = Descriptor {
    name: "leadline_collector_success",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether the collector's last run gave its series; absent for a collector that cannot work here.",
    labels: &["collector"],
    profile: Profile::Minimal,
    source: "the runner",
    witness: "a collector that is made to fail in a test",
};
pub(super) static DURATION: Descriptor = Descriptor {
    name: "leadline_collector_duration_seconds",
    kind: Kind::Gauge,
    unit: Some("seconds"),
    help: "Time that the collector took for this scrape.",
    labels: &["collector"],
    profile: Profile::Minimal,
    source: "the runner's monotonic clock",
    witness: "a collector of known duration in a test",
};
pub(super) static SUPPORT: Descriptor = Descriptor {
    name: "leadline_collector_support",
    kind: Kind::Gauge,
    unit: None,
    help: "Always 1; the labels say how far the collector can work on this node, and why not further.",
    labels: &["collector", "level", "reason"],
    profile: Profile::Minimal,
    source: "each collector's view of this node",
    witness: "tests that take one capability of the node away at a time",
};
pub(super) static REJECTED: Descriptor = Descriptor {
    name: "leadline_collector_rejected_samples_total",
    kind: Kind::Counter,
    unit: None,
    help: "Samples left out because they did not fit their description; anything but 0 is a bug of the agent.",
    labels: &["collector"],
    profile: Profile::Minimal,
    source: "the metric writer",
    witness: "a collector that writes wrong samples in a test",
};
pub(super) static LIMITED: Descriptor = Descriptor {
    name: "leadline_series_limited_total",
    kind: Kind::Counter,
    unit: None,
    help: "Series folded into other because the family was at its cap, added up over all scrapes.",
    labels: &["metric"],
    profile: Profile::Minimal,
    source: "the metric writer",
    witness: "label sets written minus label sets exported in a test, difference 0",
};

/// The runner's own families, for the catalogue.
pub const DESCRIPTORS: &[&Descriptor] = &[&SUCCESS, &DURATION, &SUPPORT, &REJECTED, &LIMITED];
