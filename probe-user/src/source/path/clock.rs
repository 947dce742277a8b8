//! The wall clock, of which the kernel's times of datagrams are, and whether somebody has set it.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

/// A moment that the timer never reaches.
const NEVER: i64 = 1 << 40;

/// Nanoseconds since 1970, by the clock of the kernel's times.
#[must_use]
pub fn realtime() -> u64 {
    let now = clock_gettime(Clock::CLOCK_REALTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A timer that the kernel cancels whenever the clock is set. Slewing, as NTP does it, is none of that.
#[derive(Debug)]
pub struct ClockSteps(TimerFd);

impl ClockSteps {
    /// Watches from now on.
    ///
    /// # Errors
    /// When the kernel gives no timer.
    pub fn watch() -> io::Result<Self> {
        let timer =
            TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        timer.set(Expiration::OneShot(TimeSpec::new(NEVER, 0)), flags)?;
        Ok(Self(timer))
    }

    /// Whether the clock was set since the last question.
    #[must_use]
    pub fn has_stepped(&self) -> bool {
        // A cancelled timer can be read, once; one that runs has nothing to say.
        self.0.wait() != Err(Errno::EAGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_does_not_step() {
        let steps = ClockSteps::watch().unwrap();
        assert_eq!([steps.has_stepped(), steps.has_stepped()], [false; 2]);
    }
}
