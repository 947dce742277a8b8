//! What boards and rules have in a state of the cluster: something wherever it says so, and nothing anywhere else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::showcase::Event;
use lab::{Prometheus, Showcase, wait_until};
use serde_json::Value;

use crate::boards::board::{Asked, Board};

/// For what is scraped every five seconds and looked back on for thirty.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);

/// The least that a board shows: the windows of its rates.
pub(crate) const LEAST: Duration = Duration::from_secs(30);

/// What shows nothing in all states: no path, tunnel or key breaks or is narrow, no node offers a route, no agent begins
/// anew.
const QUIET: &[&str] = &[
    "Agent restarts",
    "Unreachable paths, A",
    "Black holes, A",
    "Sent again and refused, C",
    "MTU that routers tell, A",
    "Nested, A",
    "One way, A",
    "Routes, A",
    "Keys of peers that have ended, A",
];

/// What follows from healing is seen within so long: three scrapes.
const SETTLED: Duration = Duration::from_secs(15);

/// A state, and what is then seen.
pub(crate) struct State {
    pub(crate) name: &'static str,
    /// What makes it; nothing for what there is at the beginning.
    pub(crate) by: &'static [Event],
    /// The word for each layer of the overview.
    pub(crate) words: &'static [(&'static str, &'static str)],
    /// The queries that have nothing to show beside [`QUIET`], by panel and letter. All others have something.
    pub(crate) empty: &'static [&'static str],
    /// The alerts whose expressions are true. Those of all others are not.
    pub(crate) alerts: &'static [&'static str],
}

impl State {
    /// Makes it, and holds the boards and rules of every Prometheus against it.
    pub(crate) fn check(
        &self,
        showcase: &mut Showcase,
        more: &[&Prometheus],
        boards: &[Board],
    ) -> Result<()> {
        let began = Instant::now();
        self.by.iter().try_for_each(|event| showcase.happen(*event))?;
        for prometheus in more.iter().copied().chain([&showcase.prometheus]) {
            let version = prometheus.version()?;
            self.check_on(prometheus, boards, began)
                .with_context(|| format!("{}, Prometheus {version}", self.name))?;
        }
        Ok(())
    }

    fn check_on(&self, prometheus: &Prometheus, boards: &[Board], began: Instant) -> Result<()> {
        self.wait_words(prometheus, &boards[0])?;
        self.wait_alerts(prometheus)?;
        let asked = boards.iter().map(Board::asked).collect::<Result<Vec<_>>>()?.concat();
        let nothing = [QUIET, self.empty].concat();
        let unknown = nothing.iter().find(|name| asked.iter().all(|one| !is_called(one, name)));
        ensure!(unknown.is_none(), "no board has the query {unknown:?}");
        let (empty, filled): (Vec<_>, Vec<_>) =
            asked.iter().partition(|one| nothing.iter().any(|name| is_called(one, name)));
        wait_filled(prometheus, &filled, began)?;
        for one in empty {
            let series = one.series(prometheus, since(began))?;
            ensure!(series == 0, "{} has {series} series, and nothing happened that it shows", one.name);
        }
        Ok(())
    }

    fn wait_words(&self, prometheus: &Prometheus, overview: &Board) -> Result<()> {
        let mut last = Vec::new();
        let waited = wait_until(&format!("the words to be {:?}", self.words), LIMIT, || {
            last = self.words.iter().map(|(panel, _)| overview.word(prometheus, panel)).collect();
            let now = self.words.iter().zip(&last);
            now.into_iter().all(|((_, wanted), now)| now.as_ref().is_ok_and(|now| now == wanted))
        });
        waited.with_context(|| format!("last seen: {last:?}"))
    }

    fn wait_alerts(&self, prometheus: &Prometheus) -> Result<()> {
        let rules = prometheus.rules()?;
        let wanted: BTreeSet<&str> = self.alerts.iter().copied().collect();
        let mut last = Ok(BTreeSet::new());
        let waited = wait_until(&format!("just {wanted:?} to be true"), LIMIT, || {
            last = rules.iter().filter_map(|rule| is_true(prometheus, rule).transpose()).collect();
            last.as_ref().is_ok_and(|now: &BTreeSet<String>| now.iter().eq(&wanted))
        });
        waited.with_context(|| format!("last seen: {last:?}"))
    }
}

/// Whether a query has that name on whichever board.
fn is_called(asked: &Asked, name: &str) -> bool {
    asked.name.split_once(", ").is_some_and(|(_, rest)| rest == name)
}

/// The name of an alert whose expression has a result.
fn is_true(prometheus: &Prometheus, rule: &Value) -> Result<Option<String>> {
    let text = |key: &str| rule[key].as_str().with_context(|| format!("no {key} in {rule:#}"));
    let series = prometheus.query(text("query")?).with_context(|| format!("{rule:#}"))?;
    Ok((!series.is_empty()).then_some(text("name")?.to_owned()))
}

/// Waits until every query has had something to show since then.
fn wait_filled(prometheus: &Prometheus, asked: &[&Asked], began: Instant) -> Result<()> {
    let (mut pending, mut failed, mut series) = (asked.to_vec(), None, 0);
    let waited = wait_until("every panel to have something to show", LIMIT, || {
        pending.retain(|one| match one.series(prometheus, since(began)) {
            Ok(found) => {
                series += found;
                found == 0
            }
            Err(error) => {
                failed.get_or_insert(error);
                true
            }
        });
        pending.is_empty() || failed.is_some()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let names = || pending.iter().map(|one| format!("{}: {}", one.name, one.expression)).collect::<Vec<_>>();
    waited.with_context(|| format!("nothing to show: {:#?}", names()))?;
    println!("{} queries have {series} series after {:?}", asked.len(), began.elapsed());
    Ok(())
}

/// Waits until all is well again, and no panel looks back on what has happened.
pub(crate) fn heal(showcase: &mut Showcase, boards: &[Board]) -> Result<()> {
    showcase.happen(Event::Heal)?;
    let (marks, prometheus) = (boards[0].marks()?, &showcase.prometheus);
    let mut since = Instant::now();
    wait_until("nothing to happen any more", LIMIT, || {
        let is_well = ["Virtual addresses", "Quorum"]
            .iter()
            .all(|layer| boards[0].word(prometheus, layer).is_ok_and(|word| word == "healthy"));
        let is_quiet = |mark: &String| prometheus.query(mark).is_ok_and(|series| series.is_empty());
        if !is_well || !marks.iter().all(is_quiet) {
            since = Instant::now();
        }
        since.elapsed() >= SETTLED
    })
}

/// The time that a board shows.
fn since(began: Instant) -> Duration {
    began.elapsed().max(LEAST)
}
