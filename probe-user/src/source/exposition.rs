//! Lines of Prometheus' text format, as other exporters write them.

use std::borrow::Cow;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The name of the metric.
    pub name: &'a str,
    labels: Vec<(&'a str, Cow<'a, str>)>,
    /// The text of the value.
    value: &'a str,
}

impl<'a> Sample<'a> {
    /// Reads a line that is no comment; nothing where it is none of the format.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' ', '\t'])?;
        let name = &line[..end];
        let mut rest = &line[end..];
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, quoted) = rest.split_once("=\"")?;
                let end = closing_quote(quoted)?;
                labels.push((label.trim(), unescape(&quoted[..end])));
                rest = quoted[end + 1..].trim_start_matches([',', ' ']);
            }
            rest = &rest[1..];
        }
        let value = rest.split_whitespace().next()?;
        value.parse::<f64>().ok()?;
        (!name.is_empty()).then_some(Self { name, labels, value })
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_ref())
    }

    /// The value; none for NaN, which stands for a number that the exporter does not have.
    #[must_use]
    pub fn float(&self) -> Option<f64> {
        self.value.parse::<f64>().ok().filter(|value| !value.is_nan())
    }

    /// The value as a whole number, where it is one that is not negative.
    #[must_use]
    pub fn integer(&self) -> Option<u64> {
        if let Ok(whole) = self.value.parse() {
            return Some(whole);
        }
        let number = self.float()?;
        (number >= 0.0 && number.is_finite()).then(|| format!("{number:.0}").parse().ok()).flatten()
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let closes = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        closes.then_some(at)
    })
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(next)) => {
                plain.push(if next == 'n' { '\n' } else { next });
                chars.next();
            }
            _ => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_name_labels_and_a_value() {
        let sample = Sample::parse("a_b{c=\"d\\\"}\\\\\",e=\"f\\ng\"} 1e3 1700000000").unwrap();
        assert_eq!(
            (sample.name, sample.label("c"), sample.label("e")),
            ("a_b", Some("d\"}\\"), Some("f\ng"))
        );
        assert_eq!((sample.float(), sample.integer(), sample.label("x")), (Some(1e3), Some(1000), None));
        assert_eq!(Sample::parse("up 7").unwrap().integer(), Some(7));
        assert_eq!(Sample::parse("up{} 7").unwrap().integer(), Some(7));
    }

    #[test]
    fn numbers_that_there_are_not_are_absent() {
        let of = |text: &str| Sample::parse(&format!("a {text}")).unwrap().integer();
        assert_eq!(of("1.844674407370955e+19"), Some(18_446_744_073_709_549_568));
        for text in ["NaN", "+Inf", "-Inf", "-1"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        for line in ["", "a", "a ", "a x", "a{b} 1", "a{b=\"c} 1", "a{b=\"c\"", "{a=\"b\"} 1", "a{b=\"c\"} "]
        {
            assert_eq!(Sample::parse(line), None, "{line}");
        }
    }
}
