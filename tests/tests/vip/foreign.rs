//! Two clusters of real keepalived on one link, which do not know of each other.
//!
//! What keepalived 2.2.7 does when both have chosen one number: each refuses the other's advertisements ("ip address
//! associated with VRID not present in MASTER advert"), both are masters, and nobody yields to the higher priority. But a
//! master that hears one begins its interval anew, so that each advertisement of one puts off the next of the other: with
//! equal intervals now one, now the other falls silent for seconds, and the slower of two is silenced for good. Its backups
//! take over from a master that is well, and lose the address to it again.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Keepalived, Spec, Vip, wait_master};
use lab::witness::tcpdump::{Frame, adverts};
use lab::{Firewall, Lab, LabOptions, Node, Place as _, wait_until};

use crate::stage::{BYSTANDER, LIMIT, Observer, Stage, moves};

/// The node of the second cluster.
const SECOND: u8 = BYSTANDER + 1;
/// Its address.
const OTHER: Vip = Vip { address: IpAddr::V4(Ipv4Addr::new(192, 168, 56, 60)), prefix: 24 };
/// Advertisements of each cluster that the other has let pass, after which it will not mind any more of them.
const PATIENCE: usize = 5;
/// The same where they put each other off.
const LONG: Duration = Duration::from_mins(1);
/// The number of the first cluster's virtual router.
const VRID: u8 = 51;

fn lab() -> Result<Lab> {
    Lab::start(&LabOptions { nodes: SECOND, flannel: None })
}

/// The second cluster comes later, with a priority that would win if the two disputed anything.
fn begin(lab: &Lab, first: &Spec, second: Spec) -> Result<(Stage, Keepalived)> {
    let mut stage = Stage::new(lab, first)?;
    let node = lab.node(SECOND)?;
    let spec = Spec { priority: 200, addresses: vec![OTHER], ..second };
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
        observer.capture.wait_until("both clusters to go on", LONG, both)?;
    }
    Ok((stage, second))
}

/// Keeps the clusters' daemons, but not the taps, from hearing each other, so that both go on undisturbed.
fn keep_apart(lab: &Lab) -> Result<Vec<Firewall<'_, Node>>> {
    let second = lab.node(SECOND)?.address(false)?;
    let deaf = |node: &Node| {
        let of_other = if node.index() == SECOND { String::new() } else { format!("ip saddr {second} ") };
        format!("chain i {{ type filter hook input priority -400; {of_other}ip protocol 112 drop; }}")
    };
    let daemons = lab.nodes().iter().filter(|node| node.index() != BYSTANDER);
    daemons.map(|node| Firewall::add(node, "inet", "apart", &deaf(node))).collect()
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
    let (stage, mut second) = begin(&lab, &Spec::v2(), Spec { vrid: VRID + 1, ..Spec::v2() })?;
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

/// The one event of a foreign router that every observer has.
fn told_foreign(stage: &Stage, source: IpAddr) -> Result<()> {
    for observer in &stage.observers {
        let events = observer.events("vrrp_foreign_router")?;
        ensure!(events.len() == 1, "node{}: {events:?}", observer.node);
        assert_eq!(events[0]["details"]["source"], source.to_string(), "node{}", observer.node);
        assert_eq!(events[0]["details"]["vrid"], VRID.to_string(), "node{}", observer.node);
    }
    Ok(())
}

/// Waits until every observer says that so many routers are foreign.
fn wait_foreign(stage: &Stage, expected: u64) -> Result<()> {
    for observer in &stage.observers {
        wait_until("the foreign routers to be counted", LIMIT, || {
            foreign(observer, VRID).is_ok_and(|routers| routers == Some(expected))
        })
        .with_context(|| format!("node{}", observer.node))?;
    }
    Ok(())
}

