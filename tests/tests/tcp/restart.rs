//! Connections that are older than the agent.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::process::wait_for;
use lab::witness::{self, Device, Nstat, nstat};
use lab::{Agent, Firewall, Lab, Place as _, Pod, wait_until};

use crate::Stage;
use crate::health::Health;

const CONNECTIONS: u64 = 4;
/// Bytes of each connection after the restart.
const BYTES: u64 = 4 << 20;

/// The pod's bytes and packets, received and sent, of all peer classes.
fn traffic(agent: &Agent) -> Result<[u64; 4]> {
    let samples = agent.scrape()?;
    let families = ["receive_bytes", "receive_packets", "transmit_bytes", "transmit_packets"];
    Ok(families.map(|family| {
        let name = format!("leadline_pod_{family}_total");
        samples.sum(&name, |sample| sample.label("pod") == Some("client")).unwrap_or_default()
    }))
}

/// Lets every frame cross the pods' devices singly, and nothing but the connections use them.
fn make_exact(lab: &Lab, stage: &Stage) -> Result<()> {
    for pod in [&stage.client, &stage.server] {
        pod.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])?;
        pod.set_segmentation(false)?;
        pod.pin_neighbours(&[])?;
    }
    lab.nodes().iter().try_for_each(|node| witness::set_segmentation(node, "eth0", false))
}

#[test]
fn connections_older_than_the_agent_are_counted_and_measured() -> Result<()> {
    let lab = Stage::lab(false)?;
    let stage = Stage::new(&lab)?;
    make_exact(&lab, &stage)?;
    let (_server, mut client) = stage.start_programs(false, Duration::ZERO)?;
    client.ask(&format!("open {} S {CONNECTIONS}", stage.target(false)?))?;
    client.ask("send 100000")?;
    let Stage { client: pod, agents: [agent, _other], .. } = stage;
    wait_until("the transfer to end", Duration::from_secs(10), || {
        traffic(&agent).is_ok_and(|traffic| traffic[2] > CONNECTIONS * 100_000)
    })?;
    agent.sigkill()?;

    let agent = Agent::start(lab.node(1)?, &crate::detailed())?;
    let (device, counters, before) = quiet_moment(&agent, &pod)?;
    let loss = Firewall::lose_overlay(lab.switch()?, &["node1"], 10)?;
    for _ in 0..4 {
        client.ask(&format!("send {}", BYTES / 4))?;
    }
    wait_for("everything to be acknowledged", Duration::from_secs(30), || {
        let queues = pod.run(&["ss", "-tnH", "state", "established", "dport = :7000"]).ok()?;
        queues.lines().all(|line| line.split_whitespace().nth(1) == Some("0")).then_some(())
    })?;
    drop(loss);
    // A connection without callbacks is looked at once a second, when it sends: the last look needs one more byte.
    let retransmits = || -> Result<u64> { Ok(nstat(&pod)?["TcpRetransSegs"] - counters["TcpRetransSegs"]) };
    let sent_again = retransmits()?;
    wait_until("the retransmits of older connections", Duration::from_secs(10), || {
        client.ask("send 1").is_ok()
            && Health::of(&agent, "client")
                .and_then(|health| health.count("retransmit_segments_total"))
                .is_ok_and(|measured| measured >= sent_again)
    })?;
    let witnessed = retransmits()?;
    let health = Health::of(&agent, "client")?;
    let measured = health.count("retransmit_segments_total")?;
    println!("retransmits: measured {measured}, RetransSegs {witnessed}");
    ensure!(witnessed > 50, "too few to tell");
    assert_eq!(measured, witnessed);
    let samples = health.count("rtt_seconds_count")?;
    println!("rtt samples of {CONNECTIONS} older connections: {samples}");
    ensure!(samples >= CONNECTIONS);
    assert_eq!((health.count("connects_total")?, health.count("accepts_total")?), (0, 0));

    // Nothing is on the way: every connection has been acknowledged.
    let expected = || exact(&pod, &device, &counters);
    let added = || -> Result<[u64; 4]> {
        let now = traffic(&agent)?;
        Ok([0, 1, 2, 3].map(|index: usize| now[index] - before[index]))
    };
    let agrees = || added().is_ok_and(|added| expected().is_ok_and(|expected| added == expected));
    let reached = wait_until("equal counts", Duration::from_secs(10), agrees);
    assert_eq!(added()?, expected()?, "measured (left) and device (right)");
    println!("bytes and packets received, sent: {:?}, difference 0", added()?);
    reached?;
    let total: u64 = client.numbers("finish")?.iter().sum();
    ensure!(total >= CONNECTIONS * (BYTES + 100_000), "{total}");
    Ok(())
}

/// All three readings at a moment when nothing was on its way between them.
fn quiet_moment(agent: &Agent, pod: &Pod) -> Result<(Device, Nstat, [u64; 4])> {
    let read = || -> Result<_> { Ok((witness::device(pod, "eth0")?, nstat(pod)?, traffic(agent)?)) };
    let mut last = None;
    wait_for("a moment without traffic", Duration::from_secs(10), || {
        let now = read().ok();
        let is_quiet = now.is_some() && last == now;
        last.clone_from(&now);
        now.filter(|_| is_quiet)
    })
}

/// Layer 3 bytes and packets, received and sent, that crossed the pod's device since a reading. The node's own
/// multicast listener reports reach the pod's device, whose IPv6 discards and counts them.
fn exact(pod: &Pod, device: &Device, counters: &Nstat) -> Result<[u64; 4]> {
    let added = witness::device(pod, "eth0")?.since(device);
    let now = nstat(pod)?;
    let ipv6 = |name: &str| now[name] - counters[name];
    Ok([
        added.receive_bytes - 14 * added.receive_packets - ipv6("Ip6InOctets"),
        added.receive_packets - ipv6("Ip6InReceives"),
        added.transmit_bytes - 14 * added.transmit_packets,
        added.transmit_packets,
    ])
}
