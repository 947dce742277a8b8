//! Round trips of probes as the agent tells them, against tcpdump's times of the same probes at both ends.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::Holder;
use lab::scrape::Samples;
use lab::witness::{Amount, Iperf, Protocol, ensure_precise, iperf3, measured};
use lab::{Agent, Delay, Lab, Node, Place as _};

use super::truth::{self, MEDIAN_ERROR, Place as Seen, Truth, Watch, quantile};
use crate::{DIRECTIONS, after, mesh_at, sent, start};

/// How far the agent's jitter may be from tcpdump's at least.
const JITTER_ERROR: f64 = 10e-6;
/// Round trips in the agent's median.
const RECENT: usize = 64;

/// What is compared, and under what delay.
pub(crate) struct Stage<'a> {
    pub(crate) name: &'a str,
    pub(crate) place: Seen,
    /// The delay of both ways together.
    pub(crate) least: Duration,
    pub(crate) pace: Pace,
}

/// How fast is probed.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Probes that are compared.
    probes: u64,
    /// Probes of which the captures do not say whether they were before a scrape, and the same of answers.
    sent_edge: u64,
    edge: u64,
}

impl Pace {
    /// A probe every 10 ms, for a median.
    pub(crate) const SLOW: Self = Self { probes: 2 * RECENT as u64, sent_edge: 2, edge: 3 };
    /// A probe every 2 ms, for a 99th percentile.
    const FAST: Self = Self { probes: 1_000, sent_edge: 10, edge: 10 };
}

/// What the agent and tcpdump tell of a layer between two scrapes.
struct Told<'a> {
    stage: &'a Stage<'a>,
    layer: &'a str,
    pages: [&'a Samples; 2],
    times: [Duration; 2],
    truth: &'a Truth,
}

