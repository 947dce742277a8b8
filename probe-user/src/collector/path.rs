//! Paths between nodes: round trips, jitter and loss by direction on each layer, from a mesh of STAMP probes (RFC 8762)
//! that all agents send each other.
//!
//! The same pair of nodes is measured on every layer that joins them, so that what is slow has a name.

mod descriptor;
mod flight;
pub mod mtu;
pub mod plan;
pub mod reflector;
pub mod reply;
pub mod ride;
pub mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::descriptor::DESCRIPTORS;
pub use self::flight::{Direction, Discard};
use self::mtu::Mtus;
use self::plan::PathKey;
use self::reflector::{Reflector, Verdict};
use self::ride::Rides;
use self::state::{Ignored, Path, State};
use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};

/// The `reason` where there is nobody to probe.
const NO_NODES: &str = "no other node is known";
/// The `reason` where others do it.
const OTHERS: &str = "other nodes probe the other nodes";
/// The `reason` where nobody answers.
const NO_ANSWER: &str = "no probe of another node was answered";

/// What was probed and what was answered, shared between the tasks and the collector.
#[derive(Clone, Debug)]
pub struct Paths {
    state: Arc<Mutex<State>>,
    reflector: Arc<Mutex<Reflector>>,
    rides: Arc<Mutex<Rides>>,
    mtus: Arc<Mutex<Mtus>>,
}

impl Paths {
    /// No path yet, of which each is probed at that interval.
    #[must_use]
    pub fn new(reflector: Reflector, interval: Duration) -> Self {
        Self {
            mtus: Arc::new(Mutex::new(Mtus::new(interval))),
            state: Arc::default(),
            reflector: Arc::new(Mutex::new(reflector)),
            rides: Arc::default(),
        }
    }

    /// The paths, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the paths ride on, locked.
    pub fn rides(&self) -> MutexGuard<'_, Rides> {
        self.rides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which sizes pass, locked.
    pub fn mtus(&self) -> MutexGuard<'_, Mtus> {
        self.mtus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reflector, locked.
    pub fn reflector(&self) -> MutexGuard<'_, Reflector> {
        self.reflector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The collector.
pub struct PathCollector(Paths);

impl PathCollector {
    /// A collector of what was probed.
    #[must_use]
    pub const fn new(paths: Paths) -> Self {
        Self(paths)
    }
}

impl Collector for PathCollector {
    fn name(&self) -> &'static str {
        "path"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        let state = self.0.lock();
        let is_answered = state.paths().any(|(_, path)| path.is_reachable == Some(true));
        match (state.paths().len(), state.has_nodes) {
            (0, false) => Support::No(NO_NODES),
            (0, true) => Support::No(OTHERS),
            _ if is_answered => Support::Yes,
            _ => Support::Degraded(NO_ANSWER),
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let answered = self.0.reflector().counts();
        write_rides(sink, &self.0.rides());
        write_mtus(sink, &self.0.mtus());
        let state = self.0.lock();
        if !state.has_nodes {
            return Ok(());
        }
        let rows: Vec<Row<'_>> = state.paths().map(|(key, path)| Row { key, path }).collect();
        write_rtt(sink, &rows);
        write_probes(sink, &rows);
        write_order(sink, &rows);
        let mut family = sink.family(&descriptor::IGNORED);
        for (reason, count) in Ignored::ALL.iter().zip(state.ignored) {
            family.value(&[reason.as_str()], Value::Integer(count));
        }
        let mut family = sink.family(&descriptor::REQUESTS);
        for (verdict, count) in Verdict::ALL.iter().zip(answered) {
            family.value(&[verdict.as_str()], Value::Integer(count));
        }
        Ok(())
    }
}

fn write_rides(sink: &mut Sink<'_>, rides: &Rides) {
    let mut family = sink.family(&descriptor::DEVICE);
    for (key, ride) in rides.iter() {
        if let Some(device) = &ride.device {
            let carrier = ride.carrier.as_deref().unwrap_or_default();
            family.value(&[&key.peer, key.layer.as_str(), device, carrier], Value::Integer(1));
        }
    }
    let mut family = sink.family(&descriptor::NESTED);
    for (key, ride) in rides.iter() {
        if let Some(is_nested) = ride.is_nested {
            family.value(&[&key.peer, key.layer.as_str()], Value::Integer(is_nested.into()));
        }
    }
    let mut family = sink.family(&descriptor::FITTING_MTU);
    for (key, ride) in rides.iter() {
        if let Some(bytes) = ride.fitting_mtu {
            family.value(&[&key.peer, key.layer.as_str()], Value::Integer(bytes.into()));
        }
    }
}

fn write_mtus(sink: &mut Sink<'_>, mtus: &Mtus) {
    let mut family = sink.family(&descriptor::PROMISED_MTU);
    for (key, sizes) in mtus.iter() {
        family.value(&[&key.peer, key.layer.as_str()], Value::Integer(sizes.promised.into()));
    }
    let mut family = sink.family(&descriptor::MTU);
    for (key, sizes) in mtus.iter() {
        if let Some(passes) = sizes.passes {
            family.value(&[&key.peer, key.layer.as_str()], Value::Integer(passes.into()));
        }
    }
    let mut family = sink.family(&descriptor::BLACK_HOLE);
    for (key, sizes) in mtus.iter() {
        if let Some(is_hole) = sizes.is_hole {
            family.value(&[&key.peer, key.layer.as_str()], Value::Integer(is_hole.into()));
        }
    }
}

struct Row<'a> {
    key: &'a PathKey,
    path: &'a Path,
}

