//! Real keepalived with the virtual router's own MAC address, which is at a macvlan device on top of `eth0`. Its
//! advertisements come from there, or from `eth0` itself.

use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::witness::measured;
use lab::witness::tcpdump::{adverts, claims, sent};
use lab::{Lab, Node, Place as _, wait_until};

use crate::service::serve;
use crate::stage::{BYSTANDER, LIMIT, Observer, PORT, Stage, moves};
use crate::timeline::check_errors;

/// Of virtual router 51.
const VIRTUAL: &str = "00:00:5e:00:01:33";

/// Every observer has counted one failover for this cause, at the times that its tcpdump has.
fn check_failover(lab: &Lab, stage: &mut Stage, cause: &str, from_base: bool) -> Result<()> {
    let (vip, mut errors) = (stage.vip, Vec::new());
    let sender = if from_base { lab.node(2)?.mac() } else { VIRTUAL.to_owned() };
    for observer in &mut stage.observers {
        let (page, moves) = observer.wait_moves(vip)?;
        ensure!(Observer::failovers(&page, vip, cause) >= Some(1), "node{}: {moves:?}", observer.node);
        let last = moves.last().context("no failover")?;
        let frames = observer.capture.frames()?;
        let advert = adverts(&frames).into_iter().find(|advert| advert.time == last.first);
        ensure!(advert.context("no advertisement")?.mac == sender, "not from {sender}");
        // Whatever its advertisements come from, the address is at the virtual MAC.
        let all = claims(&frames, vip);
        let claim = all.iter().find(|claim| claim.time >= last.first).context("no claim")?;
        ensure!(claim.mac == VIRTUAL, "{claim:?}");
        let announce = claim.time.saturating_sub(last.first).as_secs_f64();
        println!("node{}: {last:?}, announced after {announce:.6} s", observer.node);
        errors.push((Observer::phase(&page, vip, "detect")? - last.detect.as_secs_f64()).abs());
        errors.push((Observer::phase(&page, vip, "announce")? - announce).abs());
    }
    check_errors(&format!("failover for {cause}"), errors)
}

/// The first packet of node2 after its announcement is the end of the failover, by whichever device it left.
fn check_service(lab: &Lab, stage: &Stage) -> Result<()> {
    let (vip, mut errors) = (stage.vip, Vec::new());
    let owner = [VIRTUAL.to_owned(), lab.node(2)?.mac()];
    for observer in &stage.observers {
        let mut converge = None;
        wait_until("the end of the failover", LIMIT, || {
            let page = observer.agent.scrape();
            converge = page.and_then(|page| Observer::phase(&page, vip, "converge")).ok();
            converge.is_some()
        })
        .with_context(|| format!("node{}", observer.node))?;
        let frames = observer.capture.frames()?;
        let moved = moves(&frames, vip).pop().context("no failover")?;
        let claim = claims(&frames, vip).into_iter().find(|claim| claim.time >= moved.first);
        let claim = claim.context("no claim")?;
        let mut segments = sent(&frames, vip).into_iter();
        let served = segments.find(|sent| sent.time >= moved.first && owner.contains(&sent.mac));
        let served = served.context("nothing was served")?;
        let truth = served.time.saturating_sub(claim.time).as_secs_f64();
        println!("node{}: {converge:?} s, tcpdump {truth:.6} s", observer.node);
        errors.push((converge.context("no end")? - truth).abs());
    }
    check_errors("service", errors)
}

/// Whether each node holds the address, on the device of the virtual router.
fn check_held(lab: &Lab, stage: &Stage, holders: &[u8]) -> Result<()> {
    let vip = stage.vip;
    for (observer, node) in stage.observers.iter().zip(lab.nodes()) {
        let holds = holders.contains(&observer.node);
        let expected = holds.then(|| "vrrp.51".to_owned());
        let mut last = None;
        wait_until("who holds the address", LIMIT, || {
            let held = node.holding(vip).ok().flatten();
            let page = observer.agent.scrape().ok();
            let told = page.and_then(|page| page.count("leadline_vip_held", &[("vip", &vip.to_string())]));
            last = Some((held.map(|held| held.device), told));
            last == Some((expected.clone(), Some(u64::from(holds))))
        })
        .with_context(|| format!("node{}: {last:?}", observer.node))?;
    }
    Ok(())
}