impl Told<'_> {
    #[expect(clippy::print_stdout, reason = "the figures are worth reading")]
    fn print(&self, figures: &str) {
        println!("{} {}: {figures}", self.stage.name, self.layer);
    }

    fn ensure_near(&self, is_near: bool, figures: &str) -> Result<()> {
        self.print(figures);
        ensure_precise(is_near, || format!("{} {}: {figures}", self.stage.name, self.layer))
    }

    /// How a part of the histogram has grown.
    fn grown(&self, part: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let name = format!("leadline_path_rtt_seconds_{part}");
        let labels = [labels, &[("layer", self.layer)]].concat();
        let [before, after] = self.pages.map(|page| page.value(&name, &labels));
        Ok(after.context("no round trips")? - before.context("no round trips")?)
    }

    /// What the agent has sent is what tcpdump saw meanwhile.
    fn check_sent(&self) -> Result<()> {
        let [before, after] = self.pages.map(|page| sent(page, self.layer));
        let told = after.context("nothing sent")? - before.context("nothing sent")?;
        let seen = self.truth.sent(self.layer, self.times) as u64;
        ensure!(told > 100, "{}: {told} probes sent", self.layer);
        let is_near = told.abs_diff(seen) <= self.stage.pace.sent_edge;
        self.ensure_near(is_near, &format!("{told} probes sent, tcpdump saw {seen}"))
    }

    /// The round trips are as many as tcpdump saw, and as long on average.
    fn check_mean(&self) -> Result<()> {
        let (count, seen) = (self.grown("count", &[])?, self.truth.arrived(self.layer, self.times));
        let (told, mean) = (self.grown("sum", &[])? / count, mean(&seen)?);
        let is_near = (count - number(seen.len())?).abs() <= number(self.stage.pace.edge)?
            && (told - mean).abs() < self.stage.place.mean_error();
        let seen = seen.len();
        self.ensure_near(
            is_near,
            &format!("{count} of {:.1} us on average, tcpdump {seen} of {:.1} us", told * 1e6, mean * 1e6),
        )
    }

    /// Each bucket has as many round trips as tcpdump saw of them, but for those that are as near to its bounds as a
    /// time may be wrong. So each quantile is in the right bucket, and the 99th percentile is shown.
    fn check_buckets(&self) -> Result<()> {
        let (edge, error) = (number(self.stage.pace.edge)?, MEDIAN_ERROR);
        let mut seen = self.truth.arrived(self.layer, self.times);
        seen.sort_by(f64::total_cmp);
        let until = |bound: f64| number(seen.partition_point(|rtt| *rtt <= bound));
        let (all, mut lower, mut place) = (self.grown("count", &[])?, 0.0, None);
        for text in bounds(self.pages[1], self.layer) {
            let upper: f64 = text.replace("+Inf", "inf").parse().with_context(|| text.clone())?;
            let told = self.grown("bucket", &[("le", &text)])?;
            let [least, most] = [until(upper - error)? - edge, until(upper + error)? + edge];
            ensure_precise((least..=most).contains(&told), || {
                format!("{}: {told} up to {text} s, tcpdump has {least} to {most}", self.layer)
            })?;
            if place.is_none() && told >= 0.99 * all {
                place = Some([lower, upper]);
            }
            lower = upper;
        }
        let [lower, upper] = place.context("no buckets")?.map(|bound| bound * 1e6);
        let p99 = quantile(&seen, 99).context("no round trips")? * 1e6;
        self.print(&format!("p99 above {lower:.0} up to {upper:.0} us, tcpdump {p99:.0} us"));
        Ok(())
    }

    /// The jitter is tcpdump's after one of the last answers.
    fn check_jitter(&self) -> Result<()> {
        for (way, direction) in DIRECTIONS.into_iter().take(2).enumerate() {
            let labels = [("layer", self.layer), ("direction", direction)];
            let told = self.pages[1].value("leadline_path_jitter_seconds", &labels).context("no jitter")?;
            let last = self.truth.jitter(self.layer, self.last());
            let nearest = nearest(told, last.iter().map(|ways| ways[way])).context("no round trips")?;
            let is_near = (told - nearest).abs() < (0.2 * nearest).max(JITTER_ERROR);
            let figures = format!("jitter {direction} {:.1} us, tcpdump {:.1} us", told * 1e6, nearest * 1e6);
            self.ensure_near(is_near, &figures)?;
        }
        Ok(())
    }

    /// The median is tcpdump's after one of the last answers, and no less than the delay.
    fn check_median(&self) -> Result<()> {
        let told = self.pages[1].value("leadline_path_rtt_median_seconds", &[("layer", self.layer)]);
        let told = told.context("no median")?;
        let medians = self.truth.medians(self.layer, RECENT, self.last())?;
        let truth = nearest(told, medians.into_iter()).context("no round trips")?;
        let least = self.stage.least;
        ensure!(truth >= least.as_secs_f64(), "{}: {truth} s is less than the delay {least:?}", self.layer);
        let [told, truth, error] = [told, truth, told - truth].map(|time| time * 1e6);
        let is_near = error.abs() < MEDIAN_ERROR * 1e6;
        self.ensure_near(is_near, &format!("median {told:.1} us, tcpdump {truth:.1} us, error {error:.1} us"))
    }

    /// Answers after the last of which the page may be: it does not have the last ones before a scrape is over, nor those
    /// of which nobody has said yet when they left.
    fn last(&self) -> usize {
        usize::try_from(self.stage.pace.edge).unwrap_or(usize::MAX) + 3
    }
}

/// What the histogram has as bounds.
fn bounds(page: &Samples, layer: &str) -> Vec<String> {
    let of_layer = page
        .of("leadline_path_rtt_seconds_bucket", |sample| sample.label("layer") == Some(layer))
        .filter_map(|sample| sample.label("le"));
    of_layer.map(ToOwned::to_owned).collect()
}

fn nearest(to: f64, values: impl Iterator<Item = f64>) -> Option<f64> {
    values.min_by(|a, b| (a - to).abs().total_cmp(&(b - to).abs()))
}

fn mean(values: &[f64]) -> Result<f64> {
    Ok(values.iter().sum::<f64>() / number(values.len())?)
}

fn number(count: impl TryInto<u32>) -> Result<f64> {
    Ok(f64::from(count.try_into().ok().context("more than 2^32")?))
}

/// What the agent tells of each layer of the place and what tcpdump does, as it is from now on.
pub(crate) fn compare(lab: &Lab, agent: &Agent, stage: &Stage<'_>) -> Result<()> {
    compare_both(lab, agent, stage).map(drop)
}

