//! Metrics: what they are (`descriptor`), where a collector puts their samples (`sink`), how they are written
//! (`text`), and what is checked and documented about them (`catalogue`).
//!
//! This module depends on nothing else of the agent.

pub mod catalogue;
pub mod descriptor;
mod fold;
pub mod sink;
mod text;

pub use descriptor::{Descriptor, Kind, Profile};

/// Text formats that the agent can answer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text exposition 0.0.4.
    Text004,
    /// OpenMetrics text 1.0.
    OpenMetrics1,
}
