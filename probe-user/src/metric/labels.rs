//! The labels of a sample, as they stand on the page.

use super::text::write_label;

/// The value of every label of the series that takes what exceeds the cap.
pub const OTHER: &str = "other";

static NONE: Labels = Labels { names: &[], text: Vec::new(), is_other: true };

/// Labels rendered once for all the series that begin with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: &'static [&'static str],
    text: Vec<u8>,
    is_other: bool,
}

/// All labels of one sample: some that were rendered before, then the values of the rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct LabelSet<'a> {
    head: &'a Labels,
    rest: &'a [&'a str],
}

impl Labels {
    /// Labels of these names; a name without a value is left out.
    #[must_use]
    pub fn new(names: &'static [&'static str], values: &[&str]) -> Self {
        let names = &names[..names.len().min(values.len())];
        let mut text = Vec::new();
        write_pairs(&mut text, names, values);
        Self { names, text, is_other: is_other(values) }
    }

    /// These labels with the values of those that follow.
    pub(super) fn with<'a>(&'a self, rest: &'a [&'a str]) -> LabelSet<'a> {
        LabelSet { head: self, rest }
    }
}

impl<'a> LabelSet<'a> {
    /// Labels of which none was rendered before.
    pub(super) fn plain(values: &'a [&'a str]) -> Self {
        NONE.with(values)
    }

    pub(super) fn len(&self) -> usize {
        self.head.names.len() + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every value is `other`.
    pub(super) fn is_other(&self) -> bool {
        self.head.is_other && is_other(self.rest)
    }

    /// Writes `a="x",b="y"`.
    pub(super) fn write(&self, out: &mut Vec<u8>, names: &[&'static str]) {
        let (first, others) = names.split_at(self.head.names.len().min(names.len()));
        debug_assert_eq!(first, self.head.names, "labels rendered for another family");
        out.extend_from_slice(&self.head.text);
        if !self.head.text.is_empty() && !self.rest.is_empty() {
            out.push(b',');
        }
        write_pairs(out, others, self.rest);
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
        labels.write(&mut out, NAMES);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn labels_read_alike_however_many_were_rendered_before() {
        let values = ["x\\y\"z\n", "é", "refused"];
        let expected = "namespace=\"x\\\\y\\\"z\\n\",pod=\"é\",reason=\"refused\"";
        for before in 0..=values.len() {
            let (first, rest) = values.split_at(before);
            assert_eq!(written(Labels::new(NAMES, first).with(rest)), expected);
        }
    }

    #[test]
    fn other_is_only_what_is_other_throughout() {
        let head = |value| Labels::new(NAMES, &[value, "other"]);
        assert!(head("other").with(&["other"]).is_other());
        assert!(!head("other").with(&["refused"]).is_other());
        assert!(!head("shop").with(&["other"]).is_other());
    }
}
