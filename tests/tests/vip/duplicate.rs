//! A virtual address on a host that does not announce it: set there by hand, or left behind by a dead daemon.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Spec, VIP};
use lab::witness::tcpdump::{adverts, answers};
use lab::{Lab, Node, Place as _, wait_until};

use crate::stage::{BYSTANDER, LIMIT, Observer, Stage};

/// Questions for the address, each of which all stations that have it answer.
const QUESTIONS: usize = 3;

/// Has the node ask where the address is.
fn ask(node: &Node, vip: IpAddr) -> Result<()> {
    let vip = vip.to_string();
    for _ in 0..QUESTIONS {
        node.run(&["ip", "neigh", "flush", "to", &vip, "dev", "eth0"])?;
        node.run(&["ping", "-c", "1", "-W", "5", &vip])?;
    }
    Ok(())
}

/// Every observer has counted the answers of the stranger since then that its tcpdump has, and those who have heard any
/// say who it is. Which ones they are is known: the asker, and the stranger itself.
fn check(lab: &Lab, stage: &Stage, stranger: u8, since: Duration, hearers: &[u8]) -> Result<()> {
    let (vip, mac) = (stage.vip, lab.node(stranger)?.mac());
    let captured = |observer: &Observer| -> Result<u64> {
        let all = answers(&observer.capture.frames()?, vip);
        Ok(all.iter().filter(|answer| answer.mac == mac && answer.time >= since).count() as u64)
    };
    for observer in &stage.observers {
        let node = observer.node;
        let is_hearer = hearers.contains(&node);
        let least = if is_hearer { QUESTIONS as u64 } else { 0 };
        let mut last = (0, 0);
        let waited = wait_until("every answer to be counted", LIMIT, || {
            let counted = observer.count("leadline_vip_duplicate_answers_total", vip);
            last = (counted.unwrap_or(u64::MAX), captured(observer).unwrap_or_default());
            last.0 == last.1 && last.1 >= least
        });
        waited.with_context(|| format!("node{node}: {} counted, {} captured", last.0, last.1))?;
        println!("node{node}: {} answers of node{stranger} counted and captured", last.0);
        ensure!((last.0 > 0) == is_hearer, "node{node} has heard {} answers", last.0);
        let duplicate = observer.count("leadline_vip_duplicate", vip)?;
        ensure!(duplicate == u64::from(is_hearer), "node{node}: {duplicate}");
        let events = observer.events("vip_duplicated")?;
        ensure!(events.len() == usize::from(is_hearer), "node{node}: {events:?}");
        for event in events {
            assert_eq!(event["details"]["station"], mac, "node{node}");
            assert_eq!(event["subject"], vip.to_string(), "node{node}");
        }
    }
    Ok(())
}

/// Waits until those nodes say that they have the address, and the others that they have not.
fn wait_held(stage: &Stage, holders: &[u8]) -> Result<()> {
    for observer in &stage.observers {
        let expected = u64::from(holders.contains(&observer.node));
        wait_until("the holders to be known", LIMIT, || {
            observer.count("leadline_vip_held", stage.vip).is_ok_and(|held| held == expected)
        })
        .with_context(|| format!("node{}", observer.node))?;
    }
    Ok(())
}

#[test]
fn an_address_set_on_another_host_is_found_by_its_answers() -> Result<()> {
    let lab = Stage::lab()?;
    let stage = Stage::new(&lab, &Spec::v2())?;
    lab.node(BYSTANDER)?.ip(&format!("address add {VIP} dev eth0"))?;
    wait_held(&stage, &[1, BYSTANDER])?;
    // Nobody has asked yet.
    check(&lab, &stage, BYSTANDER, Duration::ZERO, &[])?;
    ask(lab.node(2)?, stage.vip)?;
    check(&lab, &stage, BYSTANDER, Duration::ZERO, &[2, BYSTANDER])?;
    let both = answers(&stage.observers[1].capture.frames()?, stage.vip);
    let owner = lab.node(1)?.mac();
    ensure!(both.iter().any(|answer| answer.mac == owner), "the owner has not answered: {both:?}");
    Ok(())
}

#[test]
fn an_address_that_a_dead_daemon_left_behind_is_found_by_its_answers() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::v2())?;
    let source = lab.node(1)?.address(false)?;
    stage.trio.daemon(1)?.kill_both()?;
    let bystander = stage.observers.last_mut().context("no observer")?;
    bystander.wait_moves(stage.vip)?;
    // Until four intervals after its last word the dead one counts as an announcer that answers rightly.
    let labels = [("vip", &*stage.vip.to_string()), ("source", &*source.to_string()), ("protocol", "vrrp")];
    for observer in &stage.observers {
        wait_until("the dead router to be given up", LIMIT, || {
            let page = observer.agent.scrape();
            page.is_ok_and(|page| page.count("leadline_vip_announcer", &labels) == Some(0))
        })
        .with_context(|| format!("node{}", observer.node))?;
    }
    let all = adverts(&stage.observers[usize::from(BYSTANDER) - 1].capture.frames()?);
    let last = all.iter().rfind(|advert| advert.source == source).context("node1 has never advertised")?;
    wait_held(&stage, &[1, 2])?;
    ask(lab.node(BYSTANDER)?, stage.vip)?;
    check(&lab, &stage, 1, last.time + last.interval * 4, &[1, BYSTANDER])
}
