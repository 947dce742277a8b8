//! The lab's own keepalived and its witness tcpdump: elections, farewells, crashes and hangs look as the standard says.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{PRIORITIES, Spec, VIP, VIP6, Version, wait_master};
use lab::witness::tcpdump::{Advert, Capture, Frame, VRRP_FILTER, adverts, claims};
use lab::{Lab, LabOptions, Node, Place as _, Trio, cgroup, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

/// What a busy machine may add to a timer, and what the clock of a capture may take from it.
const LATE: Duration = Duration::from_millis(250);
const EARLY: Duration = Duration::from_millis(2);

fn lab() -> Result<Lab> {
    Lab::start(&LabOptions { nodes: 3, flannel: None })
}

fn capture(lab: &Lab) -> Result<Capture> {
    Capture::start(lab.switch()?, "br0", VRRP_FILTER)
}

/// The names of the nodes that have the address.
fn holders(lab: &Lab, address: IpAddr) -> Result<Vec<&str>> {
    let mut holders = Vec::new();
    for node in lab.nodes() {
        if node.holding(address)?.is_some() {
            holders.push(node.name());
        }
    }
    Ok(holders)
}

fn by(frames: &[Frame], node: &Node) -> Vec<Advert> {
    adverts(frames).into_iter().filter(|advert| advert.mac == node.mac()).collect()
}

/// Checks the time between two advertisements.
fn check_between(from: &Advert, to: &Advert, expected: Duration) -> Result<()> {
    let what = format!("{from:?} to {to:?}");
    let measured = to.time.checked_sub(from.time).with_context(|| format!("{what} goes back in time"))?;
    ensure!(measured + EARLY >= expected, "{what} took only {measured:?}, not {expected:?}");
    ensure!(measured <= expected + LATE, "{what} took {measured:?}, not {expected:?}");
    Ok(())
}

fn second(spec: &Spec) -> Spec {
    Spec { priority: PRIORITIES[1], ..spec.clone() }
}

/// What node1, its master, says in a settled trio.
fn check_elected(lab: &Lab, trio: &Trio, destinations: &[IpAddr]) -> Result<()> {
    let (node, spec, vip) = (lab.node(1)?, trio.spec(), trio.vip()?);
    assert_eq!(holders(lab, vip)?, ["node1"]);
    let mut capture = capture(lab)?;
    capture.wait_until("three advertisements", LIMIT, |frames| adverts(frames).len() >= 3)?;
    let all = adverts(&capture.stop()?);
    for advert in &all {
        let version = if spec.version == Version::V2 { 2 } else { 3 };
        let facts = (advert.version, advert.vrid, advert.priority, advert.interval, advert.ttl);
        assert_eq!(facts, (version, 51, 150, spec.interval, 255));
        assert_eq!((&advert.mac, &advert.addresses[..]), (&node.mac(), &[vip][..]));
    }
    let mut seen: Vec<IpAddr> = all.iter().map(|advert| advert.destination).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, destinations);
    Ok(())
}

/// A proper stop of node1: what the wire shows, and that the times are those of the standard.
fn check_farewell(lab: &Lab, trio: &mut Trio) -> Result<()> {
    let (one, two, vip) = (lab.node(1)?, lab.node(2)?, trio.vip()?);
    let mut capture = capture(lab)?;
    let status = trio.daemon(1)?.terminate()?;
    ensure!(status.success(), "{status}: {}", trio.daemon(1)?.log()?);
    wait_master(two, vip, LIMIT)?;
    capture.wait_until("a claim of node2", LIMIT, |frames| {
        claims(frames, vip).iter().any(|claim| claim.mac == two.mac()) && !by(frames, two).is_empty()
    })?;
    let frames = capture.stop()?;
    let farewell = by(&frames, one).into_iter().find(|advert| advert.priority == 0).context("no farewell")?;
    let taken = by(&frames, two).into_iter().next().context("no advertisement of node2")?;
    assert_eq!(taken.priority, 140);
    check_between(&farewell, &taken, second(trio.spec()).skew())?;
    let claim = claims(&frames, vip).into_iter().find(|claim| claim.mac == two.mac()).context("no claim")?;
    ensure!(claim.time >= taken.time && claim.time < taken.time + LATE, "{claim:?} after {taken:?}");
    assert_eq!(holders(lab, vip)?, ["node2"]);
    Ok(())
}

#[test]
fn version_2_with_a_password_elects_node1_and_says_farewell() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec { password: Some("lab12345".into()), ..Spec::v2() })?;
    check_elected(&lab, &trio, &["224.0.0.18".parse()?])?;
    check_farewell(&lab, &mut trio)?;
    drop(trio);
    lab.shutdown()
}

