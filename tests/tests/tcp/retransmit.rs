//! Retransmitted segments and timeouts with loss on the underlay, against the kernel's own counts.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::witness::{self, Amount, Iperf, nstat};
use lab::{Agent, Firewall, Lab, Pod};

use crate::Stage;
use crate::health::Health;

const BOTH: [&str; 2] = ["node1", "node2"];

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

    /// The agent's retransmitted segments and timeouts must be the kernel's.
    fn check(&self) -> Result<(u64, u64)> {
        let (segments, timeouts) = (self.witness("TcpRetransSegs")?, self.witness("TcpExtTCPTimeouts")?);
        let expected = [("retransmit_segments_total", segments), ("retransmit_timeouts_total", timeouts)];
        self.health.expect(self.agent, &self.pod.spec().name, &expected)?;
        Ok((segments, timeouts))
    }

    /// The same of a pod that opens no connection: SYN-ACKs that are sent again have no socket yet, and no callback.
    /// Answers with their number, by which the agent's counts may and must be less.
    fn check_but_syn_acks(&self) -> Result<u64> {
        let syn_acks = self.witness("TcpExtTCPSynRetrans")?;
        println!("{}: {syn_acks} SYN-ACKs sent again, and not counted", self.pod.spec().name);
        let mut expected = vec![("retransmit_segments_total", self.witness("TcpRetransSegs")? - syn_acks)];
        if syn_acks == 0 {
            // Some SYN-ACKs are sent again by a timer and some because the SYN came again.
            expected.push(("retransmit_timeouts_total", self.witness("TcpExtTCPTimeouts")?));
        }
        self.health.expect(self.agent, &self.pod.spec().name, &expected)?;
        Ok(syn_acks)
    }
}

/// Loses a share of what these nodes send.
fn lose<'lab>(
    lab: &'lab Lab,
    nodes: &[&str],
    per_mille: u16,
) -> Result<Firewall<'lab, lab::machine::Machine>> {
    Firewall::lose_overlay(lab.switch()?, nodes, per_mille)
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
    let rules = lose(&lab, &BOTH, 10)?;
    let options = Iperf { amount: Amount::Bytes(BYTES), ..Iperf::default() };
    let result = witness::iperf3(&stage.client, &stage.server, &options)?;
    let lost = rules.counted()?;
    drop(rules);
    let (segments, _) = near.check()?;
    far.check_but_syn_acks()?;
    println!("{lost} frames lost, iperf3 saw {:?} retransmits", result.retransmits());
    ensure!(lost > 100 && segments > 100, "{lost} lost, {segments} sent again: too few to tell");
    // iperf3 reads the data connection only, and when it has handed over its last byte: of the 64 MiB up to 4 are in the
    // send buffer then, and what is sent again of those it does not see. Twice that share is what chance may make of it.
    let seen = result.retransmits().context("no retransmits in the report")?;
    assert!(seen <= segments && segments - seen <= segments / 8, "{seen} of {segments}");
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
    let blackout = lose(&lab, &BOTH, 1_000)?;
    client.say("exchange 1")?;
    let enough = || near.witness("TcpExtTCPTimeouts").ok().filter(|timeouts| *timeouts >= 6);
    wait_for("six timeouts", Duration::from_secs(20), enough)?;
    drop(blackout);
    client.answer()?;
    let (segments, timeouts) = near.check()?;
    ensure!(timeouts >= 6 && segments >= timeouts, "{timeouts} timeouts, {segments} segments");
    // A SYN that is sent again is a retransmission of the client's like any other.
    let near = Ledger::open(&stage.agents[0], &stage.client)?;
    let blackout = lose(&lab, &BOTH, 1_000)?;
    client.say(&format!("open {} E 1", stage.target(false)?))?;
    let syn = || near.witness("TcpExtTCPSynRetrans").ok().filter(|sent| *sent >= 1);
    wait_for("a second SYN", Duration::from_secs(10), syn)?;
    drop(blackout);
    client.answer()?;
    near.check()?;
    Ok(())
}

#[test]
fn syn_acks_that_are_sent_again_are_not_counted() -> Result<()> {
    let lab = Stage::lab(false)?;
    let stage = Stage::new(&lab)?;
    let (_server, mut client) = stage.start_programs(false, Duration::ZERO)?;
    let (near, far) =
        (Ledger::open(&stage.agents[0], &stage.client)?, Ledger::open(&stage.agents[1], &stage.server)?);
    let one_way = lose(&lab, &["node2"], 1_000)?;
    client.say(&format!("open {} E 1", stage.target(false)?))?;
    let again = || far.witness("TcpExtTCPSynRetrans").ok().filter(|sent| *sent >= 2);
    wait_for("two more SYN-ACKs", Duration::from_secs(10), again)?;
    drop(one_way);
    client.answer()?;
    client.ask("exchange 1")?;
    near.check()?;
    ensure!(far.check_but_syn_acks()? >= 2);
    // A handshake of which a part was sent again tells no round trip, at neither end: the one sample of each is that
    // of the exchange.
    near.health.expect(&stage.agents[0], "client", &[("connects_total", 1), ("rtt_seconds_count", 1)])?;
    let accepts = [("accepts_total", 1), ("rtt_seconds_count", 1)];
    far.health.expect(&stage.agents[1], "server", &accepts)?;
    Ok(())
}
