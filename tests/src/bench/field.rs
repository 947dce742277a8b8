//! Where the measurements take place: one node of a lab, and the agent on it.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{Agent, AgentOptions, Lab, LabOptions, Node, Place, PodSpec, agent, tools};
use crate::{Flannel, Pod};

/// A node with a pod network.
pub(super) struct Field {
    lab: Lab,
}

impl Field {
    pub(super) fn prepare() -> Result<Self> {
        // Before anything is started, since what is missing says how to get it.
        agent::binary()?;
        for program in ["bpftool", "iperf3", "strace"] {
            tools::require(program)?;
        }
        tools::prepare(&mut |line| drop(super::progress(format_args!("  {line}"))))?;
        let options = LabOptions { nodes: 1, flannel: Some(Flannel::default()) };
        Ok(Self { lab: Lab::start(&options)? })
    }

    pub(super) fn node(&self) -> Result<&Node> {
        self.lab.node(1)
    }

    /// Two pods of the node that know each other's MAC address.
    pub(super) fn pods(&self) -> Result<[Pod; 2]> {
        let node = self.node()?;
        let pods = [node.pod(PodSpec::new("client"))?, node.pod(PodSpec::new("server"))?];
        for pod in &pods {
            pod.pin_neighbours(&[&pods[0], &pods[1]])?;
        }
        Ok(pods)
    }

    /// The agent in its default configuration, ready.
    pub(super) fn agent(&self) -> Result<Agent> {
        Agent::start(self.node()?, &AgentOptions::default())
    }

    /// The agent with every family that it has, ready.
    pub(super) fn detailed_agent(&self) -> Result<Agent> {
        let arguments = vec!["--profile=detailed".to_owned()];
        Agent::start(self.node()?, &AgentOptions { arguments, ..AgentOptions::default() })
    }

    pub(super) fn shutdown(self) -> Result<()> {
        self.lab.shutdown()
    }
}

/// This binary in a place, in one of the roles of [`super::child`]: what a pod does must come from its cgroup.
pub(super) fn child(place: &impl Place, role: &[&str]) -> Result<Command> {
    let binary = std::env::current_exe().context("find this binary")?;
    let mut command = place.command(binary.to_str().context("the path of this binary is no UTF-8")?)?;
    command.arg("child").args(role);
    Ok(command)
}
