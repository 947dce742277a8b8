//! Developer commands of Leadline: `cargo xtask <command>`.
//!
//! This crate depends on nothing of ours, so that `cargo xtask` starts on a machine that cannot build the agent yet.

mod agent;
mod bench;
mod dashboards;
mod demo;
mod fuzz;
mod generated;
mod image;
mod metrics;
mod process;
mod progress;
mod run;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Leadline.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what building and testing need; does nothing twice
    Setup,
    /// Run every check and test, or only the tests whose names contain a filter
    Test(test::Arguments),
    /// Build the agent and run it on this machine
    Run(run::Arguments),
    /// Measure what the agent costs; prints a table and writes target/bench.json
    Bench(bench::Arguments),
    /// Show three nodes with real Flannel on this machine, and what the agents say of their traffic
    Demo(demo::Arguments),
    /// Build the agent as a container image, in an archive that nodes import
    Image(image::Arguments),
    /// Feed the packet parsers any bytes; at least ten million inputs each
    Fuzz(fuzz::Arguments),
    /// Write METRICS.md from the catalogue, or check it
    Metrics(metrics::Arguments),
    /// Render alert rules and boards from the catalogue, or check them
    Dashboards(dashboards::Arguments),
    /// Check the rules of the repository
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Test(arguments) => test::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Metrics(arguments) => metrics::run(&arguments),
        Command::Dashboards(arguments) => dashboards::run(&arguments),
        Command::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::failure(&error);
            ExitCode::FAILURE
        }
    }
}
