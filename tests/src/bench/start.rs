//! Part `start`: from the start of the process on a full node to its first complete page.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Effort;
use super::crowd::Crowd;
use super::field::Field;
use super::idle::FULL_NODE;
use super::report::{Goal, Report};
use crate::{Agent, AgentOptions};

const STARTS: usize = 10;
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at an agent that is not ready.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) fn measure(field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let crowd = Crowd::start(field.node()?, FULL_NODE)?;
    let mut times = Vec::new();
    for _ in 0..effort.times(STARTS) {
        times.push(once(field)?.as_secs_f64() * 1e3);
    }
    let what = format!("start to first complete scrape, {} pods", FULL_NODE.pods);
    report.add(what, "ms", Goal::AtMost(500.0), &times)?;
    crowd.end()
}

fn once(field: &Field) -> Result<Duration> {
    let start = Instant::now();
    let agent = Agent::spawn(field.node()?, &AgentOptions::default())?;
    while !agent.get("/readyz", &[]).is_ok_and(|response| response.status == 200) {
        ensure!(start.elapsed() < LIMIT, "the agent was not ready within {LIMIT:?}");
        thread::sleep(PAUSE);
    }
    let page = agent.scrape()?;
    let taken = start.elapsed();
    for collector in ["traffic", "tcp", "overlay"] {
        let success = page.value("leadline_collector_success", &[("collector", collector)]);
        ensure!(success == Some(1.0), "the first page is not complete: {collector} {success:?}");
    }
    agent.sigterm()?;
    Ok(taken)
}
