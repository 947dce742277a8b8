//! What an agent's timeline says, and how far that is from tcpdump's times at the same node.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::witness::ensure_precise;
use serde_json::Value;

use crate::stage::Observer;

const DAY: f64 = 86_400.0;

/// The events of a kind about one address.
pub(crate) fn about(observer: &Observer, kind: &str, vip: IpAddr) -> Result<Vec<Value>> {
    let all = observer.events(kind)?;
    Ok(all.into_iter().filter(|event| event["subject"] == vip.to_string()).collect())
}

/// Waits for that many events of a kind about one address, and answers with the last.
pub(crate) fn wait_event(
    observer: &Observer,
    (kind, number): (&str, usize),
    vip: IpAddr,
    limit: Duration,
) -> Result<Value> {
    let what = format!("{number} {kind} of {vip}");
    let told =
        wait_for(&what, limit, || about(observer, kind, vip).ok().filter(|events| events.len() >= number));
    let told = told.with_context(|| format!("node{}", observer.node))?;
    ensure!(told.len() == number, "node{}: {told:?}", observer.node);
    told.into_iter().next_back().context("no event")
}

/// Of `2026-11-24T14:25:02.303106781Z`.
pub(crate) fn seconds_of_day(time: &str) -> Option<f64> {
    let of_day = time.split_once('T')?.1.trim_end_matches('Z');
    of_day.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

/// How far the event is from that time since the epoch, in seconds.
pub(crate) fn error_of(event: &Value, truth: Duration) -> Result<f64> {
    let time = event["time"].as_str().and_then(seconds_of_day).with_context(|| event.to_string())?;
    let difference = (time - truth.as_secs_f64() % DAY).abs();
    Ok(difference.min(DAY - difference))
}

/// A detail of an event.
pub(crate) fn detail<'a>(event: &'a Value, name: &str) -> Result<&'a str> {
    event["details"][name].as_str().with_context(|| format!("no {name} in {event}"))
}

/// A time among the details of an event, in seconds.
pub(crate) fn seconds(event: &Value, name: &str) -> Result<f64> {
    Ok(detail(event, name)?.parse::<f64>().with_context(|| event.to_string())? / 1e3)
}

/// How far times may be from tcpdump's, in seconds: half of them, and each. tcpdump stamps a frame when it is queued, the
/// tap when it is handled, which on a busy machine is later.
const ERROR: f64 = 0.001;
const WORST: f64 = 0.02;

/// Times of several observers are tcpdump's.
pub(crate) fn check_errors(what: &str, mut errors: Vec<f64>) -> Result<()> {
    errors.sort_by(f64::total_cmp);
    let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
    println!("{what}: {:.1} us from tcpdump, at worst {:.1}", median * 1e6, worst * 1e6);
    ensure_precise(median <= ERROR && worst <= WORST, || format!("{what}: {errors:?} s from tcpdump"))
}
