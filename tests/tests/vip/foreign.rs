//! Two clusters of real keepalived on one link, which do not know of each other.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Keepalived, Spec, Vip, wait_master};
use lab::witness::tcpdump::{Frame, adverts};
use lab::{Lab, LabOptions, Place as _, wait_until};

use crate::stage::{BYSTANDER, LIMIT, Observer, Stage};

/// The node of the second cluster.
const SECOND: u8 = BYSTANDER + 1;
/// Its address.
const OTHER: Vip = Vip { address: IpAddr::V4(Ipv4Addr::new(192, 168, 56, 60)), prefix: 24 };
/// Advertisements of each cluster that the other has let pass, after which it will not mind any more of them.
const PATIENCE: usize = 5;
/// The number of the first cluster's virtual router.
const VRID: u8 = 51;

fn lab() -> Result<Lab> {
    Lab::start(&LabOptions { nodes: SECOND, flannel: None })
}

/// Whole seconds, so that no stall of a busy machine is taken for silence; the second cluster comes later, with a
/// priority that would win if the two disputed anything.
fn begin(lab: &Lab, vrid: u8) -> Result<(Stage, Keepalived)> {
    let mut stage = Stage::new(lab, &Spec::v2())?;
    let node = lab.node(SECOND)?;
    let spec = Spec { vrid, priority: 200, addresses: vec![OTHER], ..Spec::v2() };
    let second = Keepalived::start(node, &spec)?;
    wait_master(node, OTHER.address, spec.master_down() + LIMIT)?;
    let (one, other) = (lab.node(1)?.address(false)?, node.address(false)?);
    for observer in &mut stage.observers {
        let both = |frames: &[Frame]| {
            let all: Vec<IpAddr> = adverts(frames).into_iter().map(|advert| advert.source).collect();
            let begun = all.iter().position(|source| *source == other).unwrap_or(all.len());
            let of = |router| all[begun..].iter().filter(|source| **source == router).count();
            of(one) >= PATIENCE && of(other) >= PATIENCE
        };
        observer.capture.wait_until("both clusters to go on", LIMIT, both)?;
    }
    Ok((stage, second))
}

/// How many routers are foreign to that virtual router.
fn foreign(observer: &Observer, vrid: u8) -> Result<Option<u64>> {
    let labels = [("interface", "eth0"), ("vrid", &*vrid.to_string()), ("family", "ipv4")];
    Ok(observer.agent.scrape()?.count("leadline_vrrp_foreign_routers", &labels))
}

/// Both addresses are where they were at first, `ip` and the agents agree on that, and nobody saw a dispute or a move.
fn undisturbed(lab: &Lab, stage: &Stage) -> Result<()> {
    for observer in &stage.observers {
        let node = lab.node(observer.node)?;
        let page = observer.agent.scrape()?;
        for (vip, owner) in [(stage.vip, 1), (OTHER.address, SECOND)] {
            let is_held = node.holding(vip)?.is_some();
            ensure!(is_held == (observer.node == owner), "node{}: has {vip}: {is_held}", observer.node);
            let held = observer.count("leadline_vip_held", vip)?;
            ensure!(held == u64::from(is_held), "node{}: held {held} for {vip}", observer.node);
            ensure!(observer.count("leadline_vip_conflict", vip)? == 0, "node{}: {vip}", observer.node);
        }
        for name in ["leadline_vip_conflicts_total", "leadline_vip_failovers_total"] {
            let all: Vec<_> = page.of(name, |sample| sample.count() != Some(0)).collect();
            ensure!(all.is_empty() && page.sum(name, |_| true) == Some(0), "node{}: {all:?}", observer.node);
        }
        for kind in ["vip_moved", "vip_conflict_opened", "vip_lost"] {
            let events = observer.events(kind)?;
            ensure!(events.is_empty(), "node{}: {events:?}", observer.node);
        }
    }
    Ok(())
}

