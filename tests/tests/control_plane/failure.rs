//! What fails, and what the agent says of it and when.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::control_plane::{Options, Part};
use lab::process::wait_until;

use crate::stage::{agent, checks, failure, of, wait_agreement, wait_event, wait_page};
use crate::{LIMIT, start};

#[test]
fn a_store_that_is_lost_is_a_check_that_fails_and_no_death() -> Result<()> {
    let (lab, mut etcd, plane) = start(&Options::default())?;
    let observer = agent(lab.node(1)?, &[])?;
    let healthy = checks(&wait_agreement(&observer, &plane, Part::ApiServer)?, Part::ApiServer);
    ensure!(healthy.get("etcd") == Some(&true), "{healthy:?}");
    let killed = Instant::now();
    etcd.kill(1)?;
    let (_, took) =
        wait_page(&observer, "readiness to end", |page| of(page, "ready", Part::ApiServer) == Some(0.0))?;
    println!("etcd killed: not ready after {took:?}");
    let (page, took) = wait_page(&observer, "the check of etcd to fail", |page| {
        checks(page, Part::ApiServer).get("etcd") == Some(&false)
    })?;
    println!("its check fails {took:?} later");
    ensure!(of(&page, "ready", Part::ApiServer) == Some(0.0), "ready without a store");
    ensure!(
        failure(&page, Part::ApiServer)?.as_deref() == Some("status"),
        "{:?}",
        failure(&page, Part::ApiServer)?
    );
    let event = wait_event(&observer, "control_plane_unready", Part::ApiServer)?;
    let failing = event["details"]["failing"].as_str().unwrap_or_default();
    ensure!(failing.split(',').any(|check| check.starts_with("etcd")), "{event:#}");
    // Later as well: agent and curl see the same of both questions.
    let page = wait_agreement(&observer, &plane, Part::ApiServer)?;
    println!(
        "{:?} after the kill: alive {:?}, answer {:?} s, curl {:?}",
        killed.elapsed(),
        of(&page, "alive", Part::ApiServer),
        of(&page, "answer_seconds", Part::ApiServer),
        plane.ask(Part::ApiServer, "/livez")?
    );
    etcd.restart(1)?;
    let begun = Instant::now();
    wait_until("curl to find the API server ready", LIMIT, || {
        plane.ask(Part::ApiServer, "/readyz").is_ok_and(|answer| answer.status == 200)
    })?;
    println!("etcd back: curl finds it ready after {:?}", begun.elapsed());
    let (_, took) =
        wait_page(&observer, "readiness", |page| of(page, "ready", Part::ApiServer) == Some(1.0))?;
    println!("and the agent {took:?} later");
    ensure!(took < Duration::from_secs(5), "the agent was {took:?} later");
    wait_event(&observer, "control_plane_ready", Part::ApiServer)?;
    let page = wait_agreement(&observer, &plane, Part::ApiServer)?;
    ensure!(failure(&page, Part::ApiServer)?.is_none());
    lab.shutdown()
}

#[test]
fn a_part_that_is_killed_is_refused_and_told_and_comes_back() -> Result<()> {
    let (lab, _etcd, mut plane) = start(&Options::default())?;
    let observer = agent(lab.node(1)?, &[])?;
    for part in Part::ALL {
        wait_agreement(&observer, &plane, part)?;
    }
    // The clients first: they end by themselves when their API server is gone for long.
    for part in [Part::Scheduler, Part::ControllerManager, Part::ApiServer] {
        plane.kill(part)?;
        let (page, took) = wait_page(&observer, "death", |page| of(page, "alive", part) == Some(0.0))?;
        println!("{} killed: seen after {took:?}", part.name());
        let refused = |page: &lab::scrape::Samples| {
            failure(page, part).is_ok_and(|why| why.as_deref() == Some("refused"))
        };
        wait_page(&observer, "the refusal", refused)?;
        ensure!(of(&page, "ready", part) != Some(1.0), "dead and ready");
        ensure!(checks(&observer.scrape()?, part).is_empty(), "checks of the dead");
        let event = wait_event(&observer, "control_plane_down", part)?;
        ensure!(event["details"]["endpoint"] == format!("https://{}", part.address(&Options::default())));
        plane.run(part)?;
        plane.wait_well(part)?;
        let (_, took) = wait_page(&observer, "life", |page| of(page, "alive", part) == Some(1.0))?;
        println!("{} well: seen after {took:?}", part.name());
        wait_event(&observer, "control_plane_up", part)?;
        wait_agreement(&observer, &plane, part)?;
    }
    lab.shutdown()
}

#[test]
fn a_frozen_api_server_is_late_and_delays_neither_scrapes_nor_the_others() -> Result<()> {
    let (lab, _etcd, mut plane) = start(&Options::default())?;
    let observer = agent(lab.node(1)?, &["--control-plane.timeout=2s"])?;
    wait_agreement(&observer, &plane, Part::ApiServer)?;
    wait_agreement(&observer, &plane, Part::Scheduler)?;
    plane.freeze(Part::ApiServer)?;
    let (page, took) =
        wait_page(&observer, "life to end", |page| of(page, "alive", Part::ApiServer) == Some(0.0))?;
    println!("frozen: seen after {took:?}");
    ensure!(
        failure(&page, Part::ApiServer)?.as_deref() == Some("late"),
        "{:?}",
        failure(&page, Part::ApiServer)?
    );
    let event = wait_event(&observer, "control_plane_down", Part::ApiServer)?;
    ensure!(event["details"]["reason"] == "late", "{event:#}");
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        observer.scrape()?;
        slowest = slowest.max(begun.elapsed());
    }
    println!("slowest of 20 scrapes meanwhile: {slowest:?}");
    ensure!(slowest < Duration::from_secs(1), "a scrape waited {slowest:?}");
    // The others are asked every second meanwhile.
    let answered =
        |page: &lab::scrape::Samples| of(page, "last_answer_timestamp_seconds", Part::ControllerManager);
    let first = answered(&observer.scrape()?).context("no answer of the controller-manager")?;
    let (_, took) = wait_page(&observer, "three more answers", |page| {
        answered(page).is_some_and(|last| last > first + 2.5)
    })?;
    ensure!(took < Duration::from_secs(6), "three answers took {took:?}");
    plane.thaw(Part::ApiServer)?;
    let (_, took) = wait_page(&observer, "life", |page| of(page, "alive", Part::ApiServer) == Some(1.0))?;
    println!("thawed: seen after {took:?}");
    wait_event(&observer, "control_plane_up", Part::ApiServer)?;
    plane.wait_well(Part::ApiServer)?;
    wait_agreement(&observer, &plane, Part::ApiServer)?;
    lab.shutdown()
}
