//! Joins two devices at layer 2 and holds every frame for a while: one thread for each direction, first in first out but
//! for what is disordered on purpose.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{Disorder, Passed, Treatment};
use crate::frames::packet_socket;
use crate::process;

/// The largest frame; longer ones would mean that an offload is on.
const FRAME_MAX: usize = 2_048;
/// What a frame of UDP over IPv4 has where Ethernet has its type and IPv4 its protocol.
const UDP: [(usize, u8); 3] = [(12, 0x08), (13, 0x00), (23, 17)];

/// A running relay. Dropping it ends its threads.
#[derive(Debug)]
pub(super) struct Relay {
    stop: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
    passed: [Arc<Mutex<Passed>>; 2],
    is_calm: Arc<AtomicBool>,
}

impl Relay {
    /// Joins two devices, given by index, of the calling thread's network namespace. The delays are those of the
    /// frames from the first and from the second.
    pub(super) fn start(first: u32, second: u32, treatment: Treatment) -> Result<Self> {
        let (first, second) = (packet_socket(first)?, packet_socket(second)?);
        let (end, stop) = io::pipe().context("make a pipe")?;
        let passed = [Arc::default(), Arc::default()];
        let is_calm = Arc::default();
        let mut relay = Self { stop: Some(stop), threads: Vec::new(), passed, is_calm };
        let (first, second) = (Arc::new(first), Arc::new(second));
        let ways = [(&first, &second), (&second, &first)].into_iter().zip(treatment.delays);
        for (((from, to), delay), passed) in ways.zip(&relay.passed) {
            let direction = Direction {
                from: Arc::clone(from),
                to: Arc::clone(to),
                end: end.try_clone().context("duplicate a pipe")?,
                timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)
                    .context("make a timer")?,
                delay,
                spread: treatment.spread,
                wander: Wander::default(),
                disorder: treatment.disorder,
                is_calm: Arc::clone(&relay.is_calm),
                disordered: 0,
                held: VecDeque::new(),
                passed: Arc::clone(passed),
            };
            relay.threads.push(thread::spawn(move || direction.run()));
        }
        Ok(relay)
    }

    /// From now on every frame keeps its place.
    pub(super) fn calm(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    pub(super) fn passed(&self) -> [Passed; 2] {
        [0, 1].map(|index: usize| *self.passed[index].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed already.
            drop(thread.join());
        }
    }
}

#[derive(Clone)]
struct Frame {
    received: Instant,
    due: Instant,
    bytes: Vec<u8>,
}

impl Frame {
    fn is_udp(&self) -> bool {
        UDP.iter().all(|(at, byte)| self.bytes.get(*at) == Some(byte))
    }
}

/// Numbers from 0 to below [`END`](Self::END), evenly spread and the same in each run: the generator of Park and Miller.
#[derive(Default)]
struct Wander(u32);

impl Wander {
    const END: u32 = 0x7fff_ffff;

    fn draw(&mut self) -> u32 {
        let product = u64::from(self.0.max(1)) * 48_271 % u64::from(Self::END);
        self.0 = u32::try_from(product).unwrap_or_default();
        self.0
    }
}

/// One direction of the relay.
struct Direction {
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    end: PipeReader,
    timer: TimerFd,
    delay: Duration,
    /// Up to so much more.
    spread: Duration,
    wander: Wander,
    disorder: Option<Disorder>,
    is_calm: Arc<AtomicBool>,
    /// Frames that might have been disordered.
    disordered: u32,
    /// By the times at which they are due.
    held: VecDeque<Frame>,
    passed: Arc<Mutex<Passed>>,
}

impl Direction {
    fn run(mut self) {
        make_urgent();
        // An error other than those handled where they arise cannot happen on healthy descriptors; without the relay
        // nothing passes, and the test says so.
        while matches!(self.step(), Ok(true)) {}
    }

    /// Sends what is due and receives what has come; `false` at the end.
    fn step(&mut self) -> nix::Result<bool> {
        let wait = self.send_due();
        if let Some(wait) = wait {
            // A time of zero would disarm the timer.
            let wait = TimeSpec::from(wait.max(Duration::from_nanos(1)));
            self.timer.set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?;
        }
        let mut waiting = [
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        let ready = waiting.map(|descriptor| descriptor.any().unwrap_or_default());
        if ready[1] {
            // Whether it had expired does not matter: what is due is found by the clock.
            self.timer.wait().ok();
        }
        if ready[0] {
            self.receive();
        }
        Ok(!ready[2])
    }

    /// Sends the frames that are due; says how long the next one must wait.
    fn send_due(&mut self) -> Option<Duration> {
        loop {
            let wait = self.held.front()?.due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Some(wait);
            }
            let frame = self.held.pop_front()?;
            let sent = send(self.to.as_raw_fd(), &frame.bytes, MsgFlags::MSG_DONTWAIT).is_ok();
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            if sent {
                passed.frames += 1;
                passed.held += frame.received.elapsed();
            } else {
                passed.lost += 1;
            }
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; FRAME_MAX];
        for _ in 0..64 {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let Ok(length) = recv(self.from.as_raw_fd(), &mut buffer, flags) else { return };
            match buffer.get(..length) {
                Some(frame) => {
                    let received = Instant::now();
                    let due = self.due(received);
                    self.hold(Frame { received, due, bytes: frame.to_vec() });
                }
                None => self.passed.lock().unwrap_or_else(PoisonError::into_inner).lost += 1,
            }
        }
    }

    /// When a frame goes on. Of those that are held for different times none overtakes another.
    fn due(&mut self, received: Instant) -> Instant {
        let due = received + self.delay;
        if self.spread.is_zero() {
            return due;
        }
        let due = due + self.spread * self.wander.draw() / Wander::END;
        self.held.back().map_or(due, |last| due.max(last.due))
    }

    fn hold(&mut self, mut frame: Frame) {
        let disorder = self.disorder.filter(|_| frame.is_udp() && !self.is_calm.load(Ordering::Relaxed));
        if let Some(disorder) = disorder {
            self.disordered += 1;
            if self.disordered.is_multiple_of(disorder.twice_every) {
                self.insert(frame.clone());
            }
            if self.disordered.is_multiple_of(disorder.late_every) {
                frame.due += disorder.late_by;
            }
        }
        self.insert(frame);
    }

    /// Behind all that are due before it or at the same time.
    fn insert(&mut self, frame: Frame) {
        let place = self.held.partition_point(|held| held.due <= frame.due);
        self.held.insert(place, frame);
    }
}

/// Puts the thread before ordinary ones, so that the delay does not depend on what else the machine does. Where that
/// is not allowed the delay is less exact, which `Passed` shows.
fn make_urgent() {
    let thread = nix::unistd::gettid().to_string();
    drop(process::run(Command::new("chrt").args(["--fifo", "--pid", "10", &thread])));
}
