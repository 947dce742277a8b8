//! Metrics: what they are (`descriptor`), where a collector puts their samples (`sink`), how they are written
//! (`text`, `labels`), and what is checked and documented about them (`catalogue`).
//!
//! This module depends on nothing else of the agent.

pub mod catalogue;
pub mod descriptor;
mod fold;
mod labels;
mod sample;
pub mod sink;
mod text;

pub use descriptor::{Descriptor, Kind, Profile};
pub use labels::{Labels, OTHER};
pub use sample::{Buckets, Value};

/// Text formats that the agent can answer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text exposition 0.0.4.
    Text004,
    /// OpenMetrics text 1.0.
    OpenMetrics1,
}
