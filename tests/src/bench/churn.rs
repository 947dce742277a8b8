//! Part `churn`: what pods that come and go cost, and whether they leave anything behind.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::Effort;
use super::crowd::targets;
use super::field::{self, Field};
use super::kernel::{self, Holdings};
use super::process::processor_time;
use super::report::{Goal, Report};
use super::statistics::number;
use crate::scrape::Sample;
use crate::{Agent, process};

const PODS: u32 = 1_000;
/// How often the page is compared with the one before.
const LOOKS: Duration = Duration::from_secs(1);
/// The time in which the slots of pods that are gone must be free again.
const SETTLED: Duration = Duration::from_secs(30);

pub(super) fn measure(field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let pods = effort.pods.unwrap_or(if effort.quick { PODS / 10 } else { PODS });
    let node = field.node()?;
    let mut agent = field.agent()?;
    let pid = agent.service().pid();
    let table = Holdings::of(pid)?.map("leadline_slots")?;
    let (before, sent_before) = (Losses::of(&agent)?, sent_by_pods(&agent)?);
    let (time_before, start) = (processor_time(pid)?, Instant::now());
    let mut words = vec!["churn".to_owned(), pods.to_string()];
    words.extend(targets(node)?.iter().take(1).map(ToString::to_string));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut churn =
        process::spawn(field::child(node, &words)?.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let mut watch = Watch::default();
    let mut next = start;
    let ended = process::wait_until("the pods to be gone", Duration::from_mins(20), || {
        if Instant::now() >= next {
            next += LOOKS;
            drop(watch.look(&agent, table));
        }
        !matches!(churn.try_wait(), Ok(None))
    });
    if ended.is_err() {
        churn.kill()?;
    }
    let took = start.elapsed();
    let output = process::finish(churn, "the churn", Duration::from_secs(1))?;
    ensure!(output.status.success(), "the churn failed: {}", String::from_utf8_lossy(&output.stderr));
    let made = made(&String::from_utf8_lossy(&output.stdout))?;
    let in_use = || -> Result<usize> {
        Ok(kernel::cgroups(table)?.iter().filter(|cgroup| made.contains(cgroup)).count())
    };
    // That they are not free in time is a result, not an error.
    drop(process::wait_until("the slots to be free", SETTLED, || in_use().is_ok_and(|slots| slots == 0)));
    let time = processor_time(pid)?.saturating_sub(time_before);
    let (losses, counted) = (Losses::of(&agent)?, sent_by_pods(&agent)?);
    let thousands = f64::from(pods) / 1_000.0;
    let missed = (sent_before + u64::from(pods)).abs_diff(counted);
    report.add("processor time for 1,000 pods", "ms", Goal::None, &[time.as_secs_f64() * 1e3 / thousands])?;
    report.add(format!("time to make and remove {pods}"), "s", Goal::None, &[took.as_secs_f64()])?;
    report.add("slots in use at most", "", Goal::None, &[number(u64::try_from(watch.most)?)])?;
    report.add("slots leaked", "", Goal::AtMost(0.0), &[number(u64::try_from(in_use()?)?)])?;
    report.add("packets without a slot", "", Goal::AtMost(0.0), &[number(losses.slots - before.slots)])?;
    report.add("datagrams sent, less those counted", "", Goal::AtMost(0.0), &[number(missed)])?;
    report.add("series that fell", "", Goal::AtMost(0.0), &[number(watch.fallen)])?;
    report.add("records lost", "", Goal::AtMost(0.0), &[number(losses.records - before.records)])
}

/// The cgroups that the child has made: the kernel numbers them upwards, and nobody else made any meanwhile.
fn made(output: &str) -> Result<RangeInclusive<u64>> {
    let mut words = output.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => bail!("the churn named no cgroups: {output:?}"),
    }
}

/// What the agent says that it could not do.
struct Losses {
    /// Records of the kernel that the agent has not seen.
    records: u64,
    /// Packets that found no slot.
    slots: u64,
}

impl Losses {
    fn of(agent: &Agent) -> Result<Self> {
        let page = agent.scrape()?;
        let records = page.count("leadline_events_lost_total", &[("source", "ring")]);
        let slots = page.count("leadline_slots_exhausted_total", &[]);
        Ok(Self {
            records: records.context("no count of lost records")?,
            slots: slots.context("no count of look-ups without a slot")?,
        })
    }
}

/// Datagrams to outside that pods have sent, those of former pods included: one for each.
fn sent_by_pods(agent: &Agent) -> Result<u64> {
    let page = agent.scrape()?;
    let of_class = |sample: &Sample| sample.label("peer_class") == Some("external");
    let of =
        |level| page.sum(&format!("leadline_{level}_transmit_packets_total"), of_class).unwrap_or_default();
    of("node").checked_sub(of("unit")).context("the units sent more than their node")
}

/// Looks at the counters while pods come and go.
#[derive(Default)]
struct Watch {
    last: BTreeMap<String, u64>,
    fallen: u64,
    most: usize,
}

impl Watch {
    /// Compares the page with that of the last look.
    fn look(&mut self, agent: &Agent, table: u64) -> Result<()> {
        let page = agent.scrape()?;
        let mut now = BTreeMap::new();
        for sample in page.all().iter().filter(|sample| sample.name.ends_with("packets_total")) {
            now.insert(format!("{} {:?}", sample.name, sample.labels), sample.count().unwrap_or_default());
        }
        let fell = |(name, count): &(&String, &u64)| self.last.get(*name).is_some_and(|last| last > *count);
        self.fallen += u64::try_from(now.iter().filter(fell).count())?;
        self.last = now;
        self.most = self.most.max(kernel::cgroups(table)?.len());
        Ok(())
    }
}
