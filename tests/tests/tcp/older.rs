//! Connections of a hostNetwork pod that are older than the agent: their callbacks are turned on when it starts.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::process::wait_for;
use lab::witness::nstat;
use lab::{Agent, AgentOptions, Firewall, Place as _, PodSpec};

use crate::Stage;
use crate::health::Health;
use crate::program::Program;

const CONNECTIONS: u64 = 3;
const EXCHANGES: u64 = 20;
const POD: &str = "older";

#[test]
fn older_connections_of_the_host_namespace_make_callbacks() -> Result<()> {
    let lab = Stage::lab(false)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let server = two.pod(PodSpec::new("server"))?;
    let pod = one.pod(PodSpec { host_network: true, ..PodSpec::new(POD) })?;
    let _server = Program::serve(&server, crate::PORT, Duration::ZERO)?;
    let mut client = Program::client(&pod)?;
    let target = SocketAddr::new(server.address(false)?, crate::PORT);
    client.ask(&format!("open {target} E {CONNECTIONS}"))?;
    client.ask("exchange 1")?;

    let options = AgentOptions {
        arguments: vec!["--profile=detailed".into()],
        limit: Duration::from_secs(30),
        ..AgentOptions::default()
    };
    let agent = Agent::start(one, &options)?;
    client.ask("exchange 1")?;
    let before = Health::wait_for_segments(&agent, POD)?;
    for _ in 0..EXCHANGES {
        client.ask("exchange 1")?;
    }
    // Every exchange is a segment of its own, whose acknowledgement is one sample.
    before.expect(&agent, POD, &[("ack_seconds_count", CONNECTIONS * EXCHANGES)])?;

    let (before, counters) = (Health::of(&agent, POD)?, nstat(&pod)?);
    let witnessed = |name: &str| -> Result<u64> { Ok(nstat(&pod)?[name] - counters[name]) };
    let blackout = Firewall::lose_overlay(lab.switch()?, &["node1", "node2"], 1_000)?;
    client.say("exchange 1")?;
    let enough = || witnessed("TcpExtTCPTimeouts").ok().filter(|timeouts| *timeouts >= 2 * CONNECTIONS);
    wait_for("timeouts", Duration::from_secs(20), enough)?;
    drop(blackout);
    client.answer()?;
    client.ask("reset")?;
    let (timeouts, segments) = (witnessed("TcpExtTCPTimeouts")?, witnessed("TcpRetransSegs")?);
    println!("{timeouts} timeouts, {segments} segments sent again, {CONNECTIONS} resets");
    ensure!(witnessed("TcpEstabResets")? == CONNECTIONS, "other connections of the node were reset");
    let expected = [
        ("retransmit_timeouts_total", timeouts),
        ("retransmit_segments_total", segments),
        ("resets_sent_total", CONNECTIONS),
        ("connects_total", 0),
    ];
    before.expect(&agent, POD, &expected)
}
