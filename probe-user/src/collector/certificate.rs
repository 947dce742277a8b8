//! Certificates of Kubernetes and etcd on this node: until when they are good, in files and as servers show them, and
//! whether a server still shows what its file has no more.
//!
//! A task of the agent reads and asks, and puts here what it found. `judge` compares one server with the files, `state`
//! one moment with the last.

mod descriptor;
mod judge;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::descriptor::DESCRIPTORS;
pub use self::state::{Served, State};
use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};
use crate::source::certificate::Certificate;

/// The `reason` before the first look.
const NOT_LOOKED: &str = "certificates are still being looked for";
/// The `reason` where there is none.
const NONE: &str = "no certificate of Kubernetes or etcd on this node";
/// The `reason` where files refuse.
const UNREADABLE: &str = "some certificates cannot be read, see the log";
/// The `reason` where there are too many files.
const OMITTED: &str = "more files with certificates than are read";

/// What is known, shared between the task that looks and the collector.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<State>>);

impl Known {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The collector.
#[derive(Debug)]
pub struct Certificates {
    known: Known,
}

impl Certificates {
    /// A collector of what is known.
    #[must_use]
    pub const fn new(known: Known) -> Self {
        Self { known }
    }
}

/// A family, and which time of a certificate it shows.
type Column = (&'static Descriptor, fn(&Certificate) -> u64);

impl Collector for Certificates {
    fn name(&self) -> &'static str {
        "certificate"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        let state = self.known.lock();
        match state.has_looked() {
            false => Support::No(NOT_LOOKED),
            true if state.omitted() > 0 => Support::Degraded(OMITTED),
            true if state.unreadable() > 0 => Support::Degraded(UNREADABLE),
            true if state.shown().next().is_none() => Support::No(NONE),
            true => Support::Yes,
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let state = self.known.lock();
        if state.shown().next().is_none() && state.omitted() == 0 {
            return Ok(());
        }
        let columns: [Column; 2] = [
            (&descriptor::NOT_AFTER, |certificate| certificate.not_after),
            (&descriptor::NOT_BEFORE, |certificate| certificate.not_before),
        ];
        for (descriptor, read) in columns {
            let mut family = sink.family(descriptor);
            for (location, purpose, certificate) in state.shown() {
                family.value(&[purpose.as_str(), &location], Value::Integer(read(certificate)));
            }
        }
        let mut family = sink.family(&descriptor::STALE);
        for (served, is_stale) in state.judged() {
            let labels = [served.purpose().as_str(), &served.address.to_string()];
            family.value(&labels, Value::Integer(is_stale.into()));
        }
        sink.family(&descriptor::OMITTED).value(&[], Value::Integer(state.omitted()));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
