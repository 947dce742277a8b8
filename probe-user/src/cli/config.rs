//! `leadline config`: print the documented defaults, check a file.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};

use crate::config::{Config, ConfigError, DEFAULT_TEXT};

/// Arguments of `leadline config`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with a configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print every field with its meaning and default, as a file to start from
    Default,
    /// Say whether a file would be accepted; exit code 1 and the place of the mistake if not
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The output could not be written.
    #[error("standard output cannot be written")]
    Output(#[from] io::Error),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// When the checked file would be refused, or the output cannot be written.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        match self {
            Self::Default => out.write_all(DEFAULT_TEXT.as_bytes())?,
            Self::Check { file } => {
                Config::load(Some(file))?;
                writeln!(out, "ok")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_prints_the_documented_text() {
        let mut out = Vec::new();
        Command::Default.run(&mut out).unwrap();
        assert_eq!(out, DEFAULT_TEXT.as_bytes());
    }

    #[test]
    fn check_accepts_the_default_and_refuses_what_run_would() {
        let shipped = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/default.yaml"));
        let mut out = Vec::new();
        Command::Check { file: shipped }.run(&mut out).unwrap();
        assert_eq!(out, b"ok\n");

        let short = std::env::temp_dir().join(format!("leadline-check-{}.yaml", std::process::id()));
        std::fs::write(&short, "slots: 64\npod_retention: 5s\n").unwrap();
        let error = Command::Check { file: short.clone() }.run(&mut out).unwrap_err();
        std::fs::remove_file(short).unwrap();
        assert!(matches!(error, Error::Config(ConfigError::Invalid { line: 2, .. })), "{error}");

        let manifest = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let error = Command::Check { file: manifest }.run(&mut out).unwrap_err();
        assert!(matches!(error, Error::Config(ConfigError::Invalid { line: 1, .. })), "{error}");
    }
}
