//! etcd: who is a member, who leads, how many more may fail, and what stands in the way.
//!
//! A task of the agent asks every member once a second and puts the answers here; a scrape only shows the last ones.
//! `judge` says what the answers mean together, `state` compares rounds, `history` has what needs more than one,
//! `events` puts what changed into words, `write` shows it. Without a client certificate only the page of this node's
//! member is known: then there is no quorum margin, and no member list is made up.

mod descriptor;
mod events;
#[cfg(test)]
mod fixture;
mod history;
pub mod judge;
pub mod round;
pub mod state;
#[cfg(test)]
mod tests;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::round::Round;
use self::state::{Sight, State};
use super::{CollectError, Collector, Support};
use crate::kernel::PortCount;
use crate::metric::Descriptor;
use crate::metric::sink::Sink;
use crate::source::etcd::{Absence, Cause};

pub use self::descriptor::DESCRIPTORS;

/// The `reason` before the first look.
const NOT_LOOKED: &str = "etcd is still being looked for";
/// The `reason` where nothing speaks for etcd.
const NONE: &str = "no etcd on this node";
/// The `reason` where k3s has another store.
const SQLITE: &str = "no etcd: k3s keeps its state in sqlite";
/// The `reason` where only the page is read.
const NO_CERTIFICATE: &str = "no client certificate of etcd: members and quorum margin are unknown";
/// The `reason` where the page is not there.
pub const NO_PAGE: &str = "the page of metrics of this node's member does not answer";
/// The `reason` where somebody else serves the page.
pub const FOREIGN_PAGE: &str = "what serves the page of metrics is not etcd";
/// The `reason` where there should be etcd.
const NOT_RUNNING: &str = "etcd does not run, or does not listen where it should";

/// What is known, shared between the task that asks and the collector.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<State>>);

impl Known {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The phrase for why there is no etcd.
#[must_use]
pub const fn absence(absence: Absence) -> &'static str {
    match absence {
        Absence::Nothing => NONE,
        Absence::Sqlite => SQLITE,
    }
}

/// The phrase for why nobody answers.
const fn reason(cause: &Cause) -> &'static str {
    match cause {
        Cause::Refused | Cause::Closed => NOT_RUNNING,
        Cause::Late(_) => "etcd does not answer in time",
        Cause::Unreachable(_) => "no way leads to etcd, see the log",
        Cause::OtherCa => "the certificate of etcd was signed by another CA",
        Cause::OtherName => "the certificate of etcd is not for its address",
        Cause::ServerExpired => "the certificate of etcd has expired",
        Cause::ClientRefused(_) => "etcd refuses the client certificate: expired, or signed by another CA",
        Cause::Credentials(_) => "the client certificate of etcd cannot be used, see the log",
        Cause::Tls(_) => "TLS with etcd fails, see the log",
        Cause::OtherMember => "another member of etcd answers at an address, see the log",
        Cause::Unserved(_) | Cause::Denied | Cause::Other(_) => "etcd cannot be asked, see the log",
    }
}

/// How far a round tells what there is to tell.
fn support(round: &Round) -> Support {
    let has_answered = round.answers.values().any(|answer| answer.status.is_ok());
    let failures = round
        .strangers
        .iter()
        .chain(round.answers.values().filter_map(|answer| answer.status.as_ref().err()));
    match (&round.page, has_answered) {
        (Err(reason), true) if round.expects_page => Support::Degraded(reason),
        (_, true) => Support::Yes,
        (Ok(_), false) if !round.is_client => Support::Degraded(NO_CERTIFICATE),
        (_, false) => {
            // What must be mended by hand goes before what may pass.
            let worst = failures.max_by_key(|error| error.cause.is_lasting());
            Support::Degraded(worst.map_or(NOT_RUNNING, |error| reason(&error.cause)))
        }
    }
}

/// What the connections of watched ports have counted, whenever asked.
pub type Ports = Box<dyn Fn() -> Vec<PortCount> + Send + Sync>;

/// The collector.
pub struct Etcd {
    known: Known,
    ports: Option<Ports>,
}

impl Etcd {
    /// A collector of what is known. Without `ports` nothing is said of the wire.
    #[must_use]
    pub fn new(known: Known, ports: Option<Ports>) -> Self {
        Self { known, ports }
    }
}

impl Collector for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        match self.known.lock().sight() {
            Sight::Unknown => Support::No(NOT_LOOKED),
            Sight::Absent(reason) => Support::No(reason),
            Sight::Seen(round) => support(round),
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let state = self.known.lock();
        if let Sight::Seen(round) = state.sight() {
            let counts = self.ports.as_ref().map(|read| read()).unwrap_or_default();
            write::write(&state, round, &counts, sink);
        }
        Ok(())
    }
}
