//! Tailscale on a node, against what tailscale itself says, and against what is on the wire.
#![expect(clippy::print_stdout, reason = "a test shows what it measured")]

use std::time::Duration;

use anyhow::Result;
use lab::{Lab, LabOptions};

#[path = "tunnel/absent.rs"]
mod absent;
#[path = "tunnel/cut.rs"]
mod cut;
#[path = "tunnel/key.rs"]
mod key;
#[path = "tunnel/lab.rs"]
mod own;
#[path = "tunnel/path.rs"]
mod path;
#[path = "tunnel/router.rs"]
mod router;
#[path = "tunnel/silence.rs"]
mod silence;
#[path = "tunnel/stage.rs"]
mod stage;
#[path = "tunnel/state.rs"]
mod state;
#[path = "tunnel/wire.rs"]
mod wire;
#[path = "tunnel/wireguard.rs"]
mod wireguard;

/// The time for what tailscaled and the agent notice by themselves.
const LIMIT: Duration = Duration::from_secs(40);

/// A lab of so many nodes without pods.
fn lab(nodes: u8) -> Result<Lab> {
    Lab::start(&LabOptions { nodes, flannel: None })
}
