//! The `leadline` binary: arguments, logging, dispatch.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use anyhow::Result;
use leadline::cli::{self, Command, parse};
use leadline::collector::CATALOGUE;
use leadline::collector::traffic::LIMITS;
use leadline::metric::catalogue::render_markdown;
use leadline::{agent, telemetry};

fn main() -> ExitCode {
    match dispatch(parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done about a standard error that is gone.
            let _unheard = writeln!(stderr(), "leadline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Run(flags) => {
            let config = flags.config()?;
            telemetry::init(&config.log)?;
            let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
            for name in cli::flags::unknown_variables(variables) {
                tracing::warn!(name, "environment variable means nothing to the agent");
            }
            agent::run(&config)
        }
        Command::Config(arguments) => Ok(arguments.command.run(&mut stdout())?),
        Command::Events(arguments) => Ok(arguments.run(&mut stdout())?),
        Command::Metrics(arguments) if arguments.markdown => {
            let text = render_markdown(CATALOGUE) + LIMITS;
            Ok(stdout().write_all(text.as_bytes())?)
        }
        Command::Metrics(arguments) => Ok(cli::metrics::list(&arguments, CATALOGUE, &mut stdout())?),
        Command::Version => Ok(writeln!(stdout(), "leadline {}", env!("CARGO_PKG_VERSION"))?),
    }
}
