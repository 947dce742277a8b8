//! Where collectors put samples: a writer that renders them at once, so that nothing is materialised twice.
//!
//! A sink belongs to one scrape. It keeps three promises whatever a collector does: HELP and TYPE stand once and only
//! before samples, a family never has more label sets than the cap, and a malformed sample is left out and counted.

use super::{
    Buckets, Descriptor, Format, Kind, Labels, OTHER, Value,
    fold::Fold,
    labels::LabelSet,
    text::{render_bound, write_float, write_header, write_integer, write_value},
};

/// Label sets that a family may have before the rest is folded.
pub const DEFAULT_MAX_SERIES: usize = 10_000;

/// The target of one collection.
#[derive(Debug)]
pub struct Sink<'a> {
    out: &'a mut Vec<u8>,
    rules: Rules,
    family: Option<Open>,
    started: Vec<&'static str>,
    tally: Tally,
}

/// One family being written.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut Vec<u8>,
    rules: Rules,
    open: &'a mut Open,
    tally: &'a mut Tally,
}

/// What a sink did beside writing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples folded into `other`, per metric that exceeded the cap.
    pub folded: Vec<(&'static str, u64)>,
    /// Samples left out because they did not fit their descriptor.
    pub rejected: u64,
}

/// A point to return to when a collector fails.
#[derive(Debug)]
pub struct Mark {
    length: usize,
    started: usize,
    tally: Tally,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    format: Format,
    max_series: usize,
}

/// State of the family that is being written.
#[derive(Debug)]
struct Open {
    descriptor: &'static Descriptor,
    /// A second start of the same family would repeat its header, which parsers refuse.
    repeated: bool,
    series: usize,
    folded: u64,
    fold: Fold,
    /// What follows `le="`, by the bits of the bound: most families use one set of bounds for all series.
    bounds: Vec<(u64, Vec<u8>)>,
}

impl<'a> Sink<'a> {
    /// A sink that appends to `out`, with the default cap.
    #[must_use]
    pub fn new(out: &'a mut Vec<u8>, format: Format) -> Self {
        let rules = Rules { format, max_series: DEFAULT_MAX_SERIES };
        Self { out, rules, family: None, started: Vec::new(), tally: Tally::default() }
    }

    /// The same with another cap of label sets per family.
    #[must_use]
    pub fn with_max_series(mut self, max_series: usize) -> Self {
        self.rules.max_series = max_series;
        self
    }

    /// Takes the cap away for what follows: families whose label sets are bounded by the agent itself.
    pub fn lift_cap(&mut self) {
        self.rules.max_series = usize::MAX;
    }

    /// Starts a family. All samples of a family are written through one call of this.
    pub fn family(&mut self, descriptor: &'static Descriptor) -> Family<'_> {
        self.close();
        let repeated = self.started.contains(&descriptor.name);
        self.started.push(descriptor.name);
        let open = self.family.insert(Open::new(descriptor, repeated));
        Family { out: self.out, rules: self.rules, open, tally: &mut self.tally }
    }

    /// Remembers this point.
    pub fn mark(&mut self) -> Mark {
        self.close();
        Mark { length: self.out.len(), started: self.started.len(), tally: self.tally.clone() }
    }

    /// Forgets everything that was written since `mark`.
    pub fn rollback(&mut self, mark: Mark) {
        self.family = None;
        self.out.truncate(mark.length);
        self.started.truncate(mark.started);
        self.tally = mark.tally;
    }

    /// What was folded and rejected so far.
    pub fn tally(&mut self) -> &Tally {
        self.close();
        &self.tally
    }

    /// Completes the page.
    pub fn finish(mut self) {
        self.close();
        if self.rules.format == Format::OpenMetrics1 {
            self.out.extend_from_slice(b"# EOF\n");
        }
    }

    fn close(&mut self) {
        let Some(mut open) = self.family.take() else { return };
        if open.folded > 0 {
            self.tally.folded.push((open.descriptor.name, open.folded));
        }
        let fold = std::mem::take(&mut open.fold);
        let others = vec![OTHER; open.descriptor.labels.len()];
        let others = LabelSet::Values(&others);
        let mut family = Family { out: self.out, rules: self.rules, open: &mut open, tally: &mut self.tally };
        match fold {
            Fold::Empty => {}
            Fold::Value(value) => family.write_sample(others, value),
            Fold::Histogram { bounds, counts, sum } => {
                family.write_histogram(others, &Buckets { bounds: &bounds, counts: &counts, sum });
            }
        }
    }
}

impl Open {
    fn new(descriptor: &'static Descriptor, repeated: bool) -> Self {
        Self { descriptor, repeated, series: 0, folded: 0, fold: Fold::Empty, bounds: Vec::new() }
    }
}

impl Family<'_> {
    /// Writes a counter or gauge sample; `labels` in the order of the descriptor.
    pub fn value(&mut self, labels: &[&str], value: Value) {
        self.add_value(LabelSet::Values(labels), value);
    }

