//! The command line: what it takes. What a command does is in its own file.

pub mod config;
pub mod events;
pub mod flags;
pub mod metrics;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  leadline run                                  measure this node, serve http://NODE:9843/metrics
  leadline run --collector.overlay=off          without one collector
  leadline config default > leadline.yaml       start a configuration file
  leadline config check leadline.yaml           check one
  leadline run --config.file=leadline.yaml      use it

The agent needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or root.";

/// Finds out which layer of a node's network broke: pod, overlay, tunnel, underlay, virtual IP or quorum.
#[derive(Debug, Parser)]
#[command(name = "leadline", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent on this node
    Run(Box<flags::Flags>),
    /// Print or check a configuration
    Config(config::Arguments),
    /// Print what happened on this node, in order
    Events(events::Arguments),
    /// List every metric that the agent exports
    Metrics(metrics::Arguments),
    /// Print the version
    Version,
}

/// Reads the command line; ends the process with help or a usage error where it must.
#[must_use]
pub fn parse() -> Cli {
    Cli::parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_teaches_by_example_and_names_the_environment() {
        let mut command = Cli::command();
        assert!(command.render_help().to_string().contains("Examples:"));
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.render_long_help().to_string();
        assert!(help.contains("Examples:") && help.contains("LEADLINE_WEB_LISTEN_ADDRESS"), "{help}");
    }
}
