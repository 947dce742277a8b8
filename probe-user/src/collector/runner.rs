//! Runs the collectors for one page: times them, catches what they throw, leaves out the series of those that failed,
//! and says so. One collector never spoils the page of another.

mod descriptor;
mod spare;

pub use descriptor::DESCRIPTORS;

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use descriptor::{DURATION, LIMITED, REJECTED, SUCCESS, SUPPORT};
use spare::Spare;

use super::{CollectError, Collector, Support};
use crate::metric::{
    Descriptor, Format, Value,
    sink::{DEFAULT_MAX_SERIES, Sink, Tally},
};

/// Bounds of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Label sets per family before the rest is folded.
    pub max_series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_series: DEFAULT_MAX_SERIES }
    }
}

/// Runs a fixed set of collectors.
pub struct Runner {
    collectors: Vec<Arc<dyn Collector>>,
    limits: Limits,
    state: Mutex<State>,
    /// Size of the last page and some more: growing the buffer step by step would copy the page several times.
    size_hint: AtomicUsize,
    spare: Spare,
}

/// How a collector fares, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Name of the collector.
    pub name: &'static str,
    /// How far it can work here.
    pub support: Support,
    /// Why its last run failed.
    pub failure: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    /// Why each collector that fails now does.
    failures: BTreeMap<&'static str, String>,
    rejected: BTreeMap<&'static str, u64>,
    limited: BTreeMap<&'static str, u64>,
}

/// What one collector did for one page.
struct Run {
    name: &'static str,
    support: Support,
    /// `None` when it was not run.
    outcome: Option<Result<Duration, (Duration, String)>>,
}

impl Runner {
    /// A runner over these collectors, in this order on the page.
    #[must_use]
    pub fn new(collectors: Vec<Arc<dyn Collector>>, limits: Limits) -> Self {
        let state = Mutex::new(State::known(&collectors));
        Self { collectors, limits, state, size_hint: AtomicUsize::new(0), spare: Spare::default() }
    }

    /// Collects and renders one page. Does no I/O of its own, but takes as long as the collectors do: call it where
    /// blocking is allowed.
    #[must_use]
    pub fn scrape(&self, format: Format) -> Vec<u8> {
        let mut page = self.spare.take();
        page.reserve(self.size_hint.load(Ordering::Relaxed));
        let mut sink = Sink::new(&mut page, format).with_max_series(self.limits.max_series);
        let runs: Vec<Run> =
            self.collectors.iter().map(|collector| self.run(collector.as_ref(), &mut sink)).collect();
        sink.lift_cap();
        self.write_runs(&runs, &mut sink);
        self.write_totals(&mut sink);
        sink.finish();
        self.size_hint.store(page.len() + page.len() / 16, Ordering::Relaxed);
        page
    }

    /// Takes back the memory of a page that nobody reads any more, for the next one.
    pub fn recycle(&self, page: Vec<u8>) {
        self.spare.put(page);
    }

