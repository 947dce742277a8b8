//! A daemon in a systemd-like unit of a machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::{cgroup, process};

/// A running daemon. Dropping it kills it and what it started.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    unit: PathBuf,
}

impl Service {
    /// Starts a command that has been joined to its unit; output of earlier starts stays in the log.
    pub(crate) fn start(name: String, command: &mut Command, log: PathBuf, unit: PathBuf) -> Result<Self> {
        let open = || File::options().append(true).create(true).open(&log);
        let output = open().with_context(|| format!("open {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("duplicate {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = process::spawn(command)?;
        Ok(Self { name, child, log, unit })
    }

    /// The process id, which is the same inside the node and on the machine.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The cgroup directory of the unit, as the machine sees it.
    #[must_use]
    pub fn unit(&self) -> &Path {
        &self.unit
    }

    /// The exit status if the daemon has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("ask whether {} runs", self.name))
    }

    /// Sends a signal to the main process, and to no other.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.pid(), signal).with_context(|| self.name.clone())
    }

    /// Waits for the end of the daemon.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        process::wait_exit(&mut self.child, &self.name, limit).with_context(|| self.log_tail(10))
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(5))
    }

    /// All that the daemon has written.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines that the daemon has written, for messages.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log().unwrap_or_else(|error| format!("{error:#}"));
        let all: Vec<&str> = log.lines().collect();
        format!("last output of {}:\n{}", self.name, all[all.len().saturating_sub(lines)..].join("\n"))
    }

    /// Waits until the condition holds; fails at once, with the end of the log, if the daemon ends before.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<()> {
        let mut ended = None;
        let waited = process::wait_until(what, limit, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some() || condition()
        });
        if let Some(status) = ended {
            anyhow::bail!("{} ended ({status}) before {what}; {}", self.name, self.log_tail(20));
        }
        waited.with_context(|| self.log_tail(20))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Nobody can be told here; what stays is ended with the lab.
        drop(cgroup::kill(&self.unit));
        drop(self.kill());
        drop(cgroup::remove(&self.unit));
    }
}
