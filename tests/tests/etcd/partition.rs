//! A wire that is cut in one direction, or slow, between members that are all well.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::etcd::{CLIENT_PORT, PEER_PORT, Version};
use lab::{Delay, EtcdOptions, impair};

use crate::stage::{agent, has_margin, id, of_cluster, of_member, wait_agreement, wait_page};
use crate::{VERSIONS, of, start};

#[test]
fn a_follower_that_does_not_hear_its_leader_does_not_count() -> Result<()> {
    for version in VERSIONS {
        let (lab, etcd) = start(3, &of(version))?;
        let leader = etcd.wait_leader(crate::LIMIT)?;
        let [cut_off, third] = <[u8; 2]>::try_from(etcd.followers()?).ok().context("not two followers")?;
        let (near, far) = (agent(lab.node(third)?, &[])?, agent(lab.node(cut_off)?, &[])?);
        for observer in [&near, &far] {
            wait_agreement(observer, &etcd)?;
        }
        let deaf = id(&etcd, cut_off)?;
        let began = Instant::now();
        let cut = impair::cut_tcp(&lab, etcd.node(leader)?, etcd.node(cut_off)?, CLIENT_PORT..=PEER_PORT)?;
        let (page, _) = wait_page(&near, "a margin of 0", |page| has_margin(page, 0))?;
        println!("{version:?}: cut one way: margin 0 at the third node after {:?}", began.elapsed());
        ensure!(of_member(&page, "member_healthy", &deaf) == Some(0));
        ensure!(of_member(&page, "has_leader", &deaf) == Some(0), "it answers, and knows no leader");
        ensure!(etcd.status(cut_off)?.leader.is_none(), "by etcdctl");
        ensure!(of_cluster(&page, "has_quorum") == Some(1.0));
        // Who is cut off sees a majority of nothing: the truth is the maximum over all nodes.
        wait_page(&far, "no quorum", |page| of_cluster(page, "has_quorum") == Some(0.0))?;
        drop(cut);
        for observer in [&near, &far] {
            wait_page(observer, "a margin of 1", |page| has_margin(page, 1))?;
            wait_agreement(observer, &etcd)?;
        }
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn a_learner_that_is_cut_off_falls_behind_and_catches_up() -> Result<()> {
    let (lab, mut etcd) = start(4, &of(Version::V3_6))?;
    etcd.add_learner(lab.node(4)?)?;
    let (learner, leader) = (id(&etcd, 4)?, etcd.wait_leader(crate::LIMIT)?);
    let observer = agent(lab.node(etcd.followers()?[0])?, &[])?;
    let lag = |page: &lab::scrape::Samples| of_member(page, "index_lag", &learner);
    wait_page(&observer, "no lag", |page| lag(page) == Some(0))?;
    let cut = impair::cut_tcp(&lab, etcd.node(leader)?, etcd.node(4)?, PEER_PORT..=PEER_PORT)?;
    for number in 0..50 {
        etcd.etcdctl_at(leader, &["put", &format!("key/{number}"), "value"])?;
    }
    let told = etcd.status(leader)?.raft_index - etcd.status(4)?.raft_applied_index;
    ensure!(told >= 50, "{told}");
    wait_page(&observer, "the lag that etcdctl tells", |page| lag(page) == Some(told))?;
    drop(cut);
    wait_page(&observer, "no lag", |page| lag(page) == Some(0))?;
    lab.shutdown()
}

#[test]
fn a_read_takes_as_long_as_the_wire() -> Result<()> {
    const ONE_WAY: Duration = Duration::from_millis(20);
    let (lab, etcd) = start(2, &EtcdOptions { members: 1, ..of(Version::V3_6) })?;
    let (member, elsewhere) = (lab.node(1)?, lab.node(2)?);
    elsewhere.own_etc()?;
    etcd.pki().install(elsewhere)?;
    let delay = Delay::insert(&lab, member, ONE_WAY)?;
    let observer = agent(elsewhere, &["--etcd.endpoints=https://192.168.56.11:2379"])?;
    wait_page(&observer, "two reads of one round trip each", |page| {
        ["linearizable", "serializable"].iter().all(|consistency| {
            let took = page.value("leadline_etcd_read_duration_seconds", &[("consistency", consistency)]);
            took.is_some_and(|took| (took - 2.0 * ONE_WAY.as_secs_f64()).abs() < 0.005)
        })
    })?;
    // The page of metrics is on the member's own node, and is not missed here.
    observer.wait_support("etcd", "supported", "", crate::LIMIT)?;
    drop(delay);
    lab.shutdown()
}