    /// How the collectors fare, without running them.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let failures = self.lock().failures.clone();
        let status = |collector: &Arc<dyn Collector>| {
            let name = collector.name();
            let support = guard(|| Ok(collector.support())).unwrap_or(Support::No("support check failed"));
            Status { name, support, failure: failures.get(name).cloned() }
        };
        self.collectors.iter().map(status).collect()
    }

    /// Every family on the page by collector, in page order.
    #[must_use]
    pub fn catalogue(&self) -> Vec<(&'static str, &'static [&'static Descriptor])> {
        let own = ("runner", DESCRIPTORS);
        self.collectors
            .iter()
            .map(|collector| (collector.name(), collector.descriptors()))
            .chain([own])
            .collect()
    }

    fn run(&self, collector: &dyn Collector, sink: &mut Sink<'_>) -> Run {
        let name = collector.name();
        let support = match guard(|| Ok(collector.support())) {
            Ok(support) => support,
            Err(cause) => {
                self.note_outcome(name, Some(&cause));
                let support = Support::Degraded("support check failed");
                return Run { name, support, outcome: Some(Err((Duration::ZERO, cause))) };
            }
        };
        if matches!(support, Support::No(_)) {
            return Run { name, support, outcome: None };
        }
        let mark = sink.mark();
        let before = sink.tally().rejected;
        let start = Instant::now();
        let result = guard(|| collector.collect(sink));
        let took = start.elapsed();
        self.note_tally(name, before, sink.tally());
        if result.is_err() {
            sink.rollback(mark);
        }
        self.note_outcome(name, result.as_ref().err());
        Run { name, support, outcome: Some(result.map(|()| took).map_err(|cause| (took, cause))) }
    }

    fn note_tally(&self, name: &'static str, rejected_before: u64, tally: &Tally) {
        *self.lock().rejected.entry(name).or_default() += tally.rejected - rejected_before;
    }

    /// Remembers how a run ended and logs when that changed: a broken collector would otherwise fill the log.
    fn note_outcome(&self, name: &'static str, cause: Option<&String>) {
        let mut state = self.lock();
        let before = match cause {
            Some(cause) => state.failures.insert(name, cause.clone()),
            None => state.failures.remove(name),
        };
        drop(state);
        match (before, cause) {
            (None, Some(cause)) => tracing::warn!(collector = name, err = cause, "Collector failed."),
            (Some(_), None) => tracing::info!(collector = name, "Collector works again."),
            _ => {}
        }
    }

    fn write_runs(&self, runs: &[Run], sink: &mut Sink<'_>) {
        let outcomes =
            || runs.iter().filter_map(|run| run.outcome.as_ref().map(|outcome| (run.name, outcome)));
        let mut family = sink.family(&SUCCESS);
        for (name, outcome) in outcomes() {
            family.value(&[name], Value::Integer(u64::from(outcome.is_ok())));
        }
        let mut family = sink.family(&DURATION);
        for (name, outcome) in outcomes() {
            let (Ok(took) | Err((took, _))) = outcome;
            family.value(&[name], Value::Float(took.as_secs_f64()));
        }
        let mut family = sink.family(&SUPPORT);
        for run in runs {
            let (level, reason) = describe(&run.support);
            family.value(&[run.name, level, reason], Value::Integer(1));
        }
        let mut family = sink.family(&REJECTED);
        for (name, count) in &self.lock().rejected {
            family.value(&[name], Value::Integer(*count));
        }
    }

    /// What the collectors had folded on this page is counted in on the same page.
    fn write_totals(&self, sink: &mut Sink<'_>) {
        let mut state = self.lock();
        for (metric, count) in &sink.tally().folded {
            *state.limited.entry(metric).or_default() += count;
        }
        let mut family = sink.family(&LIMITED);
        for (metric, count) in &state.limited {
            family.value(&[metric], Value::Integer(*count));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everything known in advance stands at 0, so that `increase()` sees the first change.
    fn known(collectors: &[Arc<dyn Collector>]) -> Self {
        let descriptors = collectors.iter().flat_map(|collector| collector.descriptors());
        let labelled = descriptors.filter(|descriptor| !descriptor.labels.is_empty());
        Self {
            failures: BTreeMap::new(),
            rejected: collectors.iter().map(|collector| (collector.name(), 0)).collect(),
            limited: labelled.map(|descriptor| (descriptor.name, 0)).collect(),
        }
    }
}

/// Level and reason as exported.
#[must_use]
pub fn describe(support: &Support) -> (&'static str, &'static str) {
    match support {
        Support::Yes => ("supported", ""),
        Support::Degraded(reason) => ("degraded", reason),
        Support::No(reason) => ("no", reason),
    }
}

/// Calls a collector; a panic is one more way to fail. Nothing of the agent's is left half changed by one: the sink
/// is rolled back, and a collector answers for its own state.
fn guard<T>(call: impl FnOnce() -> Result<T, CollectError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| render_chain(&error)),
        Err(payload) => Err(format!("panicked: {}", panic_text(payload.as_ref()))),
    }
}

fn render_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests;
