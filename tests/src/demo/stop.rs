//! The wish to end: signals are taken as input, so that nothing is cut off in the middle.

use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that end the demo.
#[derive(Debug)]
pub(crate) struct Stop(SignalFd);

impl Stop {
    /// Takes Ctrl-C and its kin from now on. Call it before other threads start: they inherit the mask.
    pub(crate) fn on_signals() -> Result<Self> {
        let mut signals = SigSet::empty();
        signals.extend([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        signals.thread_block().context("block signals")?;
        let descriptor = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).context("open a signalfd")?;
        Ok(Self(descriptor))
    }

    /// Waits for a signal, at most that long; returns whether one has come.
    pub(crate) fn within(&self, time: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error).context("wait for signals"),
        }
    }
}
