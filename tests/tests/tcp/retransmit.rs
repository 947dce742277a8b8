//! Retransmitted segments and timeouts with loss on the underlay, against the kernel's own counts.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::witness::{self, Amount, Iperf, nstat};
use lab::{Agent, Firewall, Lab, Pod};

use crate::Stage;
use crate::health::Health;

/// Both readings of a pod's counters.
struct Ledger<'stage> {
    agent: &'stage Agent,
    pod: &'stage Pod,
    health: Health,
    counters: witness::Nstat,
}

impl<'stage> Ledger<'stage> {
    fn open(agent: &'stage Agent, pod: &'stage Pod) -> Result<Self> {
        let health = Health::of(agent, &pod.spec().name)?;
        Ok(Self { agent, pod, health, counters: nstat(pod)? })
    }

    /// What the witness has added.
    fn witness(&self, name: &str) -> Result<u64> {
        Ok(nstat(self.pod)?[name] - self.counters[name])
    }

    /// The agent's retransmitted segments and timeouts must be the kernel's, except for SYN-ACKs that were sent
    /// again: those have no socket yet, and no callback.
    fn check(&self) -> Result<(u64, u64)> {
        let (segments, timeouts) = (self.witness("TcpRetransSegs")?, self.witness("TcpExtTCPTimeouts")?);
        let syn_acks = self.witness("TcpExtTCPSynRetrans")?;
        println!(
            "{}: RetransSegs {segments}, TCPTimeouts {timeouts}, SYN(-ACK)s among them {syn_acks}",
            self.pod.spec().name
        );
        let expected = [("retransmit_segments_total", segments), ("retransmit_timeouts_total", timeouts)];
        self.health.expect(self.agent, &self.pod.spec().name, &expected)?;
        Ok((segments, timeouts))
    }
}

fn lose<'lab>(lab: &'lab Lab, per_mille: u16) -> Result<Firewall<'lab, lab::machine::Machine>> {
    Firewall::lose_overlay(lab.switch()?, &["node1", "node2"], per_mille)
}

#[test]
fn retransmits_are_those_of_the_kernel() -> Result<()> {
    const BYTES: u64 = 64 << 20;
    let lab = Stage::lab(false)?;
    // Else a super-packet of 45 segments is lost at once.
    for node in lab.nodes() {
        witness::set_segmentation(node, "eth0", false)?;
    }
    let stage = Stage::new(&lab)?;
    let (_server, _client) = stage.start_programs(false, Duration::ZERO)?;
    let near = Ledger::open(&stage.agents[0], &stage.client)?;
    let far = Ledger::open(&stage.agents[1], &stage.server)?;
    let loss = lose(&lab, 10)?;
    let options = Iperf { amount: Amount::Bytes(BYTES), ..Iperf::default() };
    let result = witness::iperf3(&stage.client, &stage.server, &options)?;
    let lost = loss.counted()?;
    drop(loss);
    let (segments, _) = near.check()?;
    far.check()?;
    println!("{lost} frames lost, iperf3 saw {:?} retransmits", result.retransmits());
    ensure!(lost > 100 && segments > 100, "{lost} lost, {segments} sent again: too few to tell");
    // iperf3 reads the data connection only.
    let seen = result.retransmits().context("no retransmits in the report")?;
    assert!(seen <= segments && segments - seen < 10, "{seen} of {segments}");
    Ok(())
}

#[test]
fn timeouts_are_those_of_the_kernel() -> Result<()> {
    let lab = Stage::lab(false)?;
    let stage = Stage::new(&lab)?;
    let (_server, mut client) = stage.start_programs(false, Duration::ZERO)?;
    client.ask(&format!("open {} E 3", stage.target(false)?))?;
    client.ask("exchange 2")?;
    let near = Ledger::open(&stage.agents[0], &stage.client)?;
    let blackout = lose(&lab, 1_000)?;
    client.say("exchange 1")?;
    let enough = || near.witness("TcpExtTCPTimeouts").ok().filter(|timeouts| *timeouts >= 6);
    wait_for("six timeouts", Duration::from_secs(20), enough)?;
    drop(blackout);
    client.answer()?;
    let (segments, timeouts) = near.check()?;
    ensure!(timeouts >= 6 && segments >= timeouts, "{timeouts} timeouts, {segments} segments");
    // A SYN that is sent again is a retransmission of the client's like any other.
    let near = Ledger::open(&stage.agents[0], &stage.client)?;
    let blackout = lose(&lab, 1_000)?;
    client.say(&format!("open {} E 1", stage.target(false)?))?;
    let syn = || near.witness("TcpExtTCPSynRetrans").ok().filter(|sent| *sent >= 1);
    wait_for("a second SYN", Duration::from_secs(10), syn)?;
    drop(blackout);
    client.answer()?;
    near.check()?;
    Ok(())
}