/// Every observer has counted the advertisements of the second cluster that its tcpdump has, which began before them.
fn all_counted(stage: &Stage, vrid: u8, source: IpAddr) -> Result<()> {
    let (vrid, text) = (vrid.to_string(), source.to_string());
    let labels = [("interface", "eth0"), ("vrid", &*vrid), ("family", "ipv4"), ("source", &*text)];
    for observer in &stage.observers {
        let captured = adverts(&observer.capture.frames()?);
        let captured = captured.iter().filter(|advert| advert.source == source).count() as u64;
        let mut counted = None;
        let waited = wait_until("every advertisement to be counted", LIMIT, || {
            let page = observer.agent.scrape().ok();
            counted = page.and_then(|page| page.count("leadline_vrrp_advertisements_total", &labels));
            counted == Some(captured)
        });
        waited.with_context(|| format!("node{}: {counted:?} of {captured}", observer.node))?;
        println!("node{}: {captured} advertisements of {source}", observer.node);
    }
    Ok(())
}

/// What a keepalived has written of the other cluster.
fn complaints(daemon: &Keepalived) -> Result<Vec<String>> {
    let log = daemon.log()?;
    let of_others = |line: &&str| ["VRID", "advert", "ignor"].iter().any(|word| line.contains(word));
    Ok(log.lines().filter(of_others).map(str::to_owned).collect())
}

#[test]
fn another_number_is_another_virtual_router() -> Result<()> {
    let lab = lab()?;
    let (stage, mut second) = begin(&lab, VRID + 1)?;
    undisturbed(&lab, &stage)?;
    for observer in &stage.observers {
        let page = observer.agent.scrape()?;
        for (vip, vrid) in [(stage.vip, VRID), (OTHER.address, VRID + 1)] {
            assert_eq!(foreign(observer, vrid)?, Some(0), "node{}", observer.node);
            let (vip, vrid) = (vip.to_string(), vrid.to_string());
            let labels = [("vip", &*vip), ("protocol", "vrrp"), ("interface", "eth0"), ("vrid", &*vrid)];
            assert_eq!(page.count("leadline_vip_info", &labels), Some(1), "node{}", observer.node);
        }
        assert_eq!(page.of("leadline_vip_info", |_| true).count(), 2, "node{}", observer.node);
        assert!(observer.events("vrrp_foreign_router")?.is_empty(), "node{}", observer.node);
    }
    second.terminate()?;
    all_counted(&stage, VRID + 1, lab.node(SECOND)?.address(false)?)
}

#[test]
fn the_same_number_with_another_address_is_foreign() -> Result<()> {
    let lab = lab()?;
    let (mut stage, mut second) = begin(&lab, VRID)?;
    let source = lab.node(SECOND)?.address(false)?;
    undisturbed(&lab, &stage)?;
    for observer in &stage.observers {
        assert_eq!(foreign(observer, VRID)?, Some(1), "node{}", observer.node);
        let events = observer.events("vrrp_foreign_router")?;
        ensure!(events.len() == 1, "node{}: {events:?}", observer.node);
        assert_eq!(events[0]["details"]["source"], source.to_string(), "node{}", observer.node);
        assert_eq!(events[0]["details"]["vrid"], VRID.to_string(), "node{}", observer.node);
    }
    for index in 1..BYSTANDER {
        let lines = complaints(stage.trio.daemon(index)?)?;
        println!("node{index}: {} lines, the last {:?}", lines.len(), lines.last());
    }
    let lines = complaints(&second)?;
    println!("node{SECOND}: {} lines, the last {:?}", lines.len(), lines.last());
    second.terminate()?;
    for observer in &stage.observers {
        wait_until("the foreign router to be gone", LIMIT, || {
            foreign(observer, VRID).is_ok_and(|routers| routers == Some(0))
        })
        .with_context(|| format!("node{}", observer.node))?;
        // Its goodbye was none to the first cluster.
        let page = observer.agent.scrape()?;
        assert_eq!(Observer::failovers(&page, stage.vip, "shutdown"), Some(0), "node{}", observer.node);
    }
    ensure!(lab.node(1)?.holding(stage.vip)?.is_some(), "node1 has lost {}", stage.vip);
    all_counted(&stage, VRID, source)
}
