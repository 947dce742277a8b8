//! Collectors: one subject a file. A collector turns what was read of its subject into samples and does nothing
//! else: it does not log its own failure, time itself, know HTTP, sleep, or invent a value. The runner does those.

pub mod agent_self;
pub mod certificate;
pub mod control_plane;
pub mod dependent;
pub mod etcd;
pub mod haproxy;
pub mod kubernetes;
pub mod overlay;
pub mod path;
pub mod path_pod;
pub mod program;
mod rows;
mod rtt;
pub mod runner;
pub mod tap;
pub mod tcp;
pub mod tcp_port;
pub mod too_big;
pub mod traffic;
pub mod tunnel;
pub mod unavailable;
pub mod vip;
pub mod vip_listener;
pub mod vip_probe;

use std::fmt;

use crate::metric::{Descriptor, sink::Sink};

/// Every collector and what it describes, in the order of the exposition: what METRICS.md, dashboards and rules are
/// made from. The runner describes what it says of all collectors.
pub static CATALOGUE: &[(&str, &[&Descriptor])] = &[
    ("traffic", traffic::DESCRIPTORS),
    ("tcp", tcp::DESCRIPTORS),
    ("tcp_port", tcp_port::DESCRIPTORS),
    ("overlay", overlay::DESCRIPTORS),
    ("path", path::DESCRIPTORS),
    ("path_pod", path_pod::DESCRIPTORS),
    ("too_big", too_big::DESCRIPTORS),
    ("vip", vip::DESCRIPTORS),
    ("vip_listener", vip_listener::DESCRIPTORS),
    ("vip_probe", vip_probe::DESCRIPTORS),
    ("tap", tap::DESCRIPTORS),
    ("haproxy", haproxy::DESCRIPTORS),
    ("etcd", etcd::DESCRIPTORS),
    ("certificate", certificate::DESCRIPTORS),
    ("control_plane", control_plane::DESCRIPTORS),
    ("tunnel", tunnel::DESCRIPTORS),
    ("kubernetes", kubernetes::DESCRIPTORS),
    ("program", program::DESCRIPTORS),
    ("self", agent_self::DESCRIPTORS),
    ("runner", runner::DESCRIPTORS),
];

/// Whether a collector can work on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// Everything it describes can be measured.
    Yes,
    /// Some of it cannot; the reason is a short fixed phrase, exported as a label.
    Degraded(&'static str),
    /// None of it can; the same.
    No(&'static str),
}

/// Why a collection gave nothing. The runner omits the collector's series and counts the failure.
#[derive(Debug)]
pub struct CollectError(pub Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for CollectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for CollectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// A running collector.
pub trait Collector: Send + Sync {
    /// The file name, the configuration key and the `collector` label.
    fn name(&self) -> &'static str;

    /// Every family this collector may export.
    fn descriptors(&self) -> &'static [&'static Descriptor];

    /// How far it can work, as of now: a collector may learn more while it runs.
    fn support(&self) -> Support;

    /// Writes the samples of this moment. Called from several scrapes at once; must not block on I/O.
    ///
    /// # Errors
    /// When the subject could not be read; whatever was written is then discarded.
    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError>;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::metric::catalogue::check_name;

    #[test]
    fn every_metric_follows_the_naming_rules_and_is_described_once() {
        let mut names = HashSet::new();
        for descriptor in CATALOGUE.iter().flat_map(|(_, descriptors)| *descriptors) {
            assert_eq!(check_name(descriptor), Ok(()));
            assert!(names.insert(descriptor.name), "{} is described twice", descriptor.name);
        }
        assert!(names.len() > 40);
    }
}
