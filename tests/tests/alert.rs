//! The shipped rules in a real Prometheus that scrapes real agents.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::etcd::{CLIENT_PORT, PEER_PORT, Version};
use lab::prometheus::listen_address;
use lab::{Agent, AgentOptions, Etcd, EtcdOptions, Lab, LabOptions, Prometheus, impair};

/// More than detection, scrape, evaluation and `for` of the slowest of these alerts together.
const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn etcd_pages_when_a_member_is_cut_off_in_one_direction_and_when_quorum_is_lost() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: None })?;
    // The version whose own metrics show nothing of such a cut.
    let mut etcd = Etcd::start(&lab, &EtcdOptions { version: Version::V3_6, ..EtcdOptions::default() })?;
    let agent = |node| {
        let arguments = vec![listen_address(node)?];
        Agent::start(
            node,
            &AgentOptions { arguments, limit: Duration::from_secs(30), ..AgentOptions::default() },
        )
    };
    let agents = lab.nodes().iter().map(agent).collect::<Result<Vec<_>>>()?;
    let prometheus = Prometheus::start(&lab)?;
    let leader = etcd.wait_leader(LIMIT)?;
    let deaf = *etcd.followers()?.first().context("no follower")?;
    let deaf_id = etcd.status(deaf)?.id;

    let cut = impair::cut_tcp(&lab, etcd.node(leader)?, etcd.node(deaf)?, CLIENT_PORT..=PEER_PORT)?;
    let (labels, took) = prometheus.wait_firing("EtcdOneWayPartition", LIMIT)?;
    println!("cut in one direction: fires after {took:?}");
    ensure!(labels["member"] == deaf_id.as_str() && labels["cluster"] == "lab", "{labels:#}");
    ensure!(
        prometheus.firing("EtcdQuorumLost")?.is_empty(),
        "the one that is cut off sees no quorum, others do"
    );
    drop(cut);
    println!("healed: resolved after {:?}", prometheus.wait_resolved("EtcdOneWayPartition", LIMIT)?);

    etcd.wait_healthy(LIMIT)?;
    for member in [1, 2] {
        etcd.kill(member)?;
    }
    let (labels, took) = prometheus.wait_firing("EtcdQuorumLost", LIMIT)?;
    println!("two of three killed: fires after {took:?}");
    ensure!(labels["severity"] == "critical" && labels["cluster"] == "lab", "{labels:#}");
    for member in [1, 2] {
        etcd.restart(member)?;
    }
    println!("restarted: resolved after {:?}", prometheus.wait_resolved("EtcdQuorumLost", LIMIT)?);
    ensure!(prometheus.evaluated()?.len() >= 10, "{:?}", prometheus.evaluated()?);
    drop((agents, prometheus));
    lab.shutdown()
}
