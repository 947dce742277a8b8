//! The end of a failover: the first answer of the new owner.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::witness::tcpdump::{Frame, sent};
use lab::witness::{ensure_precise, measured};
use lab::{Acceptor, Lab, Place as _, wait_until};

use crate::stage::{BYSTANDER, LIMIT, Observer, PORT, Stage, services};

/// How far the agent's times may be from tcpdump's at the same node.
const ERROR: f64 = 0.001;
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A service on each node that may have the address.
pub(crate) fn serve(lab: &Lab) -> Result<Vec<Acceptor>> {
    (1..BYSTANDER).map(|index| Acceptor::start(lab.node(index)?, ANY, PORT)).collect()
}

/// Every observer has the end of the last failover that its tcpdump has.
fn check(stage: &mut Stage) -> Result<()> {
    let vip = stage.vip;
    stage.observers.iter_mut().try_for_each(|observer| check_end(observer, vip, ERROR))
}

/// The observer has the end of the last failover that its tcpdump has, to so many seconds.
pub(crate) fn check_end(observer: &mut Observer, vip: IpAddr, error: f64) -> Result<()> {
    let node = observer.node;
    observer.capture.wait_until("the new owner to serve", LIMIT, |frames| {
        services(frames, vip).last().is_some_and(Option::is_some)
    })?;
    let mut page = None;
    wait_until("the end of the failover", LIMIT, || {
        page = observer.agent.scrape().ok();
        page.as_ref().is_some_and(|page| Observer::phase(page, vip, "total").is_ok())
    })
    .with_context(|| format!("node{node}"))?;
    let page = page.context("no page")?;
    let frames = observer.capture.frames()?;
    let truth = services(&frames, vip).pop().flatten().context("nothing was served")?;
    let converge = Observer::phase(&page, vip, "converge")?;
    let total = Observer::phase(&page, vip, "total")?;
    let errors = [converge - truth.converge.as_secs_f64(), total - truth.total.as_secs_f64()];
    println!("node{node}: converge {converge:.6} s, total {total:.6} s, errors {errors:+.6?}");
    ensure_precise(errors.iter().all(|found| found.abs() <= error), || {
        format!("node{node}: {errors:?} s from {truth:?}")
    })
}

/// Connections that this node began to the address, by their ports.
fn begun(frames: &[Frame], vip: IpAddr, node: IpAddr) -> usize {
    let ports: BTreeSet<u16> = sent(frames, node)
        .into_iter()
        .filter(|segment| segment.is_syn && segment.destination == vip)
        .map(|segment| segment.source_port)
        .collect();
    ports.len()
}

#[test]
fn a_shutdown_ends_with_the_first_answer() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let _services = serve(&lab)?;
        let mut stage = Stage::new(&lab, &Spec::default())?;
        stage.trio.daemon(1)?.terminate()?;
        check(&mut stage)?;
        // The bystander, which nobody else asks the address from, saw it by its own questions.
        let observer = stage.observers.last().context("no observer")?;
        let page = observer.agent.scrape()?;
        let vip = stage.vip.to_string();
        let asked =
            page.count("leadline_vip_failover_probes_total", &[("vip", &vip)]).context("not counted")?;
        let probed = page.sum("leadline_vip_probes_total", |_| true).unwrap_or_default();
        let four = "192.168.56.14".parse()?;
        let begun = begun(&observer.capture.frames()?, stage.vip, four) as u64;
        println!("asked {asked} times, probed {probed} times, began {begun} connections");
        // A probe that is not over, and those before the service was known, are not counted.
        ensure!(asked >= 1 && (asked + probed..=asked + probed + 3).contains(&begun), "{begun} connections");
        Ok(())
    })
}

#[test]
fn a_crash_that_leaves_the_address_costs_a_moment_only() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let _services = serve(&lab)?;
        let mut stage = Stage::new(&lab, &Spec::v2())?;
        // The dead owner's kernel answers until the neighbours hear of the new one.
        stage.trio.daemon(1)?.kill_both()?;
        // What node1 asks, it answers itself.
        stage.observers.remove(0);
        check(&mut stage)?;
        let page = stage.observers.last().context("no observer")?.agent.scrape()?;
        let (detect, total) =
            (Observer::phase(&page, stage.vip, "detect")?, Observer::phase(&page, stage.vip, "total")?);
        ensure!(detect > 3.0 && total < 1.0, "detected in {detect} s, an outage of {total} s");
        Ok(())
    })
}

#[test]
fn a_link_that_goes_costs_all_the_time_until_the_first_answer() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let _services = serve(&lab)?;
        let mut stage = Stage::new(&lab, &Spec::v2())?;
        lab.node(1)?.ip("link set eth0 down")?;
        stage.observers.remove(0);
        check(&mut stage)?;
        let page = stage.observers.last().context("no observer")?.agent.scrape()?;
        let total = Observer::phase(&page, stage.vip, "total")?;
        // The last advertisement was up to a second before the link went.
        ensure!(total > 2.0, "an outage of {total} s");
        Ok(())
    })
}
