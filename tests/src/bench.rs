//! The benchmark: what the agent costs, measured on a lab with the real binary, against the goals of the design.
//!
//! Each part compares within one run, because two runs on a shared machine cannot be compared: the agent's program
//! beside an empty one on the same packets, the same traffic with and without the agent in turn.

pub mod child;
mod churn;
mod crowd;
mod field;
mod idle;
mod kernel;
mod overhead;
mod packet;
mod path;
mod process;
mod report;
mod scrape;
mod start;
mod statistics;
mod tap;

use std::fmt;
use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use field::Field;
use report::Report;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    quick: bool,
    /// Pods of the part `churn`.
    pods: Option<u32>,
}

impl Effort {
    /// The usual number of repetitions, or few: to see that everything works, not to trust the numbers.
    fn times(self, usual: usize) -> usize {
        if self.quick { 2 } else { usual }
    }

    fn seconds(self, usual: u64) -> u64 {
        if self.quick { usual.min(4) } else { usual }
    }
}

type Measure = fn(&mut Field, Effort, &mut Report) -> Result<()>;

/// The parts by name, in the order in which they run.
const PARTS: [(&str, Measure); 8] = [
    ("packet", packet::measure),
    ("tap", tap::measure),
    ("path", path::measure),
    ("overhead", overhead::measure),
    ("scrape", scrape::measure),
    ("idle", idle::measure),
    ("start", start::measure),
    ("churn", churn::measure),
];

/// What was asked for.
#[derive(Debug)]
struct Wish {
    effort: Effort,
    parts: Vec<(&'static str, Measure)>,
}

impl Wish {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut wish = Self { effort: Effort { quick: false, pods: None }, parts: Vec::new() };
        for argument in arguments {
            if argument == "--quick" {
                wish.effort.quick = true;
                continue;
            }
            if let Some(pods) = argument.strip_prefix("--pods=") {
                wish.effort.pods = Some(pods.parse().with_context(|| format!("{argument}: no number"))?);
                continue;
            }
            let part = PARTS.iter().find(|(name, _)| name == argument);
            let names = PARTS.map(|(name, _)| name).join(", ");
            wish.parts.push(*part.with_context(|| format!("there is no part {argument}; parts: {names}"))?);
        }
        if wish.parts.is_empty() {
            wish.parts = PARTS.to_vec();
        }
        Ok(wish)
    }
}

/// Measures the parts named in the arguments, or all; prints the table and writes it to `target/bench.json`.
/// A goal that is missed is a result, not an error.
pub fn run(arguments: &[String]) -> Result<()> {
    let wish = Wish::parse(arguments)?;
    ensure!(nix::unistd::geteuid().is_root(), "the benchmark makes namespaces and cgroups: run it as root");
    let mut report = Report::begin(wish.effort.quick);
    progress("lab: one node with Flannel")?;
    let mut field = Field::prepare()?;
    let mut failed = Vec::new();
    for (name, measure) in &wish.parts {
        let started = Instant::now();
        progress(format_args!("{name} ..."))?;
        report.enter(name);
        // One part that cannot be measured must not cost the others.
        match measure(&mut field, wish.effort, &mut report) {
            Ok(()) => progress(format_args!("{name}: measured in {:.0?}", started.elapsed()))?,
            Err(error) => {
                progress(format_args!("{name}: failed: {error:#}"))?;
                failed.push(*name);
            }
        }
    }
    field.shutdown()?;
    report.finish()?;
    if !failed.is_empty() {
        bail!("could not be measured: {}", failed.join(", "));
    }
    Ok(())
}

/// Says how far it is. A reader that has gone away stops the benchmark.
fn progress(line: impl fmt::Display) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(arguments: &[&str]) -> Result<Wish> {
        Wish::parse(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn without_names_every_part_is_measured() {
        assert_eq!(wish(&["--quick"]).unwrap().parts.len(), PARTS.len());
    }

    #[test]
    fn parts_are_chosen_by_name() {
        let names: Vec<&str> =
            wish(&["idle", "packet"]).unwrap().parts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["idle", "packet"]);
    }

    #[test]
    fn an_unknown_part_is_answered_with_the_known_ones() {
        let error = wish(&["cpu"]).unwrap_err().to_string();
        assert!(error.contains("no part cpu") && error.contains("overhead"), "{error}");
    }
}