/// The same; the truth and its times are for who wants to know more.
fn compare_both(lab: &Lab, agent: &Agent, stage: &Stage<'_>) -> Result<(Truth, [Duration; 2])> {
    let watch = Watch::start(stage.place, lab.node(1)?, lab.node(2)?)?;
    let layers = stage.place.layers();
    // Probes that had left before would be missing.
    after(agent, layers[0], 2 * RECENT as u64)?;
    let (first, begin) = (agent.scrape()?, truth::now()?);
    after(agent, layers[0], stage.pace.probes)?;
    let (last, end) = (agent.scrape()?, truth::now()?);
    let truth = watch.stop()?;
    for layer in layers {
        let (pages, times) = ([&first, &last], [begin, end]);
        let told = Told { stage, layer, pages, times, truth: &truth };
        told.check_sent()?;
        told.check_mean()?;
        told.check_buckets()?;
        told.check_jitter()?;
        told.check_median()?;
    }
    Ok((truth, [begin, end]))
}

#[test]
fn round_trips_of_each_layer_are_tcpdumps_under_any_delay() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh_at(&lab, 2)?;
    let check = |name: &str, least| {
        let stage = Stage { name, place: Seen::Underlay, least, pace: Pace::FAST };
        measured(|| compare(&lab, &agent, &stage))
    };
    check("no delay", Duration::ZERO)?;
    let us = Duration::from_micros;
    let none = Duration::ZERO;
    for (name, delays, spread) in [
        ("0.5 ms each way", [us(500), us(500)], none),
        ("5 ms each way", [us(5_000), us(5_000)], none),
        ("50 ms each way", [us(50_000), us(50_000)], none),
        ("2 ms there, 8 ms back", [us(8_000), us(2_000)], none),
        ("1 ms there, 3 ms back, and up to 1 ms more", [us(3_000), us(1_000)], us(1_000)),
    ] {
        let _delay = Delay::insert_uneven(&lab, lab.node(2)?, delays, spread)?;
        check(name, delays[0] + delays[1])?;
    }
    lab.shutdown()
}

/// Keeps all processors busy twice, before what else a node does; each ends by itself after a minute at most.
fn burn(node: &Node) -> Result<Vec<Holder>> {
    let count = 2 * thread::available_parallelism()?.get();
    let start = |_| {
        let mut command = node.command("nice")?;
        Holder::spawn(command.args(["-n", "-5", "sh", "-c", "ulimit -t 60; while :; do :; done"]))
    };
    (0..count).map(start).collect()
}

#[test]
fn a_busy_reflector_is_no_slow_network() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh_at(&lab, 2)?;
    let [here, there] = [lab.node(1)?, lab.node(2)?];
    let place = Seen::Underlay;
    let stage = |name| Stage { name, place, least: Duration::ZERO, pace: Pace::FAST };
    // How long the reflector has 99 of 100 probes at most.
    let stay = |name| -> Result<f64> {
        let mut stay = None;
        measured(|| {
            let (truth, times) = compare_both(&lab, &agent, &stage(name))?;
            let stays = truth.stays("underlay", times);
            stay = quantile(&stays, 99);
            Ok(())
        })?;
        stay.context("no answers")
    };
    let idle = stay("idle")?;
    let burners = burn(there)?;
    let traffic = Iperf {
        protocol: Protocol::Udp { rate: 50_000_000 },
        amount: Amount::Seconds(5),
        length: Some(1_200),
        ..Iperf::default()
    };
    let busy = thread::scope(|scope| {
        let traffic = scope.spawn(|| iperf3(here, there, &traffic));
        let busy = stay("busy");
        traffic.join().unwrap_or_else(|payload| resume_unwind(payload)).and(busy)
    })?;
    println!("p99 of the time at the reflector: idle {:.0} us, busy {:.0} us", idle * 1e6, busy * 1e6);
    // Of which the round trips above would have shown a hundredth.
    ensure!(busy > 100.0 * MEDIAN_ERROR, "the reflector was not busy");
    drop(burners);
    lab.shutdown()
}
