//! What fails, and what the agents say of it and when.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::etcd::Version;

use crate::stage::{agent, failure, has_margin, id, of_cluster, of_member, wait_agreement, wait_page};
use crate::{ALL_VERSIONS, LIMIT, of, start};

/// Whether a read was answered.
fn read(page: &lab::scrape::Samples, consistency: &str) -> Option<u64> {
    page.count("leadline_etcd_read_success", &[("consistency", consistency)])
}

#[test]
fn the_margin_falls_with_each_member_that_is_killed_and_comes_back() -> Result<()> {
    for version in ALL_VERSIONS {
        let (lab, mut etcd) = start(3, &of(version))?;
        let leader = etcd.wait_leader(LIMIT)?;
        let followers = etcd.followers()?;
        let observer = agent(lab.node(followers[0])?, &[])?;
        wait_page(&observer, "a margin of 1", |page| has_margin(page, 1))?;
        let page = wait_agreement(&observer, &etcd)?;
        ensure!(of_cluster(&page, "quorum") == Some(2.0) && of_cluster(&page, "voters_even") == Some(0.0));
        ensure!(of_cluster(&page, "has_quorum") == Some(1.0));
        // The first of three: nothing is lost yet, and the margin is used up.
        let lost = id(&etcd, leader)?;
        etcd.kill(leader)?;
        let (page, took) = wait_page(&observer, "a margin of 0", |page| has_margin(page, 0))?;
        ensure!(of_cluster(&page, "has_quorum") == Some(1.0), "an election is no loss");
        ensure!(of_member(&page, "member_healthy", &lost) == Some(0));
        println!("{version:?}: killed leader: margin 0 after {took:?}, {:?}", failure(&page, &lost));
        etcd.wait_leader(LIMIT)?;
        wait_page(&observer, "the kill to be a refusal", |page| {
            failure(page, &lost).as_deref() == Some("refused")
        })?;
        let page = wait_agreement(&observer, &etcd)?;
        ensure!(of_member(&page, "term", &lost).is_none(), "a dead member has no term");
        ensure!(has_margin(&page, 0) && of_cluster(&page, "has_quorum") == Some(1.0));
        // The second.
        etcd.kill(followers[1])?;
        let (page, took) = wait_page(&observer, "a margin of -1", |page| has_margin(page, -1))?;
        ensure!(of_cluster(&page, "has_quorum") == Some(0.0));
        println!("{version:?}: second kill: margin -1 after {took:?}");
        let (_, took) = wait_page(&observer, "linearizable reads to fail", |page| {
            read(page, "linearizable") == Some(0) && read(page, "serializable") == Some(1)
        })?;
        println!("{version:?}: linearizable reads fail after another {took:?}");
        ensure!(etcd.etcdctl_at(followers[0], &["get", "a"]).is_err());
        ensure!(etcd.etcdctl_at(followers[0], &["get", "a", "--consistency=s"]).is_ok());
        wait_page(&observer, "no leader", |page| {
            let own = id(&etcd, followers[0]).unwrap_or_default();
            of_member(page, "has_leader", &own) == Some(0)
        })?;
        // And back.
        etcd.restart(leader)?;
        etcd.restart(followers[1])?;
        let (page, took) = wait_page(&observer, "a margin of 1", |page| {
            has_margin(page, 1) && of_cluster(page, "has_quorum") == Some(1.0)
        })?;
        println!("{version:?}: both back: margin 1 after {took:?}");
        ensure!(failure(&page, &lost).is_none());
        etcd.wait_healthy(LIMIT)?;
        wait_agreement(&observer, &etcd)?;
        check_told(&observer)?;
        lab.shutdown()?;
    }
    Ok(())
}

/// Whether two losses and the way back are on the timeline.
fn check_told(observer: &lab::Agent) -> Result<()> {
    for (kind, least) in [
        ("etcd_member_lost", 2),
        ("etcd_member_back", 2),
        ("etcd_quorum_lost", 1),
        ("etcd_quorum_back", 1),
        ("etcd_leader_changed", 1),
    ] {
        let events = observer.events(kind)?;
        ensure!(events.len() >= least, "{kind}: {events:#?}");
    }
    let (lost, back) =
        (observer.events("etcd_quorum_lost")?.len(), observer.events("etcd_quorum_back")?.len());
    ensure!(lost == back, "{lost} losses and {back} returns: the start of the agent was told as one");
    Ok(())
}

#[test]
fn a_frozen_member_is_late_and_delays_no_scrape() -> Result<()> {
    let (lab, mut etcd) = start(3, &of(Version::V3_6))?;
    let followers = etcd.followers()?;
    let (observer, frozen) = (agent(lab.node(followers[0])?, &[])?, followers[1]);
    wait_page(&observer, "a margin of 1", |page| has_margin(page, 1))?;
    let lost = id(&etcd, frozen)?;
    etcd.freeze(frozen)?;
    let (page, took) = wait_page(&observer, "a margin of 0", |page| has_margin(page, 0))?;
    println!("frozen: margin 0 after {took:?}");
    ensure!(failure(&page, &lost).as_deref() == Some("late"), "{:?}", failure(&page, &lost));
    let events = || observer.events("etcd_member_lost").is_ok_and(|events| events.len() == 1);
    lab::process::wait_until("the loss to be told", LIMIT, events)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        observer.scrape()?;
        slowest = slowest.max(begun.elapsed());
    }
    println!("slowest of 20 scrapes meanwhile: {slowest:?}");
    etcd.thaw(frozen)?;
    let (_, took) = wait_page(&observer, "a margin of 1", |page| has_margin(page, 1))?;
    println!("thawed: margin 1 after {took:?}");
    wait_agreement(&observer, &etcd)?;
    let back = || observer.events("etcd_member_back").is_ok_and(|events| events.len() == 1);
    lab::process::wait_until("the return to be told", LIMIT, back)?;
    lab.shutdown()
}

#[test]
fn a_leader_that_hands_over_is_an_event_and_no_loss() -> Result<()> {
    let (lab, etcd) = start(3, &of(Version::V3_6))?;
    let (leader, followers) = (etcd.wait_leader(LIMIT)?, etcd.followers()?);
    let observer = agent(lab.node(leader)?, &[])?;
    wait_agreement(&observer, &etcd)?;
    let changes = |page: &lab::scrape::Samples| {
        let own = id(&etcd, leader).unwrap_or_default();
        of_member(page, "leader_changes_total", &own)
    };
    let before = changes(&observer.scrape()?).context("no count of changes")?;
    let begun = Instant::now();
    etcd.move_leader(followers[0])?;
    let new = id(&etcd, followers[0])?;
    let own = id(&etcd, leader)?;
    wait_page(&observer, "the new leader", |page| {
        page.count("leadline_etcd_leader", &[("member", &own), ("leader", &new)]) == Some(1)
            && changes(page) == Some(before + 1)
    })?;
    println!("leader moved: seen {:?} after the order", begun.elapsed());
    let events = observer.events("etcd_leader_changed")?;
    ensure!(events.len() == 1, "{events:#?}");
    ensure!(events[0]["subject"] == format!("node{}", followers[0]), "{events:#?}");
    ensure!(events[0]["details"]["was"] == format!("node{leader}"), "{events:#?}");
    ensure!(
        observer.events("etcd_quorum_lost")?.is_empty() && observer.events("etcd_member_lost")?.is_empty()
    );
    wait_agreement(&observer, &etcd)?;
    lab.shutdown()
}
