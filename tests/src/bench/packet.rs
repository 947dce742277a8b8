//! Part `packet`: nanoseconds a packet of the agent's `cgroup_skb` programs, net of an empty program on the same hook
//! that runs for the same packets. The kernel's clock readings are in both, and so cancel out.

use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::Effort;
use super::field::Field;
use super::kernel::{Holdings, Runs, runs_of};
use super::report::{Goal, Report};
use crate::foreign::{Empty, Hook, enable_statistics};
use crate::witness::{self, Amount, Iperf, Protocol};
use crate::{Agent, Place as _, Pod};

const ROUNDS: usize = 10;
const PORT: u16 = 5201;

/// A kind of traffic and the most that a packet of it may cost.
struct Load {
    name: &'static str,
    protocol: Protocol,
    length: Option<u32>,
    goal: f64,
}

const LOADS: [Load; 2] = [
    Load { name: "UDP 64 B", protocol: Protocol::Udp { rate: 0 }, length: Some(64), goal: 15.0 },
    Load { name: "TCP bulk", protocol: Protocol::Tcp, length: None, goal: 40.0 },
];

/// Nanoseconds a run of both programs in one round.
#[derive(Clone, Copy, Debug)]
struct Pair {
    agent: f64,
    empty: f64,
}

/// What all rounds of one load showed.
#[derive(Debug, Default)]
struct Rounds {
    one: Vec<Pair>,
    two: Vec<Pair>,
}

pub(super) fn measure(field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let processors = processors(2)?;
    let pods = field.pods()?;
    let mut agent = field.agent()?;
    let bed = Bed::prepare(&mut agent, field)?;
    let _statistics = enable_statistics()?;
    let mut rounds = LOADS.map(|load| (load, Rounds::default()));
    for _ in 0..effort.times(ROUNDS) {
        for (load, rounds) in &mut rounds {
            rounds.one.push(bed.round(&pods, load, &processors[..1])?);
            if processors.len() == 2 {
                rounds.two.push(bed.round(&pods, load, &processors)?);
            }
        }
    }
    for (load, rounds) in &rounds {
        evaluate(load, rounds, report)?;
    }
    Ok(())
}

/// Up to `most` processors that this process may use.
fn processors(most: usize) -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("ask for the usable processors")?;
    let usable = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false));
    Ok(usable.take(most).collect())
}

/// The agent's programs, and empty ones beside them.
struct Bed {
    holdings: Holdings,
    empty: [Empty; 2],
}

impl Bed {
    fn prepare(agent: &mut Agent, field: &Field) -> Result<Self> {
        let root = field.node()?.root();
        let attach = |hook| Empty::on_cgroup(hook, root);
        let empty = [attach(Hook::CgroupIngress)?, attach(Hook::CgroupEgress)?];
        Ok(Self { holdings: Holdings::of(agent.service().pid())?, empty })
    }

    fn read(&self) -> Result<(Runs, Runs)> {
        let agent = self.holdings.runs(Hook::CgroupIngress)?.and(self.holdings.runs(Hook::CgroupEgress)?);
        Ok((agent, runs_of(&self.empty[0])?.and(runs_of(&self.empty[1])?)))
    }

    /// One second of the load, with one flow on each of the processors.
    fn round(&self, pods: &[Pod; 2], load: &Load, processors: &[usize]) -> Result<Pair> {
        let before = self.read()?;
        thread::scope(|scope| {
            let mut flows = Vec::new();
            for (port, processor) in (PORT..).zip(processors) {
                flows.push(scope.spawn(move || flow(pods, load, port, *processor)));
            }
            flows.into_iter().try_for_each(|flow| match flow.join() {
                Ok(done) => done,
                Err(_) => bail!("the thread of a flow panicked"),
            })
        })?;
        let after = self.read()?;
        let pair = Pair { agent: after.0.since(before.0).mean()?, empty: after.1.since(before.1).mean()? };
        Ok(pair)
    }
}

/// Traffic with both ends on one processor.
fn flow(pods: &[Pod; 2], load: &Load, port: u16, processor: usize) -> Result<()> {
    let options = Iperf {
        protocol: load.protocol,
        length: load.length,
        amount: Amount::Seconds(1),
        port,
        extra: vec!["--affinity".into(), format!("{processor},{processor}")],
        ..Iperf::default()
    };
    let done = witness::iperf3(&pods[0], &pods[1], &options).map(drop);
    done.with_context(|| format!("{} from {}", load.name, pods[0].name()))
}

fn evaluate(load: &Load, rounds: &Rounds, report: &mut Report) -> Result<()> {
    let net = |pairs: &[Pair]| pairs.iter().map(|pair| pair.agent - pair.empty).collect::<Vec<_>>();
    let empty = |pairs: &[Pair]| pairs.iter().map(|pair| pair.empty).collect::<Vec<_>>();
    for (pairs, name) in [(&rounds.one, "1 CPU"), (&rounds.two, "2 CPUs")] {
        if !pairs.is_empty() {
            report.add(format!("{}, {name}, net", load.name), "ns", Goal::AtMost(load.goal), &net(pairs))?;
            report.add(format!("{}, {name}, empty program", load.name), "ns", Goal::None, &empty(pairs))?;
        }
    }
    let dearer: Vec<f64> = rounds.one.iter().zip(&rounds.two).map(|(one, two)| growth(*one, *two)).collect();
    if !dearer.is_empty() {
        report.add(
            format!("{}, 2 CPUs / 1, agent's / empty's", load.name),
            "",
            Goal::NotAbove(1.0),
            &dearer,
        )?;
    }
    Ok(())
}

/// How much more the agent's program slows down on a second processor than the empty one does; 1: just as much.
fn growth(one: Pair, two: Pair) -> f64 {
    (two.agent / one.agent) / (two.empty / one.empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_relative_to_the_empty_program() {
        let (one, two) = (Pair { agent: 40.0, empty: 20.0 }, Pair { agent: 60.0, empty: 30.0 });
        assert!((growth(one, two) - 1.0).abs() < 1e-9);
        assert!((growth(one, Pair { agent: 80.0, empty: 20.0 }) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn there_is_a_processor_to_run_on() {
        assert_eq!(processors(1).unwrap().len(), 1);
    }
}
