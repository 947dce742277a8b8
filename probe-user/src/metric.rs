//! Metrics: what they are (`descriptor`), where a collector puts their samples (`sink`), how they are written.
//!
//! This module depends on nothing else of the agent.

pub mod descriptor;
pub mod sink;

pub use descriptor::{Descriptor, Kind};
