//! How many connections count for which node.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::witness::nstat;
use lab::{Firewall, Lab, Place as _, PodSpec};

use crate::program::Program;
use crate::view::{Counts, expect, of_nobody};
use crate::{NODES, PORT, Stage, start_lab, target};

/// Longer than the kernel waits before it sends a SYN again.
const LIMIT: Duration = Duration::from_secs(10);

/// What an agent says that has seen handshakes with pods of one node only.
fn only(own: &str, peer: &str, count: usize) -> Counts {
    let of = |(node, none): (String, u64)| if node == peer { (node, count as u64) } else { (node, none) };
    of_nobody(own).into_iter().map(of).collect()
}

fn check(ipv6: bool) -> Result<()> {
    let lab = start_lab(ipv6)?;
    let mut stage = Stage::start(&lab)?;
    let counts = [12, 7];
    for (node, count) in [2, 3].into_iter().zip(counts) {
        stage.open(node, ipv6, count)?;
    }
    let [one, two, three] = NODES;
    expect(&stage.agents[0], &[(two.to_owned(), 12), (three.to_owned(), 7)])?;
    expect(&stage.agents[1], &only(two, one, 12))?;
    expect(&stage.agents[2], &only(three, one, 7))?;
    for (server, count) in stage.servers.into_iter().zip(counts) {
        assert_eq!(server.finish()?, Some(count as u64), "accept(2)");
    }
    lab.shutdown()
}

#[test]
fn connections_count_at_both_ends_for_the_node_of_the_other() -> Result<()> {
    check(false)
}

#[test]
fn connections_over_ipv6_count_for_the_same_nodes() -> Result<()> {
    check(true)
}

/// Within a node, with nodes, from the host's network and to the outside.
#[test]
fn what_is_not_between_pods_of_two_nodes_counts_for_no_node() -> Result<()> {
    let lab = start_lab(false)?;
    let mut stage = Stage::start(&lab)?;
    let (one, two, outside) = (lab.node(1)?, lab.node(2)?, lab.switch()?);
    // The way back to the pod.
    outside.ip(&format!("route add {} via {}\n", stage.pods[0].address(false)?, one.address(false)?))?;
    let neighbour = one.pod(PodSpec::new("neighbour"))?;
    let in_host = one.pod(PodSpec { host_network: true, ..PodSpec::new("in-host") })?;
    let outside_target = format!("192.168.56.1:{PORT}");
    let _servers = [
        Program::serve(&neighbour, PORT, Duration::ZERO)?,
        Program::serve(two, PORT, Duration::ZERO)?,
        Program::serve(outside, PORT, Duration::ZERO)?,
    ];
    for target in
        [target(&neighbour, false)?.to_string(), target(two, false)?.to_string(), outside_target.clone()]
    {
        let opened = stage.client.numbers(&format!("open {target} E 3"))?.len();
        ensure!(opened == 3, "{opened} connections to {target}");
    }
    stage.client.ask("exchange 1")?;
    let mut host = Program::client(&in_host)?;
    host.ask(&format!("open {} E 3", stage.target(2, false)?))?;
    host.ask("exchange 1")?;
    // One that does count, so that all others would have been told by then.
    stage.open(2, false, 1)?;
    expect(&stage.agents[0], &only(NODES[0], NODES[1], 1))?;
    expect(&stage.agents[1], &only(NODES[1], NODES[0], 1))?;
    expect(&stage.agents[2], &of_nobody(NODES[2]))?;
    lab.shutdown()
}

/// What kube-proxy does: the connecting pod has the service's address, the accepting one that of the pod.
fn add_service(lab: &Lab, service: &str, backend: &str) -> Result<()> {
    let rules = format!(
        "add table ip services; \
         add chain ip services prerouting {{ type nat hook prerouting priority -100; }}; \
         add rule ip services prerouting ip daddr {service} dnat to {backend}"
    );
    lab.node(1)?.run(&["nft", &rules]).map(drop)
}

#[test]
fn behind_a_service_only_the_accepting_node_knows_the_other() -> Result<()> {
    let lab = start_lab(false)?;
    let mut stage = Stage::start(&lab)?;
    add_service(&lab, "10.96.0.10", &stage.pods[1].address(false)?.to_string())?;
    stage.client.ask(&format!("open 10.96.0.10:{PORT} E 5"))?;
    stage.client.ask("exchange 1")?;
    expect(&stage.agents[1], &only(NODES[1], NODES[0], 5))?;
    expect(&stage.agents[0], &of_nobody(NODES[0]))?;
    lab.shutdown()
}

/// The SYN that was lost the server has never seen: its own part of the handshake was sent once.
#[test]
fn a_handshake_gives_no_round_trip_to_the_end_that_had_to_send_again() -> Result<()> {
    let lab = start_lab(false)?;
    let mut stage = Stage::start(&lab)?;
    let [one, two, _] = NODES;
    let blackout = Firewall::lose_overlay(lab.switch()?, &["node1"], 1_000)?;
    stage.client.say(&format!("open {} E 1", stage.target(2, false)?))?;
    let again = || nstat(&stage.pods[0]).ok().filter(|counters| counters["TcpRetransSegs"] >= 1).map(drop);
    wait_for("a second SYN", LIMIT, again)?;
    drop(blackout);
    stage.client.answer()?;
    stage.open(2, false, 1)?;
    expect(&stage.agents[0], &only(one, two, 1))?;
    expect(&stage.agents[1], &only(two, one, 2))?;
    lab.shutdown()
}

/// Node 3 leaves and its pod network becomes node 2's: what was counted stays with whom it was counted for.
#[test]
fn counts_of_a_node_never_become_those_of_its_successor() -> Result<()> {
    let mut lab = start_lab(false)?;
    let mut stage = Stage::start(&lab)?;
    stage.open(3, false, 4)?;
    let [_, two, three] = NODES;
    expect(&stage.agents[0], &[(two.to_owned(), 0), (three.to_owned(), 4)])?;
    // Nobody puts back what is taken away.
    drop(lab.take_flannel()?);
    let node = lab.node(1)?;
    let neighbours = node.run(&["ip", "neigh", "show", "dev", "flannel.1", "10.42.3.0"])?;
    let mac = neighbours.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    let mac = mac.with_context(|| format!("no VTEP in {neighbours}"))?;
    node.ip("route del 10.42.3.0/24\nneigh del 10.42.3.0 dev flannel.1\n")?;
    node.run(&["bridge", "fdb", "del", mac, "dev", "flannel.1", "dst", three])?;
    expect(&stage.agents[0], &[(two.to_owned(), 0)])?;
    node.ip("route add 10.42.3.0/24 via 10.42.2.0 dev flannel.1 onlink\n")?;
    expect(&stage.agents[0], &[(two.to_owned(), 0)])?;
    lab.shutdown()
}
