//! `cargo xtask bench`: what the agent costs, against the goals of the design.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{
    agent,
    process::{cargo, is_root, loudly, target_directory},
    progress::heading,
    setup,
};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Few repetitions: shows that everything works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Pods of the part churn [default: 1000]
    #[arg(long, value_name = "NUMBER")]
    pods: Option<u32>,
    /// Parts to measure: packet, tap, path, overhead, scrape, idle, start, churn; all without one
    parts: Vec<String>,
}

/// Builds the agent and the benchmark, and runs it as root. It is a program of its own, since this one depends on
/// nothing of ours.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    heading("build");
    agent::build()?;
    loudly(cargo().args(["build", "--release", "--package", "leadline-tests", "--bin", "bench"]))?;
    heading("bench");
    loudly(&mut command(arguments))
}

fn command(arguments: &Arguments) -> Command {
    let program = target_directory().join("release/bench");
    let mut command = if is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.arg("--preserve-env").arg(program);
        command
    };
    command.args(arguments.quick.then_some("--quick"));
    command.args(arguments.pods.map(|pods| format!("--pods={pods}"))).args(&arguments.parts);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::show;

    #[test]
    fn parts_reach_the_program() {
        let arguments =
            Arguments { quick: true, pods: Some(7), parts: vec!["packet".to_owned(), "churn".to_owned()] };
        assert!(show(&command(&arguments)).ends_with("bench --quick --pods=7 packet churn"));
    }
}