#[test]
fn version_3_elects_node1_and_says_farewell() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec::default())?;
    check_elected(&lab, &trio, &["224.0.0.18".parse()?])?;
    check_farewell(&lab, &mut trio)?;
    drop(trio);
    lab.shutdown()
}

#[test]
fn unicast_peers_elect_node1_and_hear_its_farewell() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start_unicast(&lab, &Spec::default())?;
    check_elected(&lab, &trio, &[lab.node(2)?.address(false)?, lab.node(3)?.address(false)?])?;
    check_farewell(&lab, &mut trio)?;
    drop(trio);
    lab.shutdown()
}

#[test]
fn ipv6_elects_node1_and_claims_by_neighbour_advertisements() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec { addresses: vec![VIP6], ..Spec::default() })?;
    check_elected(&lab, &trio, &["ff02::12".parse()?])?;
    check_farewell(&lab, &mut trio)?;
    drop(trio);
    lab.shutdown()
}

#[test]
fn a_crash_leaves_the_address_on_two_nodes() -> Result<()> {
    let lab = lab()?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let mut trio = Trio::start(&lab, &Spec::default())?;
    let vip = trio.vip()?;
    let mut capture = capture(&lab)?;
    capture.wait_until("an advertisement", LIMIT, |frames| !adverts(frames).is_empty())?;
    trio.daemon(1)?.kill_both()?;
    wait_master(two, vip, LIMIT)?;
    capture.wait_until("an advertisement of node2", LIMIT, |frames| !by(frames, two).is_empty())?;
    let frames = capture.stop()?;
    let last = by(&frames, one).pop().context("no advertisement of node1")?;
    assert_eq!(last.priority, 150, "a crash says no farewell");
    let taken = by(&frames, two).into_iter().next().context("no advertisement of node2")?;
    check_between(&last, &taken, second(trio.spec()).master_down())?;
    assert_eq!(holders(&lab, vip)?, ["node1", "node2"]);
    one.remove_address(vip)?;
    assert_eq!(holders(&lab, vip)?, ["node2"]);
    drop(trio);
    lab.shutdown()
}

#[test]
fn a_killed_parent_takes_the_child_along_properly() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec::default())?;
    let vip = trio.vip()?;
    let capture = capture(&lab)?;
    trio.daemon(1)?.kill_parent()?;
    wait_master(lab.node(2)?, vip, LIMIT)?;
    assert_eq!(holders(&lab, vip)?, ["node2"]);
    let farewells = by(&capture.stop()?, lab.node(1)?);
    assert_eq!(farewells.iter().filter(|advert| advert.priority == 0).count(), 1, "{farewells:?}");
    drop(trio);
    lab.shutdown()
}

#[test]
fn a_killed_child_is_started_again() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec::default())?;
    let vip = trio.vip()?;
    let daemon = trio.daemon(1)?;
    let (parent, child) = (daemon.parent()?, daemon.child()?);
    daemon.kill_child()?;
    wait_until("another child", LIMIT, || daemon.child().is_ok_and(|other| other != child))?;
    assert_eq!(daemon.parent()?, parent);
    wait_until("node1 alone to be master again", LIMIT, || {
        holders(&lab, vip).is_ok_and(|holders| holders == ["node1"])
    })?;
    drop(trio);
    lab.shutdown()
}

#[test]
fn a_hang_makes_two_masters_until_it_ends() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec::default())?;
    let vip = trio.vip()?;
    trio.daemon(1)?.stop_child()?;
    wait_master(lab.node(2)?, vip, LIMIT)?;
    assert_eq!(holders(&lab, vip)?, ["node1", "node2"]);
    trio.daemon(1)?.continue_child()?;
    wait_until("node2 to step down", LIMIT, || holders(&lab, vip).is_ok_and(|holders| holders == ["node1"]))?;
    drop(trio);
    lab.shutdown()
}

#[test]
fn a_restarted_keepalived_takes_the_address_back() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec::default())?;
    let vip = trio.vip()?;
    trio.daemon(1)?.terminate()?;
    wait_master(lab.node(2)?, vip, LIMIT)?;
    trio.daemon(1)?.restart()?;
    wait_until("node1 alone to be master", LIMIT, || {
        holders(&lab, vip).is_ok_and(|holders| holders == ["node1"])
    })?;
    drop(trio);
    lab.shutdown()
}

