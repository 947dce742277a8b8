//! Real etcd clusters.
#![expect(clippy::print_stdout, reason = "a test shows what it measured")]

use std::time::Duration;

use anyhow::Result;
use lab::etcd::Version;
use lab::{Etcd, EtcdOptions, Lab, LabOptions};

#[path = "etcd/access.rs"]
mod access;
#[path = "etcd/failure.rs"]
mod failure;
#[path = "etcd/lab.rs"]
mod lab_itself;
#[path = "etcd/load.rs"]
mod load;
#[path = "etcd/membership.rs"]
mod membership;
#[path = "etcd/partition.rs"]
mod partition;
#[path = "etcd/round_trip.rs"]
mod round_trip;
#[path = "etcd/stage.rs"]
mod stage;
#[path = "etcd/wire.rs"]
mod wire;

/// The time for what a cluster does by itself, such as to elect a leader.
const LIMIT: Duration = Duration::from_secs(30);

/// The oldest and the newest.
const VERSIONS: [Version; 2] = [Version::V3_4, Version::V3_6];

/// All of them.
const ALL_VERSIONS: [Version; 3] = [Version::V3_4, Version::V3_5, Version::V3_6];

fn of(version: Version) -> EtcdOptions {
    EtcdOptions { version, ..EtcdOptions::default() }
}

/// A lab without a pod network and a cluster on its first nodes.
fn start(nodes: u8, options: &EtcdOptions) -> Result<(Lab, Etcd)> {
    let lab = Lab::start(&LabOptions { nodes, flannel: None })?;
    let etcd = Etcd::start(&lab, options)?;
    Ok((lab, etcd))
}
