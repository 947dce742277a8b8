//! `cargo xtask metrics`: METRICS.md, from the catalogue of the agent.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    agent,
    generated::{self, Mode},
    process::show,
};

/// Arguments of `metrics`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only say whether METRICS.md is up to date
    #[arg(long)]
    check: bool,
}

/// Writes METRICS.md, or compares it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    settle(Mode::from_check(arguments.check))
}

/// Asks the agent itself: it is the only one that knows all its collectors.
pub(crate) fn settle(mode: Mode) -> Result<()> {
    let mut command = Command::new(agent::build()?);
    command.args(["metrics", "--markdown"]);
    let shown = show(&command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("`{shown}` cannot be started"))?;
    if !output.status.success() {
        bail!("`{shown}` ended with {}", output.status);
    }
    let page = String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed no text"))?;
    if page.is_empty() {
        bail!("`{shown}` printed nothing");
    }
    generated::settle("METRICS.md", &page, "cargo xtask metrics", mode)
}
