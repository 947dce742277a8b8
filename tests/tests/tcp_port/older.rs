//! Connections of a watched port that are older than the agent: with callbacks in the host's namespace, sampled in a pod.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::witness::nstat;
use lab::{Agent, Firewall, Place as _, Pod, PodSpec, wait_until};

use crate::program::Program;
use crate::view::{View, expect};
use crate::{PORT, host_pod, lose, options, start_lab};

const CONNECTIONS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// Has the connections lose everything for a while; answers with what the kernel sent again.
fn starve<F>(client: &mut Program, pod: &Pod, lose: impl FnOnce() -> Result<F>) -> Result<(u64, u64)> {
    let before = nstat(pod)?;
    let added = |name: &str| -> Result<u64> { Ok(nstat(pod)?[name] - before[name]) };
    let blackout = lose()?;
    client.say("exchange 1")?;
    let enough = || added("TcpExtTCPTimeouts").ok().filter(|timeouts| *timeouts >= 2 * CONNECTIONS);
    wait_for("timeouts", PATIENCE, enough)?;
    drop(blackout);
    client.answer()?;
    Ok((added("TcpRetransSegs")?, added("TcpExtTCPTimeouts")?))
}

/// Exchanges until each connection has been sampled.
fn wait_for_samples(agent: &Agent, client: &mut Program, server: SocketAddr, samples: u64) -> Result<()> {
    wait_until("round trips", PATIENCE, || {
        let exchanged = client.ask("exchange 1").is_ok();
        let view = View::of(agent, PORT, server.ip()).ok();
        exchanged && view.and_then(|view| view.round_trips().ok()).is_some_and(|(count, _)| count >= samples)
    })
}

#[test]
fn older_connections_of_a_watched_port_tell_round_trips_and_retransmits() -> Result<()> {
    let lab = start_lab(false)?;
    let (pod, two) = (host_pod(&lab, 1, "member")?, lab.node(2)?);
    let _server = Program::serve(two, PORT, Duration::ZERO)?;
    let mut client = Program::client(&pod)?;
    let target = SocketAddr::new(two.address(false)?, PORT);
    client.ask(&format!("open {target} E {CONNECTIONS}"))?;
    client.ask("exchange 1")?;
    let agent = Agent::start(lab.node(1)?, &options())?;
    wait_for_samples(&agent, &mut client, target, CONNECTIONS)?;
    let (segments, timeouts) = starve(&mut client, &pod, || lose(&lab, &["node1", "node2"], 1_000))?;
    client.ask("reset")?;
    println!("{segments} segments sent again, {timeouts} timeouts");
    let expected = [
        ("connects_total", 0),
        ("retransmit_segments_total", segments),
        ("retransmit_timeouts_total", timeouts),
        ("resets_sent_total", CONNECTIONS),
    ];
    expect(&agent, PORT, target.ip(), &expected)?;
    let least = View::of(&agent, PORT, target.ip())?.least().context("no least round trip")?;
    ensure!(least < Duration::from_millis(5), "{least:?} on a plain cable");
    Ok(())
}

#[test]
fn older_connections_of_a_pod_are_sampled() -> Result<()> {
    let lab = start_lab(false)?;
    let pods = [lab.node(1)?.pod(PodSpec::new("client"))?, lab.node(2)?.pod(PodSpec::new("server"))?];
    let _server = Program::serve(&pods[1], PORT, Duration::ZERO)?;
    let mut client = Program::client(&pods[0])?;
    let target = SocketAddr::new(pods[1].address(false)?, PORT);
    client.ask(&format!("open {target} E {CONNECTIONS}"))?;
    client.ask("exchange 1")?;
    let agent = Agent::start(lab.node(1)?, &options())?;
    wait_for_samples(&agent, &mut client, target, CONNECTIONS)?;
    let lose = || Firewall::lose_overlay(lab.switch()?, &["node1", "node2"], 1_000);
    let (segments, _) = starve(&mut client, &pods[0], lose)?;
    // What was sent again is told by the next sample, a second after the one before at the earliest.
    let is_told = || {
        let view = client.ask("exchange 1").and_then(|_| View::of(&agent, PORT, target.ip())).ok();
        view.and_then(|view| view.count("retransmit_segments_total")) == Some(segments)
    };
    wait_until(&format!("{segments} segments sent again"), PATIENCE, is_told)?;
    expect(&agent, PORT, target.ip(), &[("connects_total", 0), ("retransmit_segments_total", segments)])
}
