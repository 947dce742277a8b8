//! Part `tap`: nanoseconds an ordinary packet of an uplink costs in the agent's tcx programs, net of an empty program
//! on the same hooks for the same packets: on a node without virtual addresses, on one that watches an address, and where
//! the packets are the watched address's own. And how many control frames a second the agent takes without loss.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::field::Field;
use super::kernel::{Holdings, Runs, runs_of};
use super::report::{Goal, Report};
use super::{Effort, progress};
use crate::foreign::{Empty, Hook, enable_statistics};
use crate::frames::FrameSender;
use crate::witness::{self, Amount, Iperf, Protocol};
use crate::{Agent, AgentOptions, Lab, LabOptions, Node, Place as _, wait_until};

const ROUNDS: usize = 10;
const HOOKS: [Hook; 2] = [Hook::TcxIngress, Hook::TcxEgress];
/// Nanoseconds.
const GOAL: f64 = 6.0;
/// For what the agent does by itself.
const LIMIT: Duration = Duration::from_secs(10);

/// An address that no node has.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 50);
/// How often the highest rate is looked for, and where the search begins and ends.
const SEARCHES: usize = 3;
const LOWEST: u32 = 5_000;
const HIGHEST: u32 = 1_000_000;
/// Losses are on the page a tenth of a second after they happened, on a busy machine a little later.
const TOLD: Duration = Duration::from_millis(500);

/// Two nodes of its own: on the field's only node nothing passes the uplink.
pub(super) fn measure(_field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: None })?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let own = one.ipv4().context("node1 has no IPv4 address")?;
    let rounds = effort.times(ROUNDS);
    let ordinary = "UDP 64 B on the uplink";
    let empty = costs(one, two, None, rounds, report, (ordinary, Goal::AtMost(GOAL)))?;
    report.add(format!("{ordinary}, empty program"), "ns", Goal::None, &empty)?;
    for (watched, what) in
        [(VIP, "UDP 64 B beside a watched address"), (own, "UDP 64 B of the watched address itself")]
    {
        costs(one, two, Some(watched), rounds, report, (what, Goal::None))?;
    }
    let rates = (0..effort.times(SEARCHES)).map(|_| highest_rate(one, two)).collect::<Result<Vec<_>>>()?;
    report.add("gratuitous ARP without loss", "1/s", Goal::None, &rates)?;
    lab.shutdown()
}

/// Adds to the report what a packet that one node sends to the other costs in the agent's programs; answers with the cost
/// of an empty one.
fn costs(
    one: &Node,
    two: &Node,
    watched: Option<Ipv4Addr>,
    rounds: usize,
    report: &mut Report,
    (what, goal): (&str, Goal),
) -> Result<Vec<f64>> {
    let mut agent = Agent::start(one, &AgentOptions::default())?;
    if let Some(address) = watched {
        make_virtual(&agent, two, address)?;
    }
    let empty = [Empty::on_device(HOOKS[0], one, "eth0")?, Empty::on_device(HOOKS[1], one, "eth0")?];
    let holdings = Holdings::of(agent.service().pid())?;
    let _statistics = enable_statistics()?;
    let read = || -> Result<[Runs; 2]> {
        let ours = holdings.runs(HOOKS[0])?.and(holdings.runs(HOOKS[1])?);
        Ok([ours, runs_of(&empty[0])?.and(runs_of(&empty[1])?)])
    };
    let (mut net, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let before = read()?;
        let options = Iperf {
            protocol: Protocol::Udp { rate: 0 },
            length: Some(64),
            amount: Amount::Seconds(1),
            ..Iperf::default()
        };
        witness::iperf3(one, two, &options).context("UDP from node1 to node2")?;
        let [ours, empty] = read()?;
        let empty = empty.since(before[1]).mean()?;
        net.push(ours.since(before[0]).mean()? - empty);
        alone.push(empty);
    }
    report.add(format!("{what}, net"), "ns", goal, &net)?;
    Ok(alone)
}

/// Two stations announce the address, which makes it a virtual one that the agent watches.
fn make_virtual(agent: &Agent, from: &Node, address: Ipv4Addr) -> Result<()> {
    let sender = FrameSender::open(from, "eth0")?;
    let text = address.to_string();
    let is_known = || {
        let page = agent.scrape();
        page.is_ok_and(|page| page.of("leadline_vip_info", |vip| vip.label("vip") == Some(&text)).count() > 0)
    };
    wait_until("the agent to know the address", LIMIT, || {
        // Again and again: the uplink is tapped a moment after the agent is ready.
        [1, 2].iter().all(|station| sender.send(&announcement(*station, address)).is_ok()) && is_known()
    })
}

/// A gratuitous ARP request.
fn announcement(station: u8, address: Ipv4Addr) -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0x99, station];
    let address = address.octets();
    let header = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &mac, &header, &mac, &address, &[0; 6], &address].concat()
}

/// Announcements a second for a second each, faster and faster until some are lost; answers with the highest rate at
/// which none was.
fn highest_rate(one: &Node, two: &Node) -> Result<f64> {
    let agent = Agent::start(one, &AgentOptions::default())?;
    make_virtual(&agent, two, VIP)?;
    let sender = FrameSender::open(two, "eth0")?;
    let (mut highest, mut rate, mut lost) = (0.0, LOWEST, told(&agent)?.0);
    loop {
        let sent = flood(&sender, rate)?;
        settle(&agent, &sender)?;
        let now = told(&agent)?.0;
        progress(format_args!("tap: {sent:.0} announcements a second, {} lost", now - lost))?;
        if now > lost {
            ensure!(highest > 0.0, "{} of {sent:.0} announcements were lost", now - lost);
            return Ok(highest);
        }
        // The sender has a highest rate as well.
        if sent <= highest || rate >= HIGHEST {
            return Ok(highest.max(sent));
        }
        (highest, lost, rate) = (sent, now, rate + rate / 2);
    }
}

/// Sends for a second; answers with the rate that came about.
fn flood(sender: &FrameSender, rate: u32) -> Result<f64> {
    let frame = announcement(1, VIP);
    let start = Instant::now();
    let mut sent: u32 = 0;
    while sent < rate && start.elapsed() < Duration::from_secs(2) {
        let due = Duration::from_secs(1) * sent / rate;
        thread::sleep(due.saturating_sub(start.elapsed()));
        sender.send(&frame)?;
        sent += 1;
    }
    Ok(f64::from(sent) / start.elapsed().as_secs_f64())
}

/// Waits until the agent has taken all that was sent to it: a frame that ends in its middle comes after them, and is
/// counted. It may be lost itself.
fn settle(agent: &Agent, sender: &FrameSender) -> Result<()> {
    let before = told(agent)?.1;
    let broken = &announcement(1, VIP)[..20];
    wait_until("the frame after the last announcement", LIMIT, || {
        sender.send(broken).is_ok() && told(agent).is_ok_and(|(_, malformed)| malformed > before)
    })?;
    thread::sleep(TOLD);
    Ok(())
}

/// Frames that were lost, and those that were malformed.
fn told(agent: &Agent) -> Result<(u64, u64)> {
    let page = agent.scrape()?;
    let lost = page.count("leadline_events_lost_total", &[("source", "tap")]);
    let malformed = page.sum("leadline_tap_malformed_frames_total", |_| true);
    lost.zip(malformed).context("the agent does not count what it loses")
}