#[test]
fn the_same_number_with_another_address_is_foreign() -> Result<()> {
    let lab = lab()?;
    let _apart = keep_apart(&lab)?;
    let (stage, mut second) = begin(&lab, &Spec::v2(), Spec::v2())?;
    let source = lab.node(SECOND)?.address(false)?;
    wait_foreign(&stage, 1)?;
    told_foreign(&stage, source)?;
    undisturbed(&lab, &stage)?;
    second.terminate()?;
    wait_foreign(&stage, 0)?;
    for observer in &stage.observers {
        // Its goodbye was none to the first cluster.
        let page = observer.agent.scrape()?;
        assert_eq!(page.sum("leadline_vip_failovers_total", |_| true), Some(0), "node{}", observer.node);
    }
    ensure!(lab.node(1)?.holding(stage.vip)?.is_some(), "node1 has lost {}", stage.vip);
    all_counted(&stage, VRID, source)
}

#[test]
fn a_cluster_that_puts_another_off_makes_it_fail_over() -> Result<()> {
    let lab = lab()?;
    // Twice as fast: the first cluster's master has never waited for a whole interval when it hears the other.
    let (slow, fast) = (Duration::from_secs(1), Duration::from_millis(500));
    let (slow, fast) =
        (Spec { interval: slow, ..Spec::default() }, Spec { interval: fast, ..Spec::default() });
    let (mut stage, mut second) = begin(&lab, &slow, fast)?;
    let (vip, source) = (stage.vip, lab.node(SECOND)?.address(false)?);
    wait_foreign(&stage, 1)?;
    told_foreign(&stage, source)?;
    for index in 1..BYSTANDER {
        let lines = complaints(stage.trio.daemon(index)?)?;
        println!("node{index}: {} lines, the last {:?}", lines.len(), lines.last());
    }
    let lines = complaints(&second)?;
    println!("node{SECOND}: {} lines, the last {:?}", lines.len(), lines.last());
    ensure!(lines.iter().any(|line| line.contains("not present in MASTER advert")), "{lines:?}");
    second.terminate()?;
    wait_foreign(&stage, 0)?;
    let first = lab.node(1)?.address(false)?;
    for observer in &mut stage.observers {
        // Alone, the first cluster comes to rest.
        observer.capture.wait_until("the first cluster to rest", LONG, |frames| {
            let all = adverts(frames);
            all.len() > PATIENCE && all.iter().rev().take(PATIENCE).all(|advert| advert.source == first)
        })?;
        let of_first = |frame: &Frame| {
            adverts(std::slice::from_ref(frame)).iter().all(|advert| advert.addresses.contains(&vip))
        };
        let frames: Vec<Frame> = observer.capture.frames()?.into_iter().filter(of_first).collect();
        let (moves, mut counted) = (moves(&frames, vip), None);
        let waited = wait_until("the failovers to be counted", LIMIT, || {
            let page = observer.agent.scrape().ok();
            counted = page.and_then(|page| page.sum("leadline_vip_failovers_total", |_| true));
            counted == Some(moves.len() as u64)
        });
        waited.with_context(|| format!("node{}: {counted:?}, tcpdump {moves:?}", observer.node))?;
        let causes = ["timeout", "preempted"].map(|cause| {
            let page = observer.agent.scrape().ok();
            page.and_then(|page| Observer::failovers(&page, vip, cause)).unwrap_or_default()
        });
        println!("node{}: {} failovers of {vip}, by cause {causes:?}", observer.node, moves.len());
        ensure!(causes.iter().all(|count| *count > 0), "node{}: {moves:?}", observer.node);
        for vip in [vip, OTHER.address] {
            let held = observer.count("leadline_vip_held", vip)?;
            let is_held = lab.node(observer.node)?.holding(vip)?.is_some();
            ensure!(held == u64::from(is_held), "node{}: held {held} for {vip}", observer.node);
            assert_eq!(observer.count("leadline_vip_conflicts_total", vip)?, 0, "node{}", observer.node);
        }
    }
    all_counted(&stage, VRID, source)
}
