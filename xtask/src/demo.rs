//! `cargo xtask demo`: three nodes with real Flannel on this machine, traffic, and a live table.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Result, anyhow};
use clap::Args;

use crate::{
    agent,
    process::{self, cargo, is_root, loudly},
    progress::heading,
    setup,
};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long, such as 60s or 5m; without it until Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    length: Option<u64>,
    /// Flannel with plain routes in place of VXLAN
    #[arg(long)]
    host_gw: bool,
}

/// Builds the agent and the lab, and becomes the lab's demo: a Ctrl-C reaches nobody else.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    heading("build");
    agent::build()?;
    loudly(cargo().args(["build", "--package", "leadline-tests", "--bin", "lab"]))?;
    let target = process::target_directory();
    let lab = target.join("debug/lab");
    heading("demo");
    let mut command = if is_root() { Command::new(&lab) } else { through_sudo(&lab) };
    command.args(words(arguments)).env("PATH", process::search_path()?).env("CARGO_TARGET_DIR", &target);
    let error = command.exec();
    Err(anyhow!(error).context(format!("{} cannot be started", lab.display())))
}

/// What the lab is told.
fn words(arguments: &Arguments) -> Vec<String> {
    let mut words = vec!["demo".to_owned()];
    words.extend(arguments.length.into_iter().flat_map(|length| ["--for".to_owned(), format!("{length}s")]));
    words.extend(arguments.host_gw.then(|| "--host-gw".to_owned()));
    words
}

fn through_sudo(lab: &std::path::Path) -> Command {
    let mut command = Command::new("sudo");
    command.arg("--preserve-env").arg(lab);
    command
}

/// A time as people write it, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, factor) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 60),
        _ => (text, 0),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "write seconds or minutes, as in 60s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_minutes() {
        assert_eq!([seconds("45s"), seconds("3m")], [Ok(45), Ok(180)]);
        for text in ["", "s", "45", "0s", "-3s", "1.5m", "1h", "18446744073709551615m"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_lab_is_told_what_was_asked_for() {
        assert_eq!(words(&Arguments { length: None, host_gw: false }), ["demo"]);
        let all = Arguments { length: Some(90), host_gw: true };
        assert_eq!(words(&all), ["demo", "--for", "90s", "--host-gw"]);
    }
}
