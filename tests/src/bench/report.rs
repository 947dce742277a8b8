//! The table for people and the JSON for machines.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::progress;
use super::statistics::Spread;
use crate::tools;

/// One measured quantity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    part: &'static str,
    what: String,
    unit: &'static str,
    /// The value that must not be exceeded; none for what is only reported.
    goal: Option<f64>,
    median: f64,
    lower_quartile: f64,
    upper_quartile: f64,
    samples: usize,
    met: Option<bool>,
}

/// What a measurement is held against.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// The median must not exceed this.
    AtMost(f64),
    /// The lower quartile must not exceed this: what cannot be told apart from it is no worse.
    NotAbove(f64),
    /// Reported only.
    None,
}

impl Goal {
    fn judge(self, spread: &Spread) -> (Option<f64>, Option<bool>) {
        match self {
            Self::AtMost(goal) => (Some(goal), Some(spread.median <= goal)),
            Self::NotAbove(goal) => (Some(goal), Some(spread.lower <= goal)),
            Self::None => (None, None),
        }
    }
}

/// The machine, for who reads the numbers later.
#[derive(Clone, Debug, Serialize)]
struct Machine {
    kernel: String,
    processors: usize,
    /// `/proc/loadavg` before and after: others at work spoil the numbers.
    load_before: String,
    load_after: String,
}

/// Everything measured so far.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// Few repetitions: the numbers are no result.
    quick: bool,
    rows: Vec<Row>,
    #[serde(skip)]
    part: &'static str,
}

impl Report {
    pub(super) fn begin(quick: bool) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let machine = Machine {
            kernel: kernel.trim().to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            load_before: load(),
            load_after: String::new(),
        };
        Self { machine, quick, rows: Vec::new(), part: "" }
    }

    /// What follows belongs to this part.
    pub(super) fn enter(&mut self, part: &'static str) {
        self.part = part;
    }

    /// Adds several measurements of one quantity.
    pub(super) fn add(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        goal: Goal,
        measurements: &[f64],
    ) -> Result<()> {
        let what = what.into();
        let spread = Spread::of(measurements).with_context(|| what.clone())?;
        let (limit, met) = goal.judge(&spread);
        self.rows.push(Row {
            part: self.part,
            what,
            unit,
            goal: limit,
            median: spread.median,
            lower_quartile: spread.lower,
            upper_quartile: spread.upper,
            samples: spread.samples,
            met,
        });
        Ok(())
    }

    /// Prints the table and writes the file.
    pub(super) fn finish(mut self) -> Result<()> {
        self.machine.load_after = load();
        progress(table(&self.rows))?;
        let Machine { kernel, processors, load_before, load_after } = &self.machine;
        progress(format_args!(
            "Linux {kernel}, {processors} CPUs, load {load_before} before and {load_after} after{}",
            if self.quick { "; --quick: these numbers are no result" } else { "" }
        ))?;
        let path = tools::target_dir().join("bench.json");
        let mut json = serde_json::to_string_pretty(&self)?;
        json.push('\n');
        fs::write(&path, json).with_context(|| format!("write {}", path.display()))?;
        progress(format_args!("written to {}", path.display()))
    }
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn table(rows: &[Row]) -> String {
    let cells: Vec<[String; 6]> = rows.iter().map(cells).collect();
    let heading = ["part", "what", "goal", "median", "quartiles", "met"].map(str::to_owned);
    let mut widths = [0; 6];
    for row in cells.iter().chain([&heading]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [&heading].into_iter().chain(&cells) {
        text.push('\n');
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _written = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
    }
    text.push('\n');
    text
}

fn cells(row: &Row) -> [String; 6] {
    let unit = |value: f64| format!("{} {}", short(value), row.unit).trim_end().to_owned();
    let quartiles = match row.samples {
        1 => String::new(),
        samples => format!("{} … {} of {samples}", short(row.lower_quartile), short(row.upper_quartile)),
    };
    let goal = row.goal.map_or_else(String::new, |goal| format!("<= {}", unit(goal)));
    let met = match row.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    [row.part.to_owned(), row.what.clone(), goal, unit(row.median), quartiles, met.to_owned()]
}

/// Three digits, which is more than these measurements are good for.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if digits == 0 { &text } else { text.trim_end_matches('0').trim_end_matches('.') };
    // A small negative number rounds to a zero with a sign.
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(goal: Goal, measurements: &[f64]) -> Row {
        let mut report = Report::begin(false);
        report.enter("part");
        report.add("what", "ns", goal, measurements).unwrap();
        report.rows.remove(0)
    }

    #[test]
    fn the_median_is_held_against_the_goal() {
        assert_eq!(judged(Goal::AtMost(15.0), &[1.0, 15.0, 99.0]).met, Some(true));
        assert_eq!(judged(Goal::AtMost(15.0), &[1.0, 15.1, 99.0]).met, Some(false));
        assert_eq!(judged(Goal::None, &[1.0]).met, None);
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_above() {
        assert_eq!(judged(Goal::NotAbove(1.0), &[0.9, 1.1, 1.3]).met, Some(true));
        assert_eq!(judged(Goal::NotAbove(1.0), &[1.05, 1.1, 1.3]).met, Some(false));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, -0.001, 1.239, 12.34, 1234.5, 100.0].map(short),
            ["0", "0", "1.24", "12.3", "1234", "100"]
        );
    }

    #[test]
    fn columns_are_aligned_and_a_miss_stands_out() {
        let rows = [judged(Goal::AtMost(15.0), &[20.0]), judged(Goal::None, &[1.0, 2.0])];
        let expected = "
part  what  goal      median  quartiles         met
part  what  <= 15 ns  20 ns                     NO
part  what            1.5 ns  1.25 … 1.75 of 2
";
        assert_eq!(table(&rows), expected);
    }
}
