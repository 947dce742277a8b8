//! Failovers by cause, with their times.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::keepalived::Spec;
use lab::{Node, Trio};

use crate::stage::{LIMIT, Observer, Stage, truth};

/// How far the agent's times may be from tcpdump's at the same node.
const ERROR: f64 = 0.001;

/// Every other observer saw one failover for this cause, at the times that its tcpdump has.
fn check(stage: &mut Stage, from: &Node, to: &Node, cause: &str, without: &[u8]) -> Result<()> {
    let (vip, mut worst) = (stage.vip, 0_f64);
    for observer in stage.observers.iter_mut().filter(|observer| !without.contains(&observer.node)) {
        let claimed = |frames: &[_]| truth(frames, vip, from, to).is_ok();
        observer.capture.wait_until("the failover on the wire", LIMIT, claimed)?;
        let page = observer.wait_failovers(vip, cause, 1)?;
        let truth = truth(&observer.capture.frames()?, vip, from, to)?;
        let detect = Observer::phase(&page, vip, "detect")? - truth.detect.as_secs_f64();
        let announce = Observer::phase(&page, vip, "announce")? - truth.announce.as_secs_f64();
        println!("node{}: {truth:?}, error {detect:+.6} and {announce:+.6} s", observer.node);
        worst = worst.max(detect.abs()).max(announce.abs());
    }
    ensure!(worst <= ERROR, "{worst} s from tcpdump");
    Ok(())
}

#[test]
fn a_shutdown_is_timed_by_everybody() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::default())?;
    stage.trio.daemon(1)?.terminate()?;
    check(&mut stage, lab.node(1)?, lab.node(2)?, "shutdown", &[])
}

#[test]
fn a_shutdown_of_version_2_is_timed_by_everybody() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec { password: Some("lab12345".into()), ..Spec::v2() })?;
    stage.trio.daemon(1)?.terminate()?;
    check(&mut stage, lab.node(1)?, lab.node(2)?, "shutdown", &[])?;
    for observer in &stage.observers {
        let page = observer.agent.get("/metrics", &[])?.text()?.to_owned();
        let events = observer.agent.get("/api/v1/events", &[])?.text()?.to_owned();
        ensure!(!page.contains("lab12345") && !events.contains("lab12345"), "the password is on the page");
    }
    Ok(())
}

#[test]
fn a_crash_is_a_timeout_and_leaves_the_address_on_two_nodes() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::default())?;
    stage.trio.daemon(1)?.kill_both()?;
    check(&mut stage, lab.node(1)?, lab.node(2)?, "timeout", &[])?;
    let vip = stage.vip.to_string();
    let held = |node: usize| -> Result<Option<u64>> {
        Ok(stage.observers[node - 1].agent.scrape()?.count("leadline_vip_held", &[("vip", &vip)]))
    };
    assert_eq!([held(1)?, held(2)?, held(3)?, held(4)?], [Some(1), Some(1), Some(0), Some(0)]);
    for (observer, node) in stage.observers.iter().zip(lab.nodes()) {
        assert_eq!(held(usize::from(observer.node))? == Some(1), node.holding(stage.vip)?.is_some());
    }
    Ok(())
}

#[test]
fn unicast_peers_time_a_failover_that_a_bystander_does_not_hear() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::with(&lab, Trio::start_unicast(&lab, &Spec::default())?)?;
    stage.trio.daemon(1)?.terminate()?;
    check(&mut stage, lab.node(1)?, lab.node(2)?, "shutdown", &[4])
}

#[test]
fn a_neighbour_advertisement_announces_an_ipv6_address() -> Result<()> {
    let lab = Stage::lab()?;
    let spec = Spec { addresses: vec![lab::keepalived::VIP6], ..Spec::default() };
    let mut stage = Stage::new(&lab, &spec)?;
    stage.trio.daemon(1)?.terminate()?;
    check(&mut stage, lab.node(1)?, lab.node(2)?, "shutdown", &[])
}

#[test]
fn a_link_that_goes_is_the_cause_at_the_old_owner_and_silence_at_the_others() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::default())?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    lab.plug(one, false)?;
    check(&mut stage, one, two, "timeout", &[1])?;
    // Back on the link it hears who has the address now; it takes it back after some advertisements.
    lab.plug(one, true)?;
    let observer = &stage.observers[0];
    lab::wait_until("the old owner to know the cause", LIMIT, || {
        let page = observer.agent.scrape();
        page.is_ok_and(|page| observer.failovers(&page, stage.vip, "link") == Some(1))
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
    let daemon = stage.trio.daemon(1)?;
    daemon.stop_child()?;
    // The pause itself is what is tested.
    std::thread::sleep(Duration::from_millis(2_000));
    daemon.continue_child()?;
    for (observer, before) in stage.observers.iter().zip(before) {
        lab::wait_until("a late advertisement", LIMIT, || late(observer).is_ok_and(|late| late > before))?;
        let page = observer.agent.scrape()?;
        let failovers = page.sum("leadline_vip_failovers_total", |_| true);
        assert_eq!(failovers, Some(0), "node{}", observer.node);
    }
    Ok(())
}
