//! What can go wrong between the agent and the kernel. Each variant names the object and carries the cause.

use std::io;
use std::path::PathBuf;

use crate::telemetry::with_causes;

/// An error of the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object that is compiled into the binary does not load.
    #[error("the BPF object could not be loaded: {0}")]
    Object(#[from] aya::EbpfError),
    /// A program is missing from the object, or is of another type: a defect of the build.
    #[error("program {program} is not in the BPF object, or not of the expected type")]
    Missing {
        /// Name of the program or map.
        program: &'static str,
    },
    /// The verifier or the kernel's configuration refused a program.
    #[error("program {program} could not be loaded: {}", with_causes(source))]
    Program {
        /// Name of the program.
        program: &'static str,
        /// The kernel's answer.
        source: aya::programs::ProgramError,
    },
    /// An attachment was refused.
    #[error("program {program} could not be attached to {target}: {}", with_causes(source))]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// The cgroup, tracepoint or device.
        target: String,
        /// The kernel's answer.
        source: aya::programs::ProgramError,
    },
    /// Somebody's qdisc takes the place of clsact.
    #[error(
        "{device} has a qdisc of kind {kind} at its ingress, and only clsact has a place for what the device sends, too"
    )]
    Discipline {
        /// The device.
        device: String,
        /// The kind of the qdisc.
        kind: String,
    },
    /// An iterator ended early.
    #[error("program {program} did not reach its end: {source}")]
    Iterator {
        /// Name of the program.
        program: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A map operation failed.
    #[error("map {map}: {}", with_causes(source))]
    Map {
        /// Name of the map.
        map: &'static str,
        /// The kernel's answer.
        source: aya::maps::MapError,
    },
    /// More overlay devices, by name, than there are rows for.
    #[error(
        "overlay device {device} is not counted: only {} device names are told apart between two starts",
        probe_common::overlay::DEVICES_MAX
    )]
    TooManyOverlays {
        /// Name of the device.
        device: String,
    },
    /// A map could not be mapped into memory.
    #[error("map {map} could not be mapped into memory: {source}")]
    Mapping {
        /// Name of the map.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The cgroup root could not be opened.
    #[error("cgroup v2 root {}: {source}", path.display())]
    CgroupRoot {
        /// Its path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel thread could not be started, or ended early.
    #[error("the kernel thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// The kernel thread ended without an answer.
    #[error("the kernel thread ended without an answer")]
    ThreadGone,
}
