//! What each component has said last, and what changed. Pure: reports with their times in, events out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::events;
use super::trouble::{Sign, Trouble};
use crate::event::{Occurrence, Timestamp};
use crate::source::control_plane::{Checks, Failure, Found, Outcome, Report, Target};

/// When something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the agent began to ask.
    pub now: Duration,
    /// By the clock of this node.
    pub time: Timestamp,
}

/// A component that is asked.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// Whether something on this node speaks for it.
    is_spoken_for: bool,
    has_answered: bool,
    last: Option<Report>,
    /// The checks that it listed last, for as long as it answers.
    pub(super) checks: Checks,
    /// How long its last answer took.
    pub(super) took: Option<Duration>,
    /// When that was.
    pub(super) answered: Option<Timestamp>,
    down: Trouble,
    unready: Trouble,
}

impl Watched {
    /// Whether there is a component to speak of.
    const fn is_known(&self) -> bool {
        self.is_spoken_for || self.has_answered
    }

    /// Whether it lives; none before it was asked.
    pub(super) fn is_alive(&self) -> Option<bool> {
        self.last.as_ref().map(Report::is_alive)
    }

    /// Whether it is ready; none where that is not known.
    pub(super) fn is_ready(&self) -> Option<bool> {
        self.last.as_ref().and_then(Report::is_ready)
    }

    /// What is wrong with it.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.last.as_ref().and_then(Report::failure)
    }

    fn observe(&mut self, target: &Target, report: &Report, at: Moment) -> Vec<Occurrence> {
        self.has_answered |= report.is_kubernetes;
        if let Some(took) = report.took {
            self.took = Some(took);
            self.answered = Some(at.time);
        }
        match &report.checks {
            Some(checks) => self.checks.clone_from(checks),
            None if !report.has_answered() => self.checks.clear(),
            // Of those that were listed last some may be told with its health.
            None => {
                for (name, passes) in report.health_checks.iter().flatten() {
                    if let Some(known) = self.checks.get_mut(name) {
                        *known = *passes;
                    }
                }
            }
        }
        self.last = Some(report.clone());
        if self.is_known() { self.news(target, report, at) } else { Vec::new() }
    }

    fn news(&mut self, target: &Target, report: &Report, at: Moment) -> Vec<Occurrence> {
        let health = if report.is_alive() { Sign::Good } else { sign(report.health) };
        let down = self.down.observe(health, at).map(|turn| events::of_life(target, report, &turn));
        // Who does not answer is not ready either: that needs no event of its own.
        let readiness = report.readiness.filter(|_| report.has_answered() && report.is_ready().is_some());
        let unready = readiness.and_then(|readiness| self.unready.observe(sign(readiness), at));
        let unready = unready.map(|turn| events::of_readiness(target, report, &turn));
        down.into_iter().chain(unready).collect()
    }
}

/// An answer that is late once may have met a busy machine.
const fn sign(outcome: Outcome) -> Sign {
    match outcome {
        Ok(()) => Sign::Good,
        Err(Failure::Late) => Sign::Doubtful,
        Err(_) => Sign::Bad,
    }
}

/// All components that are asked.
#[derive(Debug, Default)]
pub struct State {
    watched: BTreeMap<Target, Watched>,
    has_followed: bool,
}

impl State {
    /// What is asked from now on. The rest is forgotten.
    pub fn follow(&mut self, found: &Found) {
        self.has_followed = true;
        self.watched.retain(|target, _| found.contains_key(target));
        for (target, is_spoken_for) in found {
            self.watched.entry(*target).or_default().is_spoken_for = *is_spoken_for;
        }
    }

    /// What a component has said, or that it has not. One that is not asked any more has no events.
    pub fn observe(&mut self, target: &Target, report: &Report, at: Moment) -> Vec<Occurrence> {
        self.watched.get_mut(target).map(|watched| watched.observe(target, report, at)).unwrap_or_default()
    }

    /// Whether there is a component to speak of.
    #[must_use]
    pub fn is_known(&self, target: &Target) -> bool {
        self.watched.get(target).is_some_and(Watched::is_known)
    }

    /// Whether each was asked at least once.
    pub(super) fn has_looked(&self) -> bool {
        self.has_followed && self.watched.values().all(|watched| watched.last.is_some())
    }

