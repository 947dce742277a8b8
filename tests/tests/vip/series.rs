//! Many failovers in a row.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Spec, wait_master};
use lab::wait_until;

use crate::stage::{LIMIT, Move, Observer, Stage, moves};

/// Rounds of a hang, which is a timeout, and of its end, which preempts.
const ROUNDS: u64 = 50;
const ERROR: f64 = 0.001;

/// A move as the timeline has it.
#[derive(Debug)]
struct Told {
    from: IpAddr,
    to: IpAddr,
    detect: f64,
}

/// All moves of the address on the timeline, the oldest first.
fn told(observer: &Observer) -> Result<Vec<Told>> {
    let page = observer.agent.get("/api/v1/events?limit=4096", &[])?;
    let page: serde_json::Value = serde_json::from_str(page.text()?).context("the events are no JSON")?;
    let events = page["events"].as_array().context("no list of events")?;
    let of_moves = events.iter().filter(|event| event["kind"] == "vip_moved");
    let read = |event: &serde_json::Value| -> Option<Told> {
        let detail = |name: &str| event["details"][name].as_str();
        Some(Told {
            from: detail("from")?.parse().ok()?,
            to: detail("to")?.parse().ok()?,
            detect: detail("detect_ms")?.parse::<f64>().ok()? / 1e3,
        })
    };
    of_moves.map(|event| read(event).with_context(|| event.to_string())).collect()
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
    let lab = Stage::lab()?;
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
        let errors = compare(&told(observer)?, &moves).with_context(|| format!("node{}", observer.node))?;
        ensure!(errors.len() as u64 >= 2 * ROUNDS, "{} moves", errors.len());
        let (p95, worst) = (errors[errors.len() * 95 / 100], errors[errors.len() - 1]);
        println!(
            "node{}: {} moves, p95 {:.1} us, worst {:.1} us",
            observer.node,
            errors.len(),
            p95 * 1e6,
            worst * 1e6
        );
        ensure!(p95 <= ERROR, "{errors:?}");
    }
    Ok(())
}
