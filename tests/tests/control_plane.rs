//! The control plane of a node, against what curl says of the same components.

use std::time::Duration;

use anyhow::Result;
use lab::control_plane::Options;
use lab::etcd::Version;
use lab::{ControlPlane, Etcd, EtcdOptions, Lab, LabOptions};

#[path = "control_plane/access.rs"]
mod access;
#[path = "control_plane/failure.rs"]
mod failure;
#[path = "control_plane/kubelet.rs"]
mod kubelet;
#[path = "control_plane/stage.rs"]
mod stage;

/// The time for what components and agent notice by themselves.
const LIMIT: Duration = Duration::from_secs(40);

/// A lab of one node with a member of etcd and a control plane.
fn start(options: &Options) -> Result<(Lab, Etcd, ControlPlane)> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let etcd =
        Etcd::start(&lab, &EtcdOptions { members: 1, version: Version::V3_6, ..EtcdOptions::default() })?;
    let plane = ControlPlane::start(lab.node(1)?, &etcd, options)?;
    Ok((lab, etcd, plane))
}