/// A neighbour that knows the address is not told that it is wrong, and the virtual MAC is nobody's double. What the owner
/// asks its neighbours it asks from the address and from the device below, and they learn that (`arp_announce`).
fn check_neighbour(lab: &Lab, stage: &Stage, owner: u8) -> Result<()> {
    let (vip, text, bystander) = (stage.vip, stage.vip.to_string(), lab.node(BYSTANDER)?);
    connect(bystander, vip)?;
    let entry = bystander.run(&["ip", "neighbour", "show", &text])?;
    println!("{}", entry.trim());
    ensure!(entry.contains(VIRTUAL) || entry.contains(&lab.node(owner)?.mac()), "{entry}");
    for observer in &stage.observers {
        let read =
            |name: &str| Ok::<_, anyhow::Error>(observer.agent.scrape()?.count(name, &[("vip", &text)]));
        // The agent is told of a new entry a moment later.
        wait_until("no stale neighbour", LIMIT, || {
            read("leadline_vip_neighbour_stale").is_ok_and(|stale| stale == Some(0))
        })
        .with_context(|| format!("node{}: {entry}", observer.node))?;
        for name in ["leadline_vip_duplicate", "leadline_vip_duplicate_answers_total"] {
            assert_eq!(read(name)?, Some(0), "node{}: {name}", observer.node);
        }
    }
    Ok(())
}

fn connect(from: &Node, to: IpAddr) -> Result<()> {
    let connected = from.net(|| TcpStream::connect_timeout(&SocketAddr::new(to, PORT), LIMIT))?;
    connected.with_context(|| format!("{} to {to}", from.name())).map(drop)
}

/// The nodes of a cluster know each other, and so which MAC is whose.
fn introduce(lab: &Lab) -> Result<()> {
    for from in lab.nodes() {
        for to in lab.nodes().iter().filter(|to| to.index() != BYSTANDER && to.index() != from.index()) {
            connect(from, to.address(false)?)?;
        }
    }
    Ok(())
}

fn check_shutdown(from_base: bool) -> Result<()> {
    let lab = Stage::lab()?;
    let _services = serve(&lab)?;
    introduce(&lab)?;
    let spec = Spec { use_vmac: true, xmit_base: from_base, ..Spec::default() };
    let mut stage = Stage::new(&lab, &spec)?;
    check_held(&lab, &stage, &[1])?;
    check_neighbour(&lab, &stage, 1)?;
    stage.trio.daemon(1)?.terminate()?;
    check_failover(&lab, &mut stage, "shutdown", from_base)?;
    check_service(&lab, &stage)?;
    check_held(&lab, &stage, &[2])?;
    check_neighbour(&lab, &stage, 2)
}

#[test]
fn a_shutdown_is_timed_where_the_virtual_mac_advertises() -> Result<()> {
    measured(|| check_shutdown(false))
}

#[test]
fn a_shutdown_is_timed_where_the_device_below_advertises() -> Result<()> {
    measured(|| check_shutdown(true))
}

#[test]
fn a_crash_leaves_the_address_at_one_virtual_mac_on_two_nodes() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let _services = serve(&lab)?;
        introduce(&lab)?;
        let mut stage = Stage::new(&lab, &Spec { use_vmac: true, ..Spec::v2() })?;
        stage.trio.daemon(1)?.kill_both()?;
        check_failover(&lab, &mut stage, "timeout", false)?;
        check_held(&lab, &stage, &[1, 2])?;
        check_neighbour(&lab, &stage, 2)
    })
}
