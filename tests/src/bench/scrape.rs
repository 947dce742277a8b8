//! Part `scrape`: what a page of 60,000 series costs in time and memory, and whether it asks the kernel.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::Effort;
use super::crowd::{Crowd, Plan, wait_series};
use super::field::Field;
use super::process::{forget_peak, memory, processor_time};
use super::report::{Goal, Report};
use super::statistics::number;
use crate::scrape::{Samples, parse};
use crate::{Agent, process};

const SERIES: usize = 60_000;
/// In the profile `detailed`, 48 series of TCP and 4 of traffic for each of 4 classes make 64 a pod.
const PLAN: Plan = Plan { pods: 940, tcp: 940, classes: 3 };
const SCRAPES: usize = 50;
/// Scrapes under the eyes of strace.
const WATCHED: usize = 10;
/// The collectors that make nearly all series.
const COLLECTORS: [&str; 2] = ["traffic", "tcp"];
const MILLION: f64 = 1e6;

pub(super) fn measure(field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let node = field.node()?;
    let mut agent = field.detailed_agent()?;
    let pid = agent.service().pid();
    let crowd = Crowd::start(node, PLAN)?;
    forget_peak(pid)?;
    let idle = memory(pid, "VmRSS")?;
    let series = wait_series(&agent, SERIES)?;
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    let mut collectors = COLLECTORS.map(|_| Vec::new());
    let mut before = durations(&agent.scrape()?);
    let time_before = processor_time(pid)?;
    for _ in 0..effort.times(SCRAPES) {
        let start = Instant::now();
        let page = agent.get("/metrics", &[])?;
        outside.push(start.elapsed().as_secs_f64() * 1e3);
        // A page has the durations of those before it: one more than were timed, each for the one before.
        let samples = parse(page.text()?)?;
        let now = durations(&samples);
        for (collector, taken) in COLLECTORS.iter().zip(&mut collectors) {
            let labels = [("collector", *collector)];
            let seconds = samples.value("leadline_collector_duration_seconds", &labels);
            taken.push(seconds.context("no duration of a collector")? * 1e3);
        }
        ensure!(now.count == before.count + 1, "somebody else scrapes the agent");
        inside.push((now.sum - before.sum) * 1e3);
        before = now;
    }
    let time = processor_time(pid)?.saturating_sub(time_before).as_secs_f64() * 1e3;
    let time = time / number(u64::try_from(inside.len())?);
    let peak = memory(pid, "VmHWM")?;
    let after = memory(pid, "VmRSS")?;
    let bytes = agent.get("/metrics", &[])?.body.len();
    report.add(format!("making the page, {series} series"), "ms", Goal::AtMost(4.0), &inside)?;
    for (collector, taken) in COLLECTORS.iter().zip(&collectors) {
        report.add(format!("of it collector {collector}"), "ms", Goal::None, taken)?;
    }
    report.add("getting it over HTTP", "ms", Goal::None, &outside)?;
    report.add("agent's processor time for both", "ms", Goal::None, &[time])?;
    let above = |value: u64| [number(value.saturating_sub(idle)) / MILLION];
    report.add("resident at most above idle", "MB", Goal::AtMost(8.0), &above(peak))?;
    report.add("resident afterwards above idle", "MB", Goal::None, &above(after))?;
    report.add("page", "MB", Goal::None, &[number(u64::try_from(bytes)?) / MILLION])?;
    let calls = bpf_calls(&agent, pid, field)?;
    report.add("bpf(2) calls a scrape", "", Goal::AtMost(0.0), &[calls])?;
    crowd.end()
}

/// Requests for pages so far and the time until their answers were ready.
#[derive(Clone, Copy, Debug)]
struct Durations {
    count: u64,
    sum: f64,
}

fn durations(samples: &Samples) -> Durations {
    let labels = [("path", "/metrics")];
    let name = "leadline_http_request_duration_seconds";
    let count = samples.count(&format!("{name}_count"), &labels);
    let sum = samples.value(&format!("{name}_sum"), &labels);
    // Before the first request there is no histogram.
    Durations { count: count.unwrap_or_default(), sum: sum.unwrap_or_default() }
}

/// System calls bpf(2) of the agent for one scrape. That accept(2) is seen shows that strace looks at it.
fn bpf_calls(agent: &Agent, pid: u32, field: &Field) -> Result<f64> {
    let output = field.node()?.machine().scratch().join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=bpf,accept,accept4", "-p", &pid.to_string(), "-o"]).arg(&output);
    let mut tracer = process::spawn(command.stdin(Stdio::null()).stderr(Stdio::piped()))?;
    let messages = tracer.stderr.take().context("no output of strace")?;
    let first = BufReader::new(messages).lines().next().context("strace said nothing")?.context("read")?;
    ensure!(first.contains("attached"), "{first}");
    let watched = (0..WATCHED).try_for_each(|_| agent.scrape().map(drop));
    process::signal(tracer.id(), Signal::SIGINT)?;
    process::wait_exit(&mut tracer, "strace", Duration::from_secs(10))?;
    watched?;
    let trace = fs::read_to_string(&output).with_context(|| format!("read {}", output.display()))?;
    let (accepts, calls) = count_calls(&trace);
    ensure!(accepts >= WATCHED, "strace saw {accepts} connections of {WATCHED}:\n{trace}");
    Ok(number(u64::try_from(calls)?) / number(u64::try_from(WATCHED)?))
}

/// Accepted connections and calls of bpf(2) in an output of strace.
fn count_calls(trace: &str) -> (usize, usize) {
    // A call that another thread's interrupts is resumed on a line of its own, without the parenthesis.
    let calls = |name: &str| trace.lines().filter(|line| line.contains(name)).count();
    (calls(" accept4(") + calls(" accept("), calls(" bpf("))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumed_calls_count_once() {
        let trace = "7 accept4(9, <unfinished ...>\n8 bpf(BPF_MAP_LOOKUP_ELEM, {map_fd=3}, 32) = 0\n\
                     7 <... accept4 resumed>{}, [128]) = 12\n8 +++ exited with 0 +++\n";
        assert_eq!(count_calls(trace), (1, 1));
    }

    #[test]
    fn durations_are_those_of_the_page() {
        let text = "leadline_http_request_duration_seconds_sum{path=\"/metrics\"} 0.5\n\
                    leadline_http_request_duration_seconds_sum{path=\"/\"} 7\n\
                    leadline_http_request_duration_seconds_count{path=\"/metrics\"} 3\n";
        let found = durations(&parse(text).unwrap());
        assert_eq!((found.count, found.sum.to_bits()), (3, 0.5_f64.to_bits()));
    }
}
