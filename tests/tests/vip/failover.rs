//! Failovers by cause, with their times, where they are more than a row of the matrix.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::witness::tcpdump::adverts;
use lab::witness::{ensure_precise, measured};

use crate::stage::{LIMIT, Observer, Stage, moves};

/// How far the agent's times may be from tcpdump's at the same node, for half of the observers.
const ERROR: f64 = 0.001;
/// The same for each of them: tcpdump stamps a frame when it is queued, the tap when it is handled, which on a busy
/// machine is later.
const WORST: f64 = 0.02;

/// Every observer but some has counted the failovers that its tcpdump has, one of them for this cause, and the last
/// of them at the same times. A busy machine adds failovers of its own.
pub(crate) fn check(stage: &mut Stage, cause: &str, without: &[u8]) -> Result<()> {
    let (vip, mut errors) = (stage.vip, Vec::new());
    for observer in stage.observers.iter_mut().filter(|observer| !without.contains(&observer.node)) {
        let (page, moves) = observer.wait_moves(vip)?;
        let number = Observer::failovers(&page, vip, cause).unwrap_or_default();
        ensure!(number >= 1, "node{}: no failover for {cause}, but {moves:?}", observer.node);
        let last = moves.last().context("no failover")?;
        let announcer = [("vip", &*vip.to_string()), ("source", &*last.to.to_string()), ("protocol", "vrrp")];
        ensure!(
            last.from != last.to && page.count("leadline_vip_announcer", &announcer) == Some(1),
            "{last:?}"
        );
        let announce = last.announce.context("the new owner has announced nothing")?;
        let detect_error = Observer::phase(&page, vip, "detect")? - last.detect.as_secs_f64();
        let announce_error = Observer::phase(&page, vip, "announce")? - announce.as_secs_f64();
        let (all, node) = (moves.len(), observer.node);
        println!(
            "node{node}: {number} of {all} for {cause}, last {last:?}, error {detect_error:+.6} and {announce_error:+.6} s"
        );
        errors.push(detect_error.abs().max(announce_error.abs()));
    }
    errors.sort_by(f64::total_cmp);
    let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
    ensure_precise(median <= ERROR && worst <= WORST, || format!("{errors:?} s from tcpdump"))
}

#[test]
fn a_shutdown_is_timed_by_everybody() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let mut stage = Stage::new(&lab, &Spec::default())?;
        stage.trio.daemon(1)?.terminate()?;
        check(&mut stage, "shutdown", &[])?;
        let described = lab::run(Command::new(lab::agent::binary()?).arg("metrics"))?;
        // From the heading of the collector to the next one.
        let of_vips = described
            .split("\nvip\n")
            .nth(1)
            .and_then(|rest| rest.split("\n\n").next())
            .context("no section")?;
        let words =
            of_vips.split_whitespace().map(|word| word.split_once('{').map_or(word, |(name, _)| name));
        let names: Vec<&str> = words.filter(|word| word.starts_with("leadline_v")).collect();
        ensure!(names.len() > 10, "{names:?}");
        let page = stage.observers[0].agent.get("/metrics", &[])?;
        for name in names {
            ensure!(page.text()?.contains(&format!("# TYPE {name} ")), "{name} is not on the page");
        }
        Ok(())
    })
}

#[test]
fn a_shutdown_of_version_2_is_timed_by_everybody() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let mut stage = Stage::new(&lab, &Spec { password: Some("lab12345".into()), ..Spec::v2() })?;
        stage.trio.daemon(1)?.terminate()?;
        check(&mut stage, "shutdown", &[])?;
        for observer in &stage.observers {
            let page = observer.agent.get("/metrics", &[])?.text()?.to_owned();
            let events = observer.agent.get("/api/v1/events", &[])?.text()?.to_owned();
            ensure!(
                !page.contains("lab12345") && !events.contains("lab12345"),
                "the password is on the page"
            );
        }
        Ok(())
    })
}

#[test]
fn a_neighbour_advertisement_announces_an_ipv6_address() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let spec = Spec { addresses: vec![lab::keepalived::VIP6], ..Spec::default() };
        let mut stage = Stage::new(&lab, &spec)?;
        stage.trio.daemon(1)?.terminate()?;
        check(&mut stage, "shutdown", &[])
    })
}

#[test]
fn a_link_that_goes_is_the_cause_at_the_old_owner_and_silence_at_the_others() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let mut stage = Stage::new(&lab, &Spec::default())?;
        let one = lab.node(1)?;
        lab.plug(one, false)?;
        check(&mut stage, "timeout", &[1])?;
        // Back on the link it hears who has the address now; it takes it back after some advertisements.
        lab.plug(one, true)?;
        let observer = &stage.observers[0];
        lab::wait_until("the old owner to know the cause", LIMIT, || {
            let page = observer.agent.scrape();
            page.is_ok_and(|page| Observer::failovers(&page, stage.vip, "link") == Some(1))
        })
    })
}

#[test]
fn a_hang_shows_in_the_gaps_before_it_is_a_failover() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::v2())?;
    let late = |observer: &Observer| -> Result<u64> {
        let page = observer.agent.scrape()?;
        let name = "leadline_vrrp_advertisement_gap_ratio_bucket";
        let all = page.sum(name, |sample| sample.label("le") == Some("+Inf")).unwrap_or_default();
        let punctual = page.sum(name, |sample| sample.label("le") == Some("1.5")).unwrap_or_default();
        Ok(all - punctual)
    };
    let before: Vec<u64> = stage.observers.iter().map(&late).collect::<Result<_>>()?;
    // Right after an advertisement, so that the silence is never longer than three intervals.
    let capture = &mut stage.observers[0].capture;
    let so_far = adverts(&capture.frames()?).len();
    capture.wait_until("an advertisement", LIMIT, |frames| adverts(frames).len() > so_far)?;
    let daemon = stage.trio.daemon(1)?;
    daemon.stop_child()?;
    // The pause itself is what is tested.
    std::thread::sleep(Duration::from_secs(2));
    daemon.continue_child()?;
    for (observer, before) in stage.observers.iter().zip(before) {
        lab::wait_until("a late advertisement", LIMIT, || late(observer).is_ok_and(|late| late > before))?;
        let page = observer.agent.scrape()?;
        let failovers = page.sum("leadline_vip_failovers_total", |_| true);
        assert_eq!(failovers, Some(0), "node{}", observer.node);
    }
    Ok(())
}

#[test]
fn a_hang_is_a_timeout_and_its_end_preempts() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let mut stage = Stage::new(&lab, &Spec::default())?;
        stage.trio.daemon(1)?.stop_child()?;
        check(&mut stage, "timeout", &[])?;
        let vip = stage.vip;
        let before: Vec<usize> = stage
            .observers
            .iter()
            .map(|seen| Ok(moves(&seen.capture.frames()?, vip).len()))
            .collect::<Result<_>>()?;
        stage.trio.daemon(1)?.continue_child()?;
        for (observer, before) in stage.observers.iter_mut().zip(before) {
            observer
                .capture
                .wait_until("the end of the hang", LIMIT, |frames| moves(frames, vip).len() > before)?;
        }
        check(&mut stage, "preempted", &[])
    })
}
