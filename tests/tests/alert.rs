//! The shipped rules in a real Prometheus that scrapes real agents.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::etcd::{CLIENT_PORT, PEER_PORT, Version};
use lab::keepalived::{Spec, VIP};
use lab::prometheus::listen_address;
use lab::{
    Agent, AgentOptions, Alertmanager, Etcd, EtcdOptions, Firewall, Lab, LabOptions, Prometheus, Trio, impair,
};
use serde_json::json;

/// More than detection, scrape, evaluation and `for` of the slowest of these alerts together.
const LIMIT: Duration = Duration::from_mins(2);

/// From the fault on: detection, scrape and evaluation of 5 s each, `for` of 10 s and 2 s more.
const PAGED: Duration = Duration::from_secs(24);

fn agents(lab: &Lab) -> Result<Vec<Agent>> {
    let agent = |node| {
        let arguments = vec![listen_address(node)?];
        Agent::start(
            node,
            &AgentOptions { arguments, limit: Duration::from_secs(30), ..AgentOptions::default() },
        )
    };
    lab.nodes().iter().map(agent).collect()
}

#[test]
fn etcd_pages_when_a_member_is_cut_off_in_one_direction_and_when_quorum_is_lost() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: None })?;
    // The version whose own metrics show nothing of such a cut.
    let mut etcd = Etcd::start(&lab, &EtcdOptions { version: Version::V3_6, ..EtcdOptions::default() })?;
    let agents = agents(&lab)?;
    let alertmanager = Alertmanager::start(&lab)?;
    let prometheus = Prometheus::start_with(&lab, &alertmanager)?;
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
    let (told, more) = alertmanager.wait_told("EtcdQuorumLost", LIMIT)?;
    println!("Alertmanager is told {more:?} later");
    ensure!(told["receivers"][0]["name"] == "pages", "{told:#}");
    ensure!(labels["severity"] == "critical" && labels["cluster"] == "lab", "{labels:#}");
    for member in [1, 2] {
        etcd.restart(member)?;
    }
    println!("restarted: resolved after {:?}", prometheus.wait_resolved("EtcdQuorumLost", LIMIT)?);
    ensure!(prometheus.evaluated()?.len() >= 10, "{:?}", prometheus.evaluated()?);
    drop((agents, prometheus, alertmanager));
    lab.shutdown()
}

#[test]
fn a_virtual_address_pages_when_nobody_has_it_and_when_several_have() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: None })?;
    let mut trio = Trio::start(&lab, &Spec::default())?;
    let agents = agents(&lab)?;
    let alertmanager = Alertmanager::start(&lab)?;
    let prometheus = Prometheus::start_with(&lab, &alertmanager)?;
    let vip = VIP.address.to_string();
    let known = format!("count(leadline_vip_announcer{{vip=\"{vip}\"}} == 1) == {}", lab.nodes().len());
    lab::wait_until("Prometheus to know the address from every node", LIMIT, || {
        prometheus.query(&known).is_ok_and(|found| !found.is_empty())
    })?;
    for alert in ["VipLost", "VipSplitBrain", "VipUnreachable"] {
        ensure!(prometheus.firing(alert)?.is_empty(), "{alert} fires without a reason");
    }

    for node in 1..=3 {
        trio.daemon(node)?.terminate()?;
    }
    let (told, took) = alertmanager.wait_told("VipLost", LIMIT)?;
    println!("all of keepalived stopped: Alertmanager is told after {took:?}");
    ensure!(told["receivers"][0]["name"] == "pages" && told["labels"]["vip"] == vip.as_str(), "{told:#}");
    ensure!(took <= PAGED, "{took:?}");
    for node in 1..=3 {
        trio.daemon(node)?.restart()?;
    }
    println!("started again: resolved after {:?}", prometheus.wait_resolved("VipLost", LIMIT)?);

    let deaf = [Firewall::deaf(lab.node(2)?)?, Firewall::deaf(lab.node(3)?)?];
    let (told, took) = alertmanager.wait_told("VipSplitBrain", LIMIT)?;
    println!("backups that do not hear: Alertmanager is told after {took:?}");
    ensure!(told["receivers"][0]["name"] == "pages" && told["labels"]["vip"] == vip.as_str(), "{told:#}");
    ensure!(took <= PAGED, "{took:?}");
    drop(deaf);
    println!("they hear again: resolved after {:?}", prometheus.wait_resolved("VipSplitBrain", LIMIT)?);
    drop((agents, prometheus, alertmanager, trio));
    lab.shutdown()
}

#[test]
fn who_is_paged_for_the_quorum_is_not_paged_for_the_api_servers_address() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let alertmanager = Alertmanager::start(&lab)?;
    let unreachable = |cluster: &str, port: &str| json!({"alertname": "VipUnreachable", "severity": "critical", "cluster": cluster, "vip": "192.0.2.9", "port": port});
    let lost = json!({"alertname": "EtcdQuorumLost", "severity": "critical", "cluster": "one"});
    let ingress = unreachable("one", "443");
    let elsewhere = unreachable("two", "6443");
    alertmanager.tell(&[lost, unreachable("one", "6443"), ingress.clone(), elsewhere.clone()])?;
    let mut last = Vec::new();
    let waited = lab::wait_until("the address of that API server alone to be kept back", LIMIT, || {
        last = alertmanager.active("VipUnreachable").unwrap_or_default();
        let labels: Vec<_> = last.iter().map(|alert| &alert["labels"]).collect();
        labels.len() == 2 && labels.contains(&&ingress) && labels.contains(&&elsewhere)
    });
    waited.with_context(|| format!("active: {last:#?}"))?;
    ensure!(alertmanager.active("EtcdQuorumLost")?.len() == 1, "the cause itself is kept back");
    drop(alertmanager);
    lab.shutdown()
}
