//! Part `tap`: nanoseconds an ordinary packet of an uplink costs in the agent's tcx programs, net of an empty program
//! on the same hooks for the same packets.

use anyhow::{Context as _, Result};

use super::Effort;
use super::field::Field;
use super::kernel::{Holdings, Runs, runs_of};
use super::report::{Goal, Report};
use crate::foreign::{Empty, Hook, enable_statistics};
use crate::witness::{self, Amount, Iperf, Protocol};
use crate::{Agent, AgentOptions, Lab, LabOptions};

const ROUNDS: usize = 10;
const HOOKS: [Hook; 2] = [Hook::TcxIngress, Hook::TcxEgress];
/// Nanoseconds.
const GOAL: f64 = 6.0;

/// Two nodes of its own: on the field's only node nothing passes the uplink.
pub(super) fn measure(_field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: None })?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let mut agent = Agent::start(one, &AgentOptions::default())?;
    let empty = [Empty::on_device(HOOKS[0], one, "eth0")?, Empty::on_device(HOOKS[1], one, "eth0")?];
    let holdings = Holdings::of(agent.service().pid())?;
    let _statistics = enable_statistics()?;
    let read = || -> Result<[Runs; 2]> {
        let ours = holdings.runs(HOOKS[0])?.and(holdings.runs(HOOKS[1])?);
        Ok([ours, runs_of(&empty[0])?.and(runs_of(&empty[1])?)])
    };
    let (mut net, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..effort.times(ROUNDS) {
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
    report.add("UDP 64 B on the uplink, net", "ns", Goal::AtMost(GOAL), &net)?;
    report.add("UDP 64 B on the uplink, empty program", "ns", Goal::None, &alone)?;
    drop(agent);
    lab.shutdown()
}
