//! Faults between members, as etcd itself and the lab's own counters see them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::etcd::{CLIENT_PORT, PEER_PORT, Version};
use lab::{Delay, Etcd, Lab, LabOptions, Node, Place as _, impair, wait_until};

use crate::{LIMIT, VERSIONS, of, start};

fn has_leader(etcd: &Etcd, member: u8) -> Option<u64> {
    etcd.metrics(member).ok()?.count("etcd_server_has_leader", &[])
}

/// Whether a member takes another one for active.
fn active(etcd: &Etcd, [member, other]: [u8; 2], [id, other_id]: [&str; 2]) -> Option<u64> {
    let labels = [("Local", id), ("Remote", other_id)];
    let value = etcd.metrics(member).ok()?.count("etcd_network_active_peers", &labels);
    value.with_context(|| format!("node{member} does not know node{other}")).ok()
}

/// The receiver misses the leader's heartbeats. Only etcd 3.4 also notices that the connections are dead: in 3.6 the
/// time-outs of its streams do not work, and both ends take each other for active as long as the kernel keeps trying.
#[test]
fn a_cut_from_the_leader_to_a_follower_shows_in_their_metrics() -> Result<()> {
    for version in VERSIONS {
        let (lab, etcd) = start(3, &of(version))?;
        let leader = etcd.wait_leader(LIMIT)?;
        let [cut_off, other] = <[u8; 2]>::try_from(etcd.followers()?).ok().context("not two followers")?;
        let (id, cut_off_id) = (etcd.status(leader)?.id, etcd.status(cut_off)?.id);
        let forward = || active(&etcd, [leader, cut_off], [&id, &cut_off_id]);
        let backward = || active(&etcd, [cut_off, leader], [&cut_off_id, &id]);
        assert_eq!([forward(), backward()], [Some(1); 2]);

        let began = Instant::now();
        let cut = impair::cut_tcp(&lab, etcd.node(leader)?, etcd.node(cut_off)?, CLIENT_PORT..=PEER_PORT)?;
        wait_until("the follower to miss its leader", LIMIT, || has_leader(&etcd, cut_off) == Some(0))?;
        println!("{version:?} no leader after {:?}", began.elapsed());
        assert_eq!([leader, other].map(|member| has_leader(&etcd, member)), [Some(1); 2]);
        assert!(cut.counted()? > 0);
        if version == Version::V3_4 {
            wait_until("both ends to be inactive", LIMIT, || [forward(), backward()] == [Some(0); 2])?;
            println!("{version:?} inactive after {:?}", began.elapsed());
        }
        assert_eq!(etcd.leader(), Some(leader));

        drop(cut);
        wait_until("all to have a leader again", LIMIT, || {
            etcd.numbers().iter().all(|member| has_leader(&etcd, *member) == Some(1))
        })?;
        wait_until("both ends to be active", LIMIT, || [forward(), backward()] == [Some(1); 2])?;
        lab.shutdown()?;
    }
    Ok(())
}

/// The shortest of a few round-trip times.
fn round_trip(from: &Node, to: IpAddr) -> Result<Duration> {
    let output = from.run(&["ping", "-q", "-c", "10", "-i", "0.05", "-W", "2", &to.to_string()])?;
    let shortest = output.rsplit_once(" = ").and_then(|(_, times)| times.split('/').next());
    let milliseconds: f64 = shortest.context("no times")?.parse().with_context(|| output.clone())?;
    Ok(Duration::from_secs_f64(milliseconds / 1e3))
}

#[test]
fn asymmetric_delays_of_two_nodes_add_up() -> Result<()> {
    const FAST: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_millis(30);
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: None })?;
    let [first, second] = [lab.node(1)?, lab.node(2)?];
    let delays = [
        Delay::insert_asymmetric(&lab, first, [FAST, SLOW])?,
        Delay::insert_asymmetric(&lab, second, [SLOW, FAST])?,
    ];
    let all = round_trip(first, second.address(false)?)?;
    let one = round_trip(first, lab.node(3)?.address(false)?)?;
    println!("{all:?} between two delayed nodes, {one:?} from one of them; {:?}", delays[0].passed());
    ensure!(all >= 2 * (FAST + SLOW) && all < 3 * (FAST + SLOW), "{all:?}");
    ensure!(one >= FAST + SLOW && one < 2 * (FAST + SLOW), "{one:?}");
    let [out, back] = delays[0].passed().map(|passed| passed.mean().unwrap_or_default());
    ensure!(out >= FAST && out < SLOW && back >= SLOW, "{out:?} {back:?}");
    drop(delays);
    let none = round_trip(first, second.address(false)?)?;
    ensure!(none < FAST, "{none:?} without a delay");
    lab.shutdown()
}
