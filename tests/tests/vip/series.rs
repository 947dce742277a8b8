//! Many failovers in a row.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Spec, wait_master};
use lab::wait_until;
use lab::witness::{ensure_precise, measured};

use crate::service::serve;
use crate::stage::{LIMIT, Move, Observer, Service, Stage, moves, services};
use crate::timeline::seconds_of_day;

/// Rounds of a hang, which is a timeout, and of its end, which preempts.
const ROUNDS: u64 = 50;
const ERROR: f64 = 0.001;
/// Two clocks of one node that tell the same segment, in seconds.
const SAME: f64 = 0.002;

/// A move as the timeline has it.
#[derive(Debug)]
struct Told {
    from: IpAddr,
    to: IpAddr,
    detect: f64,
}

/// All moves of the address.
fn told(observer: &Observer) -> Result<Vec<Told>> {
    let read = |event: &serde_json::Value| -> Option<Told> {
        let detail = |name: &str| event["details"][name].as_str();
        Some(Told {
            from: detail("from")?.parse().ok()?,
            to: detail("to")?.parse().ok()?,
            detect: detail("detect_ms")?.parse::<f64>().ok()? / 1e3,
        })
    };
    let moves = observer.events("vip_moved")?;
    moves.iter().map(|event| read(event).with_context(|| event.to_string())).collect()
}

/// The end of a move as the timeline has it: when it was, and the seconds since the announcement, which a move at the
/// end of a conflict does not have, and since the last sign of the old owner.
#[derive(Debug)]
struct End {
    time: String,
    converge: Option<f64>,
    total: f64,
}

fn told_ends(observer: &Observer) -> Result<Vec<End>> {
    let read = |event: &serde_json::Value| -> Option<End> {
        let seconds = |name: &str| Some(event["details"][name].as_str()?.parse::<f64>().ok()? / 1e3);
        let time = event["time"].as_str()?.to_owned();
        Some(End { time, converge: seconds("converge_ms"), total: seconds("total_ms")? })
    };
    let ends = observer.events("vip_converged")?;
    ends.iter().map(|event| read(event).with_context(|| event.to_string())).collect()
}

/// Errors of the times of those ends that are the same segment's in tcpdump's record, and how many of its record are not
/// told: two stations that take turns within a moment may leave no trace between two segments.
fn compare_ends(told: &[End], truth: &[Service]) -> (Vec<f64>, usize) {
    let is_same = |end: &End, service: &Service| {
        let day = service.time.as_secs_f64() % 86_400.0;
        seconds_of_day(&end.time).is_some_and(|time| (time - day).abs() < SAME)
    };
    let mut errors = Vec::new();
    let mut missed = 0;
    for service in truth {
        let Some(end) = told.iter().find(|end| is_same(end, service)) else {
            missed += 1;
            continue;
        };
        errors.extend(end.converge.map(|told| (told - service.converge.as_secs_f64()).abs()));
        errors.push((end.total - service.total.as_secs_f64()).abs());
    }
    errors.sort_by(f64::total_cmp);
    (errors, missed)
}

/// The agent's list is tcpdump's, move by move; answers with the error of each time.
fn compare(told: &[Told], moves: &[Move]) -> Result<Vec<f64>> {
    ensure!(told.len() == moves.len(), "{} moves told, tcpdump has {}", told.len(), moves.len());
    let mut errors = Vec::new();
    for (told, moved) in told.iter().zip(moves) {
        ensure!((told.from, told.to) == (moved.from, moved.to), "{told:?}, tcpdump has {moved:?}");
        errors.push((told.detect - moved.detect.as_secs_f64()).abs());
    }
    errors.sort_by(f64::total_cmp);
    Ok(errors)
}

#[test]
fn a_hundred_failovers_are_those_of_the_wire() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let _services = serve(&lab)?;
        let mut stage = Stage::new(&lab, &Spec::default())?;
        let (one, two, vip) = (lab.node(1)?, lab.node(2)?, stage.vip);
        // Two take turns: a third would sometimes be first by its few milliseconds.
        stage.trio.daemon(3)?.terminate()?;
        for round in 0..ROUNDS {
            stage.trio.daemon(1)?.stop_child()?;
            wait_master(two, vip, LIMIT).with_context(|| format!("round {round}"))?;
            stage.trio.daemon(1)?.continue_child()?;
            wait_until("node1 to have the address back", LIMIT, || {
                one.holding(vip).is_ok_and(|held| held.is_some())
                    && two.holding(vip).is_ok_and(|held| held.is_none())
            })
            .with_context(|| format!("round {round}"))?;
        }
        for observer in &mut stage.observers {
            let (_page, _moves) = observer.wait_moves(vip)?;
            let moves = moves(&observer.capture.frames()?, vip);
            let errors =
                compare(&told(observer)?, &moves).with_context(|| format!("node{}", observer.node))?;
            ensure!(errors.len() as u64 >= 2 * ROUNDS, "{} moves", errors.len());
            let (p95, worst) = (errors[errors.len() * 95 / 100], errors[errors.len() - 1]);
            println!(
                "node{}: {} moves, p95 {:.1} us, worst {:.1} us",
                observer.node,
                errors.len(),
                p95 * 1e6,
                worst * 1e6
            );
            ensure_precise(p95 <= ERROR, || format!("{errors:?}"))?;
            let truth: Vec<Service> =
                services(&observer.capture.frames()?, vip).into_iter().flatten().collect();
            let told = told_ends(observer)?;
            let (errors, missed) = compare_ends(&told, &truth);
            println!("node{}: {} ends told, {missed} of {} missed", observer.node, told.len(), truth.len());
            ensure!(!errors.is_empty() && missed * 10 <= truth.len(), "{:?} {:?}", &truth[..5], &told[..5]);
            let (p95, worst) = (errors[errors.len() * 95 / 100], errors[errors.len() - 1]);
            println!("node{}: p95 {:.1} us, worst {:.1} us", observer.node, p95 * 1e6, worst * 1e6);
            ensure_precise(p95 <= ERROR, || format!("{errors:?}"))?;
        }
        Ok(())
    })
}
