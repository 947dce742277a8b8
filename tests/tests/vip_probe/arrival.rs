//! From when on something is said of a port.

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Spec, VIP6};
use lab::witness::tcpdump::{Capture, Frame};
use lab::{Agent, AgentOptions, Certificate, TlsServer};

use crate::stage::{LIMIT, PORT, Stage};

/// Frames to the port: each one a probe, since none of them is accepted.
fn probes(frames: &[Frame]) -> usize {
    let port = PORT.to_be_bytes();
    frames.iter().filter(|frame| frame.bytes.get(36..38) == Some(&port)).count()
}

#[test]
fn an_address_without_the_service_is_no_failure_unless_it_is_listed() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::default())?;
    let filter = format!("tcp port {PORT} and host {}", stage.vip);
    let start = |index| Capture::start(lab.node(index)?, "eth0", &filter);
    let captures: Vec<Capture> = (2..=4).map(start).collect::<Result<_>>()?;
    stage.start_agents(&lab, &[])?;
    for mut capture in captures {
        capture.wait_until("three probes", LIMIT, |frames| probes(frames) >= 3)?;
    }
    for index in 1..=4 {
        let page = stage.page(index)?;
        ensure!(page.reachable().is_none() && page.probes("refused").is_none() && page.unserved().is_none());
        let vip = stage.vip.to_string();
        ensure!(page.samples.value("leadline_vip_conflict", &[("vip", &vip)]).is_some(), "node{index}");
        let is_ours = |sample: &lab::scrape::Sample| sample.label("collector") == Some("vip_probe");
        let support = page.samples.of("leadline_collector_support", is_ours).next();
        let reason =
            support.and_then(|support| support.label("reason")).context("nothing said of the collector")?;
        ensure!(reason == "no probed port of a virtual address has answered", "node{index}: {reason}");
    }

    stage.agents.clear();
    let listed = format!("--vip.addresses=https://{}:{PORT}", stage.vip);
    stage.start_agents(&lab, &[listed])?;
    stage.wait("the service to be missed", |index, page| {
        page.reachable() == Some(0)
            && page.probes("refused") >= Some(2)
            && page.unserved() == (index == 1).then_some(1)
    })?;

    stage.agents.clear();
    let off =
        AgentOptions { arguments: vec!["--collector.vip-probe=off".to_owned()], ..AgentOptions::default() };
    let agent = Agent::start(lab.node(4)?, &off)?;
    let page = agent.scrape()?;
    ensure!(!page.all().iter().any(|sample| sample.label("collector") == Some("vip_probe")));
    lab.shutdown()
}

#[test]
fn an_ipv6_address_is_probed_like_an_ipv4_one() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec { addresses: vec![VIP6], ..Spec::default() })?;
    let certificate = Certificate::new(lab.node(1)?, 30)?;
    let server = TlsServer::start_ipv6(lab.node(1)?, PORT, &certificate)?;
    stage.start_agents(&lab, &[])?;
    let not_after = certificate.not_after()?;
    stage.wait("the service to be reached", |index, page| {
        page.reachable() == Some(1)
            && page.not_after() == Some(not_after)
            && page.unserved() == (index == 1).then_some(0)
    })?;
    server.kill()?;
    stage.wait("the service to be missed", |index, page| {
        page.reachable() == Some(0) && page.unserved() == (index == 1).then_some(1)
    })?;
    // The link-local addresses of the routers are none for clients.
    let page = stage.page(4)?;
    let of_others = |sample: &lab::scrape::Sample| sample.label("vip") != Some(&*stage.vip.to_string());
    ensure!(page.samples.of("leadline_vip_reachable", of_others).next().is_none());
    lab.shutdown()
}