#[test]
fn without_preemption_a_restarted_keepalived_stays_backup() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec { nopreempt: true, ..Spec::default() })?;
    let vip = trio.vip()?;
    trio.daemon(1)?.terminate()?;
    wait_master(lab.node(2)?, vip, LIMIT)?;
    trio.daemon(1)?.restart()?;
    let mut capture = capture(&lab)?;
    // Several times what node1 would wait for a master before it becomes one.
    capture.wait_until("twenty advertisements", LIMIT, |frames| adverts(frames).len() >= 20)?;
    assert_eq!(by(&capture.stop()?, lab.node(1)?), []);
    assert_eq!(holders(&lab, vip)?, ["node2"]);
    drop(trio);
    lab.shutdown()
}

#[test]
fn a_virtual_mac_moves_with_the_address() -> Result<()> {
    let lab = lab()?;
    let mut capture = capture(&lab)?;
    let mut trio = Trio::start(&lab, &Spec { use_vmac: true, ..Spec::default() })?;
    let vip = trio.vip()?;
    let device = |node: &Node| Ok::<_, anyhow::Error>(node.holding(vip)?.map(|held| held.device));
    assert_eq!(device(lab.node(1)?)?.as_deref(), Some("vrrp.51"));
    trio.daemon(1)?.terminate()?;
    wait_master(lab.node(2)?, vip, LIMIT)?;
    assert_eq!(device(lab.node(2)?)?.as_deref(), Some("vrrp.51"));
    capture.wait_until("claims of both", LIMIT, |frames| claims(frames, vip).len() >= 10)?;
    let claims = claims(&capture.stop()?, vip);
    ensure!(claims.iter().all(|claim| claim.mac == "00:00:5e:00:01:33"), "{claims:?}");
    drop(trio);
    for node in lab.nodes() {
        node.run(&["test", "!", "-e", "/sys/class/net/vrrp.51"])?;
    }
    lab.shutdown()
}

#[test]
fn nothing_of_a_dropped_trio_is_left() -> Result<()> {
    let lab = lab()?;
    let mut trio = Trio::start(&lab, &Spec::default())?;
    let vip = trio.vip()?;
    let mut pids = Vec::new();
    for index in 1..=3 {
        pids.extend([trio.daemon(index)?.parent()?, trio.daemon(index)?.child()?]);
    }
    // Two addresses are to be removed, one of a hanging process.
    trio.daemon(1)?.stop_child()?;
    wait_master(lab.node(2)?, vip, LIMIT)?;
    drop(trio);
    assert_eq!(holders(&lab, vip)?, [""; 0]);
    for pid in pids {
        // Its new parent may not have taken its exit status yet.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        ensure!(stat.is_empty() || stat.contains(") Z "), "process {pid} lives: {stat}");
    }
    for node in lab.nodes() {
        let unit = node.root().join("system.slice/keepalived.service");
        ensure!(cgroup::is_empty(&unit) && !unit.exists(), "{} is there", unit.display());
    }
    lab.shutdown()
}

/// The decoder of the tests against tcpdump's own.
#[test]
fn the_decoder_agrees_with_tcpdump() -> Result<()> {
    let lab = lab()?;
    let mut capture = capture(&lab)?;
    let trio = Trio::start(&lab, &Spec::default())?;
    capture.wait_until("five claims", LIMIT, |frames| claims(frames, VIP.address).len() >= 5)?;
    drop(trio);
    let text = capture.describe()?;
    let frames = capture.frames()?;
    let ours: Vec<String> = adverts(&frames)
        .iter()
        .map(|advert| {
            format!(
                "{} > {}: VRRPv{}, Advertisement, vrid {}, prio {}, intvl {}cs, length 12, addrs: {}",
                advert.source,
                advert.destination,
                advert.version,
                advert.vrid,
                advert.priority,
                advert.interval.as_millis() / 10,
                advert.addresses[0]
            )
        })
        .collect();
    let theirs: Vec<&str> = text.lines().map(str::trim).filter(|line| line.contains(": VRRPv")).collect();
    ensure!(ours.len() >= 10 && ours == theirs, "{ours:#?}\n{theirs:#?}");
    let tell =
        |line: &&str| line.contains("Request who-has 192.168.56.50 (ff:ff:ff:ff:ff:ff) tell 192.168.56.50,");
    let theirs: Vec<String> = text.lines().filter(tell).map(|line| line[..20].to_owned()).collect();
    let ours = claims(&frames, VIP.address);
    let ours: Vec<String> = ours
        .iter()
        .map(|claim| format!("{}.{:09}", claim.time.as_secs(), claim.time.subsec_nanos()))
        .collect();
    assert_eq!(ours, theirs);
    lab.shutdown()
}
