//! Which nodes probe, where there are more than need to.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Spec, VIP};
use lab::{Agent, AgentOptions, Certificate, Flannel, Keepalived, Lab, LabOptions, TlsServer, wait_until};

use crate::stage::{LIMIT, PORT};

/// Nodes that probe beside the holder.
const OBSERVERS: usize = 8;

fn is_probing(agent: &Agent, vip: IpAddr) -> Option<bool> {
    let page = agent.scrape().ok()?;
    let labels = [("vip", &*vip.to_string()), ("result", "ok")];
    let is_observed = page.count("leadline_vip_probes_total", &labels).map(|count| count > 0);
    let of_collector = |sample: &lab::scrape::Sample| sample.label("collector") == Some("vip_probe");
    let reason = page.of("leadline_collector_support", of_collector).next()?.label("reason")?.to_owned();
    // Neither yet is no answer.
    is_observed
        .filter(|is_probing| *is_probing)
        .or_else(|| (reason == "other nodes probe the virtual addresses").then_some(false))
}

#[test]
fn eight_of_nine_nodes_probe_and_agree_without_talking() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 9, flannel: Some(Flannel::default()) })?;
    let vip = VIP.address;
    let certificate = Certificate::new(lab.node(1)?, 30)?;
    let _server = TlsServer::start(lab.node(1)?, PORT, &certificate)?;
    let mut keepalived = Keepalived::start(lab.node(1)?, &Spec::default())?;
    lab::keepalived::wait_master(lab.node(1)?, vip, LIMIT)?;
    let options = AgentOptions { limit: LIMIT, ..AgentOptions::default() };
    let agents: Vec<Agent> =
        lab.nodes().iter().map(|node| Agent::start(node, &options)).collect::<Result<_>>()?;
    let mut probing = Vec::new();
    let settled = wait_until("eight nodes to probe", LIMIT, || {
        probing = agents.iter().map(|agent| is_probing(agent, vip)).collect();
        probing.iter().filter(|probing| **probing == Some(true)).count() >= OBSERVERS
            && !probing.contains(&None)
    });
    settled.with_context(|| format!("{probing:?}"))?;
    println!("probing: {probing:?}");
    let others = probing.iter().skip(1).filter(|probing| **probing == Some(true)).count();
    // The holder probes in any case: where it is chosen, one of the others is not.
    ensure!(probing[0] == Some(true) && (OBSERVERS - 1..=OBSERVERS).contains(&others), "{probing:?}");

    // Who is not chosen begins when it holds the address.
    if let Some(idle) = probing.iter().position(|probing| *probing == Some(false)) {
        let node = lab.nodes().get(idle).context("no such node")?;
        let _server = TlsServer::start(node, PORT, &Certificate::new(node, 60)?)?;
        keepalived.terminate()?;
        let _heir = Keepalived::start(node, &Spec::default())?;
        wait_until("the new holder to probe", LIMIT, || is_probing(&agents[idle], vip) == Some(true))?;
    }
    lab.shutdown()
}
