//! The labels of a sample, as they stand on the page.

use super::text::write_label;

/// The value of every label of the series that takes what exceeds the cap.
pub const OTHER: &str = "other";

/// Labels rendered once for all the series that have them, first or last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: &'static [&'static str],
    text: Vec<u8>,
    is_other: bool,
}

/// All labels of one sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum LabelSet<'a> {
    /// By their values.
    Values(&'a [&'a str]),
    /// Rendered before, in two parts.
    Rendered(&'a Labels, &'a Labels),
}

impl Labels {
    /// No labels.
    pub const NONE: Self = Self { names: &[], text: Vec::new(), is_other: true };

    /// Labels of these names; a name without a value is left out.
    #[must_use]
    pub fn new(names: &'static [&'static str], values: &[&str]) -> Self {
        let names = &names[..names.len().min(values.len())];
        let mut text = Vec::with_capacity(names.iter().chain(values).map(|part| part.len() + 2).sum());
        write_pairs(&mut text, names, values);
        Self { names, text, is_other: is_other(values) }
    }
}

impl LabelSet<'_> {
    /// Whether they are as many as the names of a family; that they are those is a matter of the collector's tests.
    pub(super) fn fits(&self, names: &[&'static str]) -> bool {
        match self {
            Self::Values(values) => values.len() == names.len(),
            Self::Rendered(first, last) => {
                debug_assert!(
                    first.names.iter().chain(last.names).eq(names),
                    "labels were rendered for another family"
                );
                first.names.len() + last.names.len() == names.len()
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Values(values) => values.is_empty(),
            Self::Rendered(first, last) => first.names.is_empty() && last.names.is_empty(),
        }
    }

    /// Whether every value is `other`.
    pub(super) fn is_other(&self) -> bool {
        match self {
            Self::Values(values) => is_other(values),
            Self::Rendered(first, last) => first.is_other && last.is_other,
        }
    }

    /// Writes `a="x",b="y"`.
    pub(super) fn write(&self, out: &mut Vec<u8>, names: &[&'static str]) {
        match self {
            Self::Values(values) => write_pairs(out, names, values),
            Self::Rendered(first, last) => {
                out.extend_from_slice(&first.text);
                if !first.text.is_empty() && !last.text.is_empty() {
                    out.push(b',');
                }
                out.extend_from_slice(&last.text);
            }
        }
    }
}

fn is_other(values: &[&str]) -> bool {
    values.iter().all(|value| *value == OTHER)
}

fn write_pairs(out: &mut Vec<u8>, names: &[&str], values: &[&str]) {
    for (index, (name, value)) in names.iter().zip(values).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_label(out, name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["namespace", "pod", "reason"];

    fn written(labels: LabelSet<'_>) -> String {
        let mut out = Vec::new();
        assert!(labels.fits(NAMES));
        labels.write(&mut out, NAMES);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn labels_read_alike_however_they_are_rendered() {
        let values = ["x\\y\"z\n", "é", "refused"];
        let expected = "namespace=\"x\\\\y\\\"z\\n\",pod=\"é\",reason=\"refused\"";
        assert_eq!(written(LabelSet::Values(&values)), expected);
        for first in 0..=values.len() {
            let (names, values) = (NAMES.split_at(first), values.split_at(first));
            let (first, last) = (Labels::new(names.0, values.0), Labels::new(names.1, values.1));
            assert_eq!(written(LabelSet::Rendered(&first, &last)), expected);
        }
    }

    #[test]
    fn other_is_only_what_is_other_throughout() {
        let is_other = |pod, reason| {
            let (pod, reason) = (Labels::new(&["pod"], &[pod]), Labels::new(&["reason"], &[reason]));
            LabelSet::Rendered(&pod, &reason).is_other()
        };
        assert!(is_other("other", "other"));
        assert!(!is_other("other", "refused"));
        assert!(!is_other("web", "other"));
        assert!(LabelSet::Values(&["other", "other"]).is_other());
    }
}
