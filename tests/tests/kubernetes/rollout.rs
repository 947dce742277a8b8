//! How long a node is without an agent that answers, while all of them are replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Node, Place as _};

use super::manifests::page;

/// How often every agent is scraped.
const PERIOD: Duration = Duration::from_millis(250);
/// What a pod may take to be replaced on a busy machine. The kubelet waits 30 s for one that does not end by itself.
const LIMIT: Duration = Duration::from_secs(25);

/// One scrape: when it began and ended, and whether there was an answer.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    begun: Instant,
    ended: Instant,
    is_answered: bool,
}

/// Scrapes of one node in a row without an answer.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// From the first to the last of them.
    failed: [Instant; 2],
    /// From the last answer before to the first one after.
    between: Duration,
}

/// Scrapes the agent of a node again and again.
fn scrape_until(node: &Node, is_over: &AtomicBool) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    while !is_over.load(Ordering::Acquire) {
        let begun = Instant::now();
        let is_answered = page(node).is_ok();
        attempts.push(Attempt { begun, ended: Instant::now(), is_answered });
        thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
    }
    attempts
}

/// The gaps that have an answer before and after them; an error for one that has not.
fn gaps(attempts: &[Attempt]) -> Result<Vec<Gap>> {
    let runs = attempts.chunk_by(|one, next| one.is_answered == next.is_answered).collect::<Vec<_>>();
    let is_whole = [runs.first(), runs.last()].iter().all(|run| run.is_some_and(|run| run[0].is_answered));
    ensure!(is_whole, "no answer at the beginning or at the end");
    let gaps = runs.windows(3).filter(|around| !around[1][0].is_answered).filter_map(|around| {
        let (before, after) = (around[0].last()?, around[2].first()?);
        let failed = [around[1].first()?.begun, around[1].last()?.ended];
        Some(Gap { failed, between: after.ended - before.ended })
    });
    Ok(gaps.collect())
}

/// Does the work, during which every agent is replaced once: no two at a time, and none for long.
pub(crate) fn check_gaps<T>(nodes: &[Node], work: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_over = AtomicBool::new(false);
    let (done, attempts) = thread::scope(|scope| {
        let watchers: Vec<_> =
            nodes.iter().map(|node| scope.spawn(|| scrape_until(node, &is_over))).collect();
        let done = work();
        is_over.store(true, Ordering::Release);
        let joined = watchers.into_iter().map(|watcher| watcher.join().ok().context("a watcher panicked"));
        (done, joined.collect::<Result<Vec<_>>>())
    });
    let (done, attempts) = (done?, attempts?);
    let mut away: Vec<(&str, Gap)> = Vec::new();
    for (node, attempts) in nodes.iter().zip(&attempts) {
        let gaps = gaps(attempts).with_context(|| node.name().to_owned())?;
        let lengths: Vec<_> = gaps.iter().map(|gap| gap.between).collect();
        println!("{}: {} scrapes, without an answer for {lengths:.2?}", node.name(), attempts.len());
        ensure!(gaps.len() == 1, "{} was away {} times: {lengths:?}", node.name(), gaps.len());
        ensure!(lengths.iter().all(|length| *length < LIMIT), "{} was away for {lengths:?}", node.name());
        away.extend(gaps.into_iter().map(|gap| (node.name(), gap)));
    }
    away.sort_by_key(|(_, gap)| gap.failed[0]);
    for pair in away.windows(2) {
        let [(one, first), (other, second)] = [pair[0], pair[1]];
        ensure!(first.failed[1] < second.failed[0], "{one} and {other} were away at the same time");
    }
    Ok(done)
}
