//! The `leadline` binary: arguments, logging, dispatch.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use anyhow::Result;
use leadline::cli::{Command, parse};
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
            agent::run(&config)
        }
        Command::Config(arguments) => Ok(arguments.command.run(&mut stdout())?),
        Command::Version => Ok(writeln!(stdout(), "leadline {}", env!("CARGO_PKG_VERSION"))?),
    }
}
