//! Samples of an exposition in the text format 0.0.4 or in `OpenMetrics`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The metric name, with suffixes such as `_total` or `_bucket`.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value as it was written, so that large integers stay exact.
    pub text: String,
}

impl Sample {
    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.text.parse().ok()
    }

    /// The value as an exact count; none if it is no integer.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        let integer = self.text.strip_suffix(".0").unwrap_or(&self.text);
        integer.parse().ok()
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == Some(value))
    }
}

/// All samples of a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// All samples in the order of the exposition.
    #[must_use]
    pub fn all(&self) -> &[Sample] {
        &self.0
    }

    /// The samples of that name for which the filter holds.
    pub fn of<'a>(
        &'a self,
        name: &'a str,
        filter: impl Fn(&Sample) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name && filter(sample))
    }

    /// The only sample of that name which has these labels and perhaps others; none if there are several.
    #[must_use]
    pub fn only(&self, name: &str, labels: &[(&str, &str)]) -> Option<&Sample> {
        let mut matching = self.0.iter().filter(|sample| sample.name == name && sample.has(labels));
        let first = matching.next()?;
        matching.next().is_none().then_some(first)
    }

    /// The value of the [only](Self::only) matching sample.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.only(name, labels)?.value()
    }

    /// The exact count of the [only](Self::only) matching sample.
    #[must_use]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        self.only(name, labels)?.count()
    }

    /// The exact sum of the samples for which the filter holds; none if there are none or one is no integer.
    #[must_use]
    pub fn sum(&self, name: &str, filter: impl Fn(&Sample) -> bool) -> Option<u64> {
        let mut counts = self.of(name, filter).map(Sample::count).peekable();
        counts.peek()?;
        counts.sum()
    }
}

/// Parses an exposition; the error shows the line that is malformed.
pub fn parse(text: &str) -> Result<Samples> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let samples = lines.map(|(line, number)| {
        parse_line(line).with_context(|| format!("line {number} of the exposition is malformed: {line}"))
    });
    samples.collect::<Result<_>>().map(Samples)
}

fn parse_line(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A time stamp or an exemplar may follow.
    let text = rest.split_whitespace().next()?;
    text.parse::<f64>().ok()?;
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, text: text.to_owned() })
}

/// Parses `name="value",…}` and returns what follows the brace.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(quoted)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        rest = after.strip_prefix(',').or_else(|| after.starts_with('}').then_some(after))?;
    }
}

/// Parses up to the closing quote and returns the value and what follows the quote.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP bytes_total Bytes.\n# TYPE bytes_total counter\n\
        bytes_total{pod=\"a\",peer_class=\"node\"} 9007199254740993\n\
        bytes_total{pod=\"a\",peer_class=\"host\"} 7 1700000000\n\
        bytes_total{pod=\"b\",peer_class=\"node\",} 5.0\n\
        rtt_seconds_bucket{le=\"+Inf\"} 3 # {trace=\"x\"} 0.5\n\nup 1.5\n# EOF\n";

    #[test]
    fn large_counts_stay_exact() {
        let samples = parse(TEXT).unwrap();
        let labels = [("pod", "a"), ("peer_class", "node")];
        assert_eq!(samples.count("bytes_total", &labels), Some(9_007_199_254_740_993));
    }

    #[test]
    fn an_ambiguous_question_has_no_answer() {
        let samples = parse(TEXT).unwrap();
        assert_eq!(samples.value("bytes_total", &[("pod", "a")]), None);
        assert_eq!(samples.value("bytes_total", &[("pod", "b")]), Some(5.0));
        assert_eq!(samples.value("bytes", &[]), None);
    }

    #[test]
    fn sums_are_filtered_and_absent_without_samples() {
        let samples = parse(TEXT).unwrap();
        assert_eq!(samples.sum("bytes_total", |sample| sample.label("pod") == Some("b")), Some(5));
        let host_or_b =
            |sample: &Sample| sample.label("peer_class") == Some("host") || sample.label("pod") == Some("b");
        assert_eq!(samples.sum("bytes_total", host_or_b), Some(12));
        assert_eq!(samples.sum("bytes_total", |_| false), None);
        assert_eq!(samples.sum("up", |_| true), None);
    }

    #[test]
    fn timestamps_and_exemplars_are_ignored() {
        let samples = parse(TEXT).unwrap();
        assert_eq!(samples.count("rtt_seconds_bucket", &[("le", "+Inf")]), Some(3));
        assert_eq!(samples.count("bytes_total", &[("peer_class", "host")]), Some(7));
    }

    #[test]
    fn escapes_in_label_values() {
        let samples = parse(r#"x{l="a\\b\"c\nd,}"} 1"#).unwrap();
        assert_eq!(samples.all()[0].label("l"), Some("a\\b\"c\nd,}"));
    }

    #[test]
    fn malformed_lines_are_shown() {
        for line in ["x", "x{l=\"a\" 1", "x{l=\"a\\q\"} 1", "x one", "{l=\"a\"} 1", "x{l=\"a\",l=\"b\"} 1"] {
            let error = parse(&format!("ok 1\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(line), "{error}");
        }
    }
}
