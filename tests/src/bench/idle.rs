//! Part `idle`: what the agent takes on a full node on which little happens.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Effort;
use super::crowd::{Crowd, Plan, wait_series};
use super::field::Field;
use super::kernel::Holdings;
use super::process::{memory, processor_time};
use super::report::{Goal, Report};
use super::statistics::number;
use crate::Agent;

/// As many pods as a kubelet admits; with two classes of peers they have about 3,500 series.
pub(super) const FULL_NODE: Plan = Plan { pods: 110, tcp: 110, classes: 1 };
/// The least number of series that this makes.
pub(super) const FULL_NODE_SERIES: usize = 3_400;
const SECONDS: u64 = 60;
/// Scrapes a minute of a Prometheus that scrapes every 15 s.
const SCRAPES: u32 = 4;
const MEBIBYTE: f64 = 1_048_576.0;

pub(super) fn measure(field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let mut agent = field.agent()?;
    let crowd = Crowd::start(field.node()?, FULL_NODE)?;
    let series = wait_series(&agent, FULL_NODE_SERIES)?;
    let pid = agent.service().pid();
    let share = processor_share(&agent, pid, Duration::from_secs(effort.seconds(SECONDS)))?;
    let mebibytes = |bytes: u64| [number(bytes) / MEBIBYTE];
    let what = format!("processor, {} pods, {series} series", FULL_NODE.pods);
    report.add(what, "% of a core", Goal::AtMost(0.3), &[share])?;
    report.add("resident memory", "MiB", Goal::AtMost(20.0), &mebibytes(memory(pid, "VmRSS")?))?;
    report.add("of it anonymous", "MiB", Goal::None, &mebibytes(memory(pid, "RssAnon")?))?;
    let maps = Holdings::of(pid)?.map_bytes();
    report.add("kernel memory of maps", "MiB", Goal::AtMost(32.0), &mebibytes(maps))?;
    crowd.end()
}

/// Per cent of one processor over the time, with evenly spread scrapes.
fn processor_share(agent: &Agent, pid: u32, time: Duration) -> Result<f64> {
    let before = processor_time(pid)?;
    let start = Instant::now();
    for number in 1..=SCRAPES {
        agent.scrape()?;
        // The passing of time is what is measured here.
        thread::sleep((time / SCRAPES * number).saturating_sub(start.elapsed()));
    }
    let taken = processor_time(pid)?.saturating_sub(before);
    Ok(taken.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0)
}