impl<'a> Row<'a> {
    fn labels(&self) -> [&'a str; 2] {
        [&self.key.peer, self.key.layer.as_str()]
    }

    fn with(&self, more: &'a str) -> [&'a str; 3] {
        let [peer, layer] = self.labels();
        [peer, layer, more]
    }
}

fn write_rtt(sink: &mut Sink<'_>, rows: &[Row<'_>]) {
    let mut family = sink.family(&descriptor::RTT);
    for row in rows {
        family.histogram(&row.labels(), &row.path.rtt.buckets());
    }
    let mut family = sink.family(&descriptor::MEDIAN);
    for row in rows {
        if let Some(median) = row.path.median() {
            family.value(&row.labels(), Value::Float(median));
        }
    }
    let mut family = sink.family(&descriptor::JITTER);
    for row in rows {
        let ways = row.path.jitter().into_iter().flat_map(|ways| Direction::ALL.into_iter().zip(ways));
        for (direction, jitter) in ways {
            family.value(&row.with(direction.as_str()), Value::Float(jitter));
        }
    }
}

fn write_probes(sink: &mut Sink<'_>, rows: &[Row<'_>]) {
    let mut family = sink.family(&descriptor::REACHABLE);
    for row in rows {
        if let Some(is_reachable) = row.path.is_reachable {
            family.value(&row.labels(), Value::Integer(is_reachable.into()));
        }
    }
    let mut family = sink.family(&descriptor::SENT);
    for row in rows {
        family.value(&row.labels(), Value::Integer(row.path.sent));
    }
    let mut family = sink.family(&descriptor::LOST);
    for row in rows {
        let told = Direction::ALL.iter().zip(row.path.lost);
        // Of a reflector that does not count, 0 in a direction would say that nothing was lost there.
        for (direction, count) in told.filter(|(way, _)| **way == Direction::Unknown || row.path.is_counted) {
            family.value(&row.with(direction.as_str()), Value::Integer(count));
        }
    }
    let mut family = sink.family(&descriptor::DISCARDED);
    for row in rows {
        for (reason, count) in Discard::ALL.iter().zip(row.path.discarded) {
            family.value(&row.with(reason.as_str()), Value::Integer(count));
        }
    }
}

fn write_order(sink: &mut Sink<'_>, rows: &[Row<'_>]) {
    let mut family = sink.family(&descriptor::REORDERED);
    for row in rows {
        family.value(&row.labels(), Value::Integer(row.path.reordered));
    }
    let mut family = sink.family(&descriptor::DUPLICATES);
    for row in rows {
        family.value(&row.labels(), Value::Integer(row.path.duplicates));
    }
}
