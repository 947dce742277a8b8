//! Connects, failures, resets and retransmissions of watched ports, and what is not watched.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::process::wait_for;
use lab::witness::{self, Amount, Iperf, nstat};
use lab::{Lab, Place as _, PodSpec};

use crate::program::Program;
use crate::view::{View, expect, watched};
use crate::{CLIENTS, Members, PORT, UNWATCHED, lose, start_lab};

#[test]
fn connects_failures_and_resets_are_those_of_the_programs() -> Result<()> {
    let lab = start_lab(false)?;
    let mut members = Members::start(&lab, false, Duration::ZERO)?;
    let target = members.target(PORT);
    members.client.ask(&format!("open {target} E 4"))?;
    members.client.ask("exchange 1")?;
    members.client.ask("reset")?;
    members.client.ask(&format!("open {target} R 3"))?;
    members.client.ask("read")?;
    members.client.ask("send 1")?;
    assert_eq!(members.client.ask("errors")?, "104 104 104");
    // Nobody listens there.
    assert_eq!(members.client.numbers(&format!("try {} 5", members.target(CLIENTS)))?, [111; 5]);
    let ([one, two], [client, server]) = (&members.agents, members.addresses);
    let near = [
        ("connects_total", 7),
        ("accepts_total", 0),
        ("resets_sent_total", 4),
        ("resets_received_total", 3),
        ("connect_failures_total refused", 0),
    ];
    expect(one, PORT, server, &near)?;
    expect(one, CLIENTS, server, &[("connect_failures_total refused", 5), ("connects_total", 0)])?;
    let far =
        [("connects_total", 0), ("accepts_total", 7), ("resets_sent_total", 3), ("resets_received_total", 4)];
    expect(two, PORT, client, &far)?;
    assert_eq!(members.server.finish()?, Some(7));
    Ok(())
}

/// A lab in which a lost frame is one segment.
fn without_segmentation() -> Result<Lab> {
    let lab = start_lab(false)?;
    lab.nodes().iter().try_for_each(|node| witness::set_segmentation(node, "eth0", false))?;
    Ok(lab)
}

#[test]
fn retransmits_of_a_watched_port_are_those_of_the_kernel() -> Result<()> {
    let lab = without_segmentation()?;
    let Members { agents: [one, _two], server, client, addresses, _pod } =
        Members::start(&lab, false, Duration::ZERO)?;
    server.finish()?;
    client.finish()?;
    let before = nstat(lab.node(1)?)?;
    let rules = lose(&lab, &["node1", "node2"], 10)?;
    let options = Iperf { amount: Amount::Bytes(32 << 20), port: PORT, ..Iperf::default() };
    witness::iperf3(lab.node(1)?, lab.node(2)?, &options)?;
    let lost = rules.counted()?;
    drop(rules);
    let after = nstat(lab.node(1)?)?;
    let added = |name: &str| after[name] - before[name];
    let (segments, timeouts) = (added("TcpRetransSegs"), added("TcpExtTCPTimeouts"));
    println!("{lost} frames lost, {segments} segments sent again, {timeouts} timeouts");
    ensure!(lost > 50 && segments > 50, "{lost} lost, {segments} sent again: too few to tell");
    let expected = [("retransmit_segments_total", segments), ("retransmit_timeouts_total", timeouts)];
    expect(&one, PORT, addresses[1], &expected)
}

#[test]
fn timeouts_of_a_watched_port_are_those_of_the_kernel() -> Result<()> {
    let lab = start_lab(false)?;
    let mut members = Members::start(&lab, false, Duration::ZERO)?;
    let target = members.target(PORT);
    members.client.ask(&format!("open {target} E 2"))?;
    members.client.ask("exchange 1")?;
    let before = nstat(lab.node(1)?)?;
    let added = |name: &str| -> Result<u64> { Ok(nstat(lab.node(1)?)?[name] - before[name]) };
    let blackout = lose(&lab, &["node1", "node2"], 1_000)?;
    members.client.say("exchange 1")?;
    let enough = || added("TcpExtTCPTimeouts").ok().filter(|timeouts| *timeouts >= 4);
    wait_for("four timeouts", Duration::from_secs(20), enough)?;
    drop(blackout);
    members.client.answer()?;
    let expected = [
        ("retransmit_timeouts_total", added("TcpExtTCPTimeouts")?),
        ("retransmit_segments_total", added("TcpRetransSegs")?),
    ];
    expect(&members.agents[0], PORT, members.addresses[1], &expected)
}

#[test]
fn only_watched_ports_and_peers_of_other_nodes_have_series() -> Result<()> {
    let lab = start_lab(false)?;
    let mut members = Members::start(&lab, false, Duration::ZERO)?;
    let node = lab.node(1)?;
    let neighbour = node.pod(PodSpec::new("neighbour"))?;
    let _servers = [
        Program::serve(lab.node(2)?, UNWATCHED, Duration::ZERO)?,
        Program::serve(node, PORT, Duration::ZERO)?,
        Program::serve(&neighbour, CLIENTS, Duration::ZERO)?,
    ];
    let own = [
        format!("127.0.0.1:{PORT}"),
        format!("{}:{PORT}", node.address(false)?),
        format!("{}:{CLIENTS}", neighbour.address(false)?),
    ];
    let watched_one = members.target(PORT).to_string();
    for target in own.iter().chain([&members.target(UNWATCHED).to_string(), &watched_one]) {
        members.client.ask(&format!("open {target} E 2"))?;
    }
    members.client.ask("exchange 2")?;
    let ([one, two], [client, server]) = (&members.agents, members.addresses);
    expect(one, PORT, server, &[("connects_total", 2)])?;
    expect(two, PORT, client, &[("accepts_total", 2)])?;
    assert_eq!(watched(one)?, [(PORT.to_string(), server.to_string())]);
    assert_eq!(watched(two)?, [(PORT.to_string(), client.to_string())]);
    // What is known in advance stands at 0.
    let view = View::of(one, PORT, server)?;
    for name in ["retransmit_segments_total", "retransmit_timeouts_total", "connect_failures_total other"] {
        assert_eq!(view.count(name), Some(0), "{name}");
    }
    Ok(())
}
