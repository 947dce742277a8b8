//! What the agent says of one pod's TCP, as differences between two readings.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::process::wait_for;
use lab::{Agent, wait_until};

/// Long enough for whatever the kernel still has to do after the programs are done.
const SETTLE: Duration = Duration::from_secs(10);

/// All samples of the TCP families of one pod; the key is the name without its prefix, and for failures the reason.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    counts: BTreeMap<String, u64>,
    sums: BTreeMap<String, f64>,
}

/// A histogram between two readings.
#[derive(Clone, Debug)]
pub(crate) struct Durations {
    pub(crate) count: u64,
    pub(crate) sum: Duration,
    /// Cumulative counts by upper bound in seconds.
    pub(crate) buckets: BTreeMap<String, u64>,
}

impl Durations {
    pub(crate) fn mean(&self) -> Result<Duration> {
        let count = u32::try_from(self.count).ok().filter(|count| *count > 0);
        Ok(self.sum / count.context("no samples")?)
    }

    /// The number of samples above one bound and up to another one.
    pub(crate) fn between(&self, low: &str, high: &str) -> Result<u64> {
        let of = |bound| self.buckets.get(bound).with_context(|| format!("no bucket {bound}: {self:?}"));
        Ok(of(high)? - of(low)?)
    }
}

impl Health {
    pub(crate) fn of(agent: &Agent, pod: &str) -> Result<Self> {
        let samples = agent.scrape()?;
        let mut health = Self { counts: BTreeMap::new(), sums: BTreeMap::new() };
        for sample in samples.all().iter().filter(|sample| sample.label("pod") == Some(pod)) {
            let Some(name) = sample.name.strip_prefix("leadline_tcp_") else { continue };
            let suffix = sample.label("reason").or(sample.label("le"));
            let key = suffix.map_or_else(|| name.to_owned(), |suffix| format!("{name} {suffix}"));
            if name.ends_with("_sum") {
                health.sums.insert(key, sample.value().context("a sum that is no number")?);
            } else {
                health.counts.insert(key, sample.count().context("a count that is no integer")?);
            }
        }
        Ok(health)
    }

    /// Waits until the pod has sent something, and reads its series.
    pub(crate) fn wait_for_segments(agent: &Agent, pod: &str) -> Result<Self> {
        let has_sent = |health: &Self| health.count("transmit_segments_total").is_ok_and(|sent| sent > 0);
        wait_for(&format!("segments of pod {pod}"), SETTLE, || Self::of(agent, pod).ok().filter(has_sent))
    }

    /// Reads until `expected` counts have been added since this reading, and then whether they stay.
    pub(crate) fn expect(&self, agent: &Agent, pod: &str, expected: &[(&str, u64)]) -> Result<()> {
        let added = || -> Result<Vec<(&str, u64)>> {
            let now = Self::of(agent, pod)?;
            expected.iter().map(|(name, _)| Ok((*name, now.added(self, name)?))).collect()
        };
        let reached = wait_until("the counts", SETTLE, || added().is_ok_and(|added| added == expected));
        assert_eq!(added()?, expected, "measured (left) and witness (right) of pod {pod}");
        println!("{pod}: {expected:?}, difference 0");
        reached
    }

    pub(crate) fn count(&self, name: &str) -> Result<u64> {
        self.counts.get(name).copied().with_context(|| format!("no sample {name}"))
    }

    /// What was added to a counter since an earlier reading.
    pub(crate) fn added(&self, earlier: &Self, name: &str) -> Result<u64> {
        let (now, before) = (self.count(name)?, earlier.count(name)?);
        now.checked_sub(before).with_context(|| format!("{name} went back from {before} to {now}"))
    }

    /// The samples of a histogram since an earlier reading.
    pub(crate) fn durations(&self, earlier: &Self, family: &str) -> Result<Durations> {
        let bucket = format!("{family}_bucket ");
        let bounds = self.counts.keys().filter_map(|key| key.strip_prefix(&bucket));
        let buckets = bounds
            .map(|bound| Ok((bound.to_owned(), self.added(earlier, &format!("{bucket}{bound}"))?)))
            .collect::<Result<_>>()?;
        let sum = format!("{family}_sum");
        let sums = self.sums.get(&sum).zip(earlier.sums.get(&sum)).with_context(|| format!("no {sum}"))?;
        Ok(Durations {
            count: self.added(earlier, &format!("{family}_count"))?,
            sum: Duration::try_from_secs_f64(sums.0 - sums.1).context("the sum went back")?,
            buckets,
        })
    }
}
