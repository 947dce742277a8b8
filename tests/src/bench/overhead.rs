//! Part `overhead`: throughput and latency between two pods with the agent and without it, in turn.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Effort;
use super::child::PING_PORT;
use super::field::{self, Field};
use super::kernel::StatisticsOff;
use super::report::{Goal, Report};
use crate::process::{self, Holder};
use crate::witness::{self, Amount, Iperf, Protocol};
use crate::{Place as _, Pod};

const PAIRS: usize = 10;
/// Requests and answers for one median.
const EXCHANGES: &str = "20000";

/// What one measurement found.
#[derive(Clone, Copy, Debug)]
struct Performance {
    tcp: f64,
    udp: f64,
    latency: Duration,
}

pub(super) fn measure(field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let _off = StatisticsOff::begin()?;
    let pods = field.pods()?;
    let _echo = echo(&pods[1])?;
    let mut pairs = Vec::new();
    for pair in 0..effort.times(PAIRS) {
        // The order changes so that a machine that becomes slower or faster favours neither.
        let agent_first = pair % 2 == 1;
        let first = once(field, &pods, agent_first)?;
        let second = once(field, &pods, !agent_first)?;
        pairs.push(if agent_first { (second, first) } else { (first, second) });
    }
    let of = |read: fn(&(Performance, Performance)) -> f64| pairs.iter().map(read).collect::<Vec<f64>>();
    report.add("TCP throughput lost", "%", Goal::AtMost(1.0), &of(|(off, on)| lost(off.tcp, on.tcp)))?;
    report.add("UDP throughput lost", "%", Goal::AtMost(1.0), &of(|(off, on)| lost(off.udp, on.udp)))?;
    let added = of(|(off, on)| microseconds(on.latency) - microseconds(off.latency));
    report.add("TCP round trip added", "µs", Goal::AtMost(1.0), &added)?;
    report.add("TCP throughput without agent", "Gbit/s", Goal::None, &of(|(off, _)| off.tcp / 1e9))?;
    report.add("UDP throughput without agent", "Gbit/s", Goal::None, &of(|(off, _)| off.udp / 1e9))?;
    report.add("TCP round trip without agent", "µs", Goal::None, &of(|(off, _)| microseconds(off.latency)))
}

/// The server of the round trips.
fn echo(pod: &Pod) -> Result<Holder> {
    let mut command = field::child(pod, &["echo"])?;
    let holder = Holder::spawn(command.stdout(Stdio::null()))?;
    process::wait_until("the echo server to listen", Duration::from_secs(10), || {
        witness::tcp_listens(pod, PING_PORT).unwrap_or(false)
    })?;
    Ok(holder)
}

fn once(field: &Field, pods: &[Pod; 2], with_agent: bool) -> Result<Performance> {
    let agent = if with_agent { Some(field.agent()?) } else { None };
    let performance = Performance {
        tcp: throughput(pods, Protocol::Tcp)?,
        udp: throughput(pods, Protocol::Udp { rate: 0 })?,
        latency: latency(pods)?,
    };
    if let Some(agent) = agent {
        let status = agent.sigterm()?;
        ensure!(status.success(), "the agent ended with {status}");
    }
    Ok(performance)
}

fn throughput(pods: &[Pod; 2], protocol: Protocol) -> Result<f64> {
    let options = Iperf { protocol, amount: Amount::Seconds(1), ..Iperf::default() };
    let result = witness::iperf3(&pods[0], &pods[1], &options)?;
    result.bits_per_second().context("iperf3 reports no throughput")
}

fn latency(pods: &[Pod; 2]) -> Result<Duration> {
    let server = pods[1].address(false)?.to_string();
    let mut command = field::child(&pods[0], &["ping", &server, EXCHANGES])?;
    let median = process::run_for(&mut command, Duration::from_mins(1))?;
    let nanoseconds = median.trim().parse().with_context(|| format!("the median is {median:?}"))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Per cent of what was there without the agent.
fn lost(off: f64, on: f64) -> f64 {
    (off - on) / off * 100.0
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_is_a_negative_loss() {
        assert!((lost(200.0, 150.0) - 25.0).abs() < 1e-9);
        assert!((lost(200.0, 210.0) + 5.0).abs() < 1e-9);
    }
}