    /// The components of which there is something to say.
    pub(super) fn known(&self) -> impl Iterator<Item = (&Target, &Watched)> {
        self.watched.iter().filter(|(_, watched)| watched.is_known())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::source::control_plane::Component;

    fn target() -> Target {
        Target { component: Component::ApiServer, address: "127.0.0.1:6443".parse().unwrap() }
    }

    fn report(health: Outcome, readiness: Outcome, checks: &[(&str, bool)]) -> Report {
        let checks: Checks = checks.iter().map(|(name, passes)| ((*name).to_owned(), *passes)).collect();
        let has_answered = matches!(health, Ok(()) | Err(Failure::Forbidden | Failure::Status));
        Report {
            health,
            readiness: Some(readiness),
            checks: Some(checks).filter(|checks| !checks.is_empty()),
            health_checks: None,
            took: has_answered.then_some(Duration::from_millis(5)),
            is_kubernetes: has_answered,
        }
    }

    fn healthy() -> Report {
        report(Ok(()), Ok(()), &[("etcd", true), ("ping", true)])
    }

    fn silent(failure: Failure) -> Report {
        report(Err(failure), Err(failure), &[])
    }

    struct Stage {
        state: State,
        second: u64,
    }

    impl Stage {
        fn new(speaks: bool) -> Self {
            let mut state = State::default();
            state.follow(&Found::from([(target(), speaks)]));
            Self { state, second: 0 }
        }

        fn sees(&mut self, report: &Report) -> Vec<Occurrence> {
            self.second += 1;
            let now = Duration::from_secs(self.second);
            let time = Timestamp::from_unix_nanos(self.second * 1_000_000_000);
            self.state.observe(&target(), report, Moment { now, time })
        }

        fn kinds(&mut self, report: &Report) -> Vec<Kind> {
            self.sees(report).into_iter().map(|event| event.kind).collect()
        }

        fn watched(&self) -> &Watched {
            &self.state.watched[&target()]
        }
    }

    #[test]
    fn a_store_that_is_lost_makes_it_unready_and_names_the_check() {
        let mut stage = Stage::new(true);
        assert!(stage.sees(&healthy()).is_empty());
        let unready = report(Ok(()), Err(Failure::Status), &[("etcd", false), ("ping", true)]);
        let events = stage.sees(&unready);
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].kind, events[0].subject.as_str()),
            (Kind::ControlPlaneUnready, "kube_apiserver")
        );
        assert_eq!(events[0].details["failing"], "etcd");
        assert_eq!(events[0].details["reason"], "status");
        assert!(stage.sees(&unready).is_empty());
        let events = stage.sees(&healthy());
        assert_eq!((events.len(), events[0].kind), (1, Kind::ControlPlaneReady));
        assert_eq!(events[0].details["lasted_ms"], "2000.000");
    }

    #[test]
    fn a_server_that_answers_and_is_not_well_is_unready_as_well() {
        let mut stage = Stage::new(true);
        stage.sees(&healthy());
        let checks = [("etcd", false), ("etcd-readiness", false), ("ping", true)];
        let mut unwell = report(Err(Failure::Status), Err(Failure::Status), &checks);
        unwell.health_checks = Some(Checks::from([("etcd".to_owned(), false)]));
        let events = stage.sees(&unwell);
        let told: Vec<_> =
            events.iter().map(|event| (event.kind, event.details["failing"].as_str())).collect();
        assert_eq!(
            told,
            [(Kind::ControlPlaneDown, "etcd"), (Kind::ControlPlaneUnready, "etcd,etcd-readiness")]
        );
        assert_eq!(stage.watched().checks.len(), 3);
        assert_eq!(stage.kinds(&healthy()), [Kind::ControlPlaneUp, Kind::ControlPlaneReady]);
    }

    #[test]
    fn a_refusal_is_news_at_once_and_a_late_answer_at_the_second() {
        let mut stage = Stage::new(true);
        stage.sees(&healthy());
        assert_eq!(stage.kinds(&silent(Failure::Refused)), [Kind::ControlPlaneDown]);
        assert_eq!(stage.kinds(&healthy()), [Kind::ControlPlaneUp]);
        let mut stage = Stage::new(true);
        stage.sees(&healthy());
        assert!(stage.sees(&silent(Failure::Late)).is_empty());
        assert!(stage.sees(&healthy()).is_empty());
        assert!(stage.sees(&silent(Failure::Late)).is_empty());
        let events = stage.sees(&silent(Failure::Late));
        assert_eq!((events.len(), events[0].kind), (1, Kind::ControlPlaneDown));
        // Of the time of the first of the two.
        assert_eq!(events[0].time.unix_nanos(), 4_000_000_000);
    }

    #[test]
    fn checks_stay_while_it_answers_and_no_longer() {
        let mut stage = Stage::new(true);
        stage.sees(&healthy());
        stage.sees(&report(Ok(()), Err(Failure::Late), &[]));
        assert_eq!(stage.watched().checks, healthy().checks.unwrap());
        let mut unwell = report(Err(Failure::Status), Err(Failure::Late), &[]);
        unwell.health_checks = Some(Checks::from([("etcd".to_owned(), false)]));
        stage.sees(&unwell);
        let expected = [("etcd".to_owned(), false), ("ping".to_owned(), true)];
        assert_eq!(stage.watched().checks, expected.into());
        stage.sees(&silent(Failure::Refused));
        assert!(stage.watched().checks.is_empty());
        assert!(stage.watched().answered.is_some() && stage.watched().took.is_some());
    }

    #[test]
    fn what_nothing_speaks_for_is_unknown_until_it_answers() {
        let mut stage = Stage::new(false);
        assert!(stage.sees(&silent(Failure::Refused)).is_empty());
        assert!(stage.state.known().next().is_none() && stage.state.has_looked());
        stage.sees(&healthy());
        assert!(stage.state.is_known(&target()));
        assert_eq!(stage.kinds(&silent(Failure::Refused)), [Kind::ControlPlaneDown]);
        assert_eq!(stage.watched().is_alive(), Some(false));
    }

    #[test]
    fn who_keeps_strangers_out_is_neither_ready_nor_unready() {
        let mut stage = Stage::new(true);
        stage.sees(&healthy());
        let forbidden = report(Err(Failure::Forbidden), Err(Failure::Forbidden), &[]);
        assert!(stage.sees(&forbidden).is_empty());
        assert_eq!((stage.watched().is_alive(), stage.watched().is_ready()), (Some(true), None));
    }

    #[test]
    fn what_is_not_asked_any_more_is_forgotten() {
        let mut stage = Stage::new(true);
        stage.sees(&healthy());
        stage.state.follow(&Found::new());
        assert!(stage.sees(&silent(Failure::Refused)).is_empty());
        assert!(!stage.state.is_known(&target()));
    }
}
