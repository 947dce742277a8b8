//! Leadline, the agent's library. Reading order: `metric`, `event` and `wire` are leaves; `host`, `identity` and `peer`
//! turn facts into decisions; `source` and `kernel` read the world; `collector` turns all of that into series; `http`
//! serves them; `agent` wires everything, and is the only place that does.

pub mod agent;
pub mod cli;
pub mod collector;
pub mod config;
pub mod event;
pub mod host;
pub mod http;
pub mod identity;
pub mod kernel;
pub mod ledger;
pub mod metric;
pub mod peer;
pub mod source;
pub mod telemetry;
pub mod wire;
