//! Tailscale on this node: by which way it sends to each peer, whether that is answered, and until when keys are good.
//!
//! A task of the agent asks tailscaled about once a second and puts the answers here; a scrape only shows the last one.
//! `memory` is what is remembered of a peer, `state` compares answers, `events` puts what changed into words. Without an
//! answer there are no series of it; `wire` is what the uplinks show, also of `WireGuard` without Tailscale.

mod descriptor;
mod events;
mod memory;
pub mod state;
pub mod wire;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::{MOST_PEERS, MOST_ROUTES, Sight, State};
use self::wire::Heard;
use super::vip::happening::Nanos;
use super::{CollectError, Collector, Support};
use crate::metric::Descriptor;
use crate::metric::sink::Sink;
use crate::source::tailscale::{AskError, Candidates, Cause};

pub use self::descriptor::DESCRIPTORS;

/// The `reason` before the first look.
const NOT_LOOKED: &str = "Tailscale is still being looked for";
/// The `reason` where nothing speaks for one.
const NONE: &str = "no Tailscale on this node";
/// The `reason` where the configured socket is not there.
const GIVEN_MISSING: &str = "the configured socket of tailscaled does not exist";
/// The `reason` where anybody could have made the socket.
const UNTRUSTED: &str = "the socket of tailscaled does not belong to root";
/// The `reason` where permissions forbid to ask.
const DENIED: &str = "tailscaled keeps the agent out";
/// The `reason` where tailscaled has left its socket behind.
const REFUSED: &str = "nobody listens on the socket of tailscaled: it does not run";
/// The `reason` where tailscaled hangs.
const LATE: &str = "tailscaled does not answer in time";
/// The `reason` where the answer cannot be used.
const FOREIGN: &str = "what answers is not tailscaled, see the log";
/// The `reason` where the system refuses otherwise.
const FAILED: &str = "tailscaled cannot be asked, see the log";
/// The `reason` where the offered routes are unknown.
const NO_PREFS: &str = "tailscaled does not tell its preferences: which routes are offered is unknown";
/// The `reason` where there are too many of something.
const OMITTED: &str = "more peers or routes than are shown";

/// What is known, shared between the task that asks and the collector.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<State>>);

impl Known {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it means that none of the candidates gave a reading: the gravest of what they said, and which one said it.
#[must_use]
pub fn judge<'a>(candidates: &Candidates, faults: &'a [AskError]) -> (Sight, Option<&'a AskError>) {
    let is_grave = |fault: &&AskError| candidates.is_given || !matches!(fault.cause, Cause::Missing);
    match faults.iter().find(is_grave) {
        Some(fault) => (Sight::Unreadable(reason(&fault.cause)), Some(fault)),
        None => (Sight::Absent(NONE), None),
    }
}

/// The phrase for what happened.
#[must_use]
pub const fn reason(cause: &Cause) -> &'static str {
    match cause {
        Cause::Missing => GIVEN_MISSING,
        Cause::Untrusted(_) => UNTRUSTED,
        Cause::Denied => DENIED,
        Cause::Refused => REFUSED,
        Cause::Late => LATE,
        Cause::TooLong | Cause::Status(_) | Cause::NoHttp | Cause::NoJson(_) | Cause::NoState => FOREIGN,
        Cause::Io(_) => FAILED,
    }
}

/// The collector.
#[derive(Debug)]
pub struct Tunnel {
    known: Known,
    heard: Heard,
    now: fn() -> Nanos,
}

impl Tunnel {
    /// A collector of what is known and heard; `now` reads `CLOCK_MONOTONIC`.
    #[must_use]
    pub const fn new(known: Known, heard: Heard, now: fn() -> Nanos) -> Self {
        Self { known, heard, now }
    }
}

impl Collector for Tunnel {
    fn name(&self) -> &'static str {
        "tunnel"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        match self.known.lock().sight() {
            Sight::Unknown => Support::No(NOT_LOOKED),
            Sight::Absent(_) if self.heard.lock().has_peers() => Support::Yes,
            Sight::Absent(reason) => Support::No(reason),
            Sight::Unreadable(reason) => Support::Degraded(reason),
            Sight::Read(_, reading) => match &reading.advertised {
                None => Support::Degraded(NO_PREFS),
                Some(routes) if routes.len() > MOST_ROUTES => Support::Degraded(OMITTED),
                Some(_) if reading.peers.len() > MOST_PEERS => Support::Degraded(OMITTED),
                Some(_) => Support::Yes,
            },
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let state = self.known.lock();
        let wire = self.heard.lock();
        let reading = match state.sight() {
            Sight::Read(socket, reading) => {
                write::write(sink, &state, socket, reading);
                Some(&**reading)
            }
            _ => None,
        };
        if reading.is_some() || wire.has_peers() {
            write::write_wire(sink, &state, reading, &wire, (self.now)());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