    /// Writes a counter or gauge sample whose labels were rendered before.
    pub fn value_with(&mut self, first: &Labels, last: &Labels, value: Value) {
        self.add_value(LabelSet::Rendered(first, last), value);
    }

    /// Writes a histogram sample.
    pub fn histogram(&mut self, labels: &[&str], buckets: &Buckets<'_>) {
        self.add_histogram(LabelSet::Values(labels), buckets);
    }

    /// Writes a histogram sample whose labels were rendered before.
    pub fn histogram_with(&mut self, labels: &Labels, buckets: &Buckets<'_>) {
        self.add_histogram(LabelSet::Rendered(labels, &Labels::NONE), buckets);
    }

    fn add_value(&mut self, labels: LabelSet<'_>, value: Value) {
        if self.open.descriptor.kind == Kind::Histogram || !self.fits(labels) {
            return self.reject();
        }
        if self.must_fold(labels) {
            return self.open.fold.add_value(value);
        }
        self.write_sample(labels, value);
    }

    fn add_histogram(&mut self, labels: LabelSet<'_>, buckets: &Buckets<'_>) {
        let shaped = buckets.counts.len() == buckets.bounds.len() + 1;
        if self.open.descriptor.kind != Kind::Histogram || !shaped || !self.fits(labels) {
            return self.reject();
        }
        if !self.must_fold(labels) {
            return self.write_histogram(labels, buckets);
        }
        if !self.open.fold.add_histogram(buckets) {
            self.reject();
        }
    }

    fn fits(&self, labels: LabelSet<'_>) -> bool {
        !self.open.repeated && labels.fits(self.open.descriptor.labels)
    }

    /// A wrong call is a mistake in the collector: loud in development, a missing and counted sample in production.
    fn reject(&mut self) {
        self.tally.rejected += 1;
        debug_assert!(
            false,
            "sample does not fit {} or the family was started twice",
            self.open.descriptor.name
        );
    }

    /// Whether the sample belongs to the `other` series. A collector's own `other` goes there too: two series of the
    /// same labels would make the page invalid.
    fn must_fold(&mut self, labels: LabelSet<'_>) -> bool {
        if labels.is_empty() {
            return false;
        }
        if labels.is_other() {
            return true;
        }
        let full = self.open.series >= self.rules.max_series;
        self.open.folded += u64::from(full);
        full
    }

    fn begin_series(&mut self) {
        if self.open.series == 0 {
            write_header(self.out, self.open.descriptor, self.rules.format);
        }
        self.open.series += 1;
    }

    fn write_sample(&mut self, labels: LabelSet<'_>, value: Value) {
        self.begin_series();
        self.begin_line("", labels);
        write_value(self.out, value);
        self.out.push(b'\n');
    }

    fn write_histogram(&mut self, labels: LabelSet<'_>, buckets: &Buckets<'_>) {
        self.begin_series();
        let mut cumulative = 0_u64;
        let bounds = buckets.bounds.iter().copied().chain([f64::INFINITY]);
        let start = self.out.len();
        self.begin_bucket(labels);
        let begun = start..self.out.len();
        for (index, (bound, count)) in bounds.zip(buckets.counts).enumerate() {
            if index > 0 {
                self.out.extend_from_within(begun.clone());
            }
            cumulative = cumulative.saturating_add(*count);
            self.cache_bound(index, bound);
            self.out.extend_from_slice(&self.open.bounds[index].1);
            write_integer(self.out, cumulative);
            self.out.push(b'\n');
        }
        self.begin_line("_sum", labels);
        write_float(self.out, buckets.sum);
        self.out.push(b'\n');
        self.begin_line("_count", labels);
        write_integer(self.out, cumulative);
        self.out.push(b'\n');
    }

    /// Writes a line up to the value.
    fn begin_line(&mut self, suffix: &str, labels: LabelSet<'_>) {
        self.write_name(suffix);
        if !labels.is_empty() {
            self.out.push(b'{');
            labels.write(self.out, self.open.descriptor.labels);
            self.out.push(b'}');
        }
        self.out.push(b' ');
    }

    /// Writes the line of a bucket up to its bound.
    fn begin_bucket(&mut self, labels: LabelSet<'_>) {
        self.write_name("_bucket{");
        labels.write(self.out, self.open.descriptor.labels);
        if !labels.is_empty() {
            self.out.push(b',');
        }
        self.out.extend_from_slice(b"le=\"");
    }

    fn write_name(&mut self, suffix: &str) {
        self.out.extend_from_slice(self.open.descriptor.name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
    }

    fn cache_bound(&mut self, index: usize, bound: f64) {
        if self.open.bounds.get(index).is_some_and(|(bits, _)| *bits == bound.to_bits()) {
            return;
        }
        let mut text = render_bound(bound, self.rules.format);
        text.extend_from_slice(b"\"} ");
        self.open.bounds.truncate(index);
        self.open.bounds.push((bound.to_bits(), text));
    }
}

#[cfg(test)]
mod tests;
