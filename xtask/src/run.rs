//! `cargo xtask run`: the agent as it is, on this machine.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Result, anyhow};
use clap::Args;

use crate::{agent, process::is_root, progress::heading, setup};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Flags of `leadline run`, after --
    #[arg(last = true)]
    agent: Vec<String>,
}

/// Builds the agent and becomes it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    heading("build");
    let agent = agent::build()?;
    heading("leadline run");
    let mut command = if is_root() { Command::new(&agent) } else { through_sudo(&agent) };
    let error = command.arg("run").args(&arguments.agent).exec();
    Err(anyhow!(error).context(format!("{} cannot be started", agent.display())))
}

fn through_sudo(agent: &std::path::Path) -> Command {
    let mut command = Command::new("sudo");
    command.arg("--preserve-env").arg(agent);
    command
}
