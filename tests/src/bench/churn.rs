//! Part `churn`: what pods that come and go cost, and whether they leave anything behind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Effort;
use super::crowd::targets;
use super::field::{self, Field};
use super::kernel::{self, Holdings};
use super::process::processor_time;
use super::report::{Goal, Report};
use super::statistics::number;
use crate::{Agent, process};

const PODS: u32 = 1_000;
/// The time in which the slots of pods that are gone must be free again.
const SETTLED: Duration = Duration::from_secs(30);

pub(super) fn measure(field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let pods = if effort.quick { PODS / 10 } else { PODS };
    let node = field.node()?;
    let mut agent = field.agent()?;
    let pid = agent.service().pid();
    let table = Holdings::of(pid)?.map("leadline_slots")?;
    // The agent's own answer takes a slot too.
    let lost_before = lost(&agent)?;
    let slots_before = kernel::entries(table)?;
    let (time_before, start) = (processor_time(pid)?, Instant::now());
    let mut words = vec!["churn".to_owned(), pods.to_string()];
    words.extend(targets(node)?.iter().take(1).map(ToString::to_string));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    process::run_for(&mut field::child(node, &words)?, Duration::from_mins(5))?;
    let took = start.elapsed();
    let at_most = kernel::entries(table)?;
    // That they are not free in time is a result, not an error.
    drop(process::wait_until("the slots to be free", SETTLED, || {
        kernel::entries(table).is_ok_and(|slots| slots <= slots_before)
    }));
    let time = processor_time(pid)?.saturating_sub(time_before);
    let leaked = kernel::entries(table)?.saturating_sub(slots_before);
    let thousands = f64::from(pods) / 1_000.0;
    report.add("processor time for 1,000 pods", "ms", Goal::None, &[time.as_secs_f64() * 1e3 / thousands])?;
    report.add(format!("time to make and remove {pods}"), "s", Goal::None, &[took.as_secs_f64()])?;
    report.add("slots in use at their end", "", Goal::None, &[number(u64::try_from(at_most)?)])?;
    report.add("slots leaked", "", Goal::AtMost(0.0), &[number(u64::try_from(leaked)?)])?;
    report.add("records lost", "", Goal::AtMost(0.0), &[number(lost(&agent)? - lost_before)])
}

/// Records of the kernel that the agent has not seen.
fn lost(agent: &Agent) -> Result<u64> {
    let page = agent.scrape()?;
    page.count("leadline_events_lost_total", &[("source", "ring")]).context("no count of lost records")
}
