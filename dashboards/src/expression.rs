//! Expressions for Prometheus that are put together from the families of the catalogue.
//!
//! An expression knows which labels its result has. What asks for another one is kept as a fault rather than refused,
//! so that expressions are written as plain data; a test finds the faults of all of them.

use std::collections::BTreeSet;
use std::fmt;

use leadline::collector::CATALOGUE;
use leadline::metric::{Descriptor, Kind};

/// Labels that the scraper adds. `cluster` and `node` come from its configuration and may be absent, which `by` and
/// `on` take for empty.
pub const TARGET: [&str; 4] = ["cluster", "instance", "job", "node"];

/// The family of that name. For constants: a name that the catalogue does not have is an error of the compiler.
///
/// # Panics
/// When the catalogue does not have it.
#[must_use]
#[expect(clippy::panic, reason = "in a constant this ends the compilation, and nothing else calls it")]
pub const fn family(name: &str) -> &'static Descriptor {
    let mut collector = 0;
    while collector < CATALOGUE.len() {
        let descriptors = CATALOGUE[collector].1;
        let mut at = 0;
        while at < descriptors.len() {
            if is_same(descriptors[at].name, name) {
                return descriptors[at];
            }
            at += 1;
        }
        collector += 1;
    }
    panic!("no metric of the agent has this name")
}

/// Equality of strings, for constants.
const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A condition on a label.
#[derive(Clone, Copy, Debug)]
pub struct Matcher {
    label: &'static str,
    operator: &'static str,
    value: &'static str,
}

/// The label has this value.
#[must_use]
pub const fn is(label: &'static str, value: &'static str) -> Matcher {
    Matcher { label, operator: "=", value }
}

/// The label has another value.
#[must_use]
pub const fn is_not(label: &'static str, value: &'static str) -> Matcher {
    Matcher { label, operator: "!=", value }
}

/// The whole value of the label matches the regular expression.
#[must_use]
pub const fn like(label: &'static str, pattern: &'static str) -> Matcher {
    Matcher { label, operator: "=~", value: pattern }
}

/// An expression whose result is a vector.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    labels: BTreeSet<&'static str>,
    faults: Vec<String>,
    /// Whether it is a counter that has not been turned into an increase yet.
    is_total: bool,
}

impl Expression {
    /// The samples of a gauge, or of a counter that is then asked for its [`increase`](Self::increase).
    #[must_use]
    pub fn of(family: &'static Descriptor, matchers: &[Matcher]) -> Self {
        let labels = family.labels.iter().copied().chain(TARGET).collect();
        let mut expression = Self::selector(family.name, labels, matchers);
        expression.is_total = family.kind == Kind::Counter;
        if family.kind == Kind::Histogram {
            expression.faults.push(format!("{} is a histogram", family.name));
        }
        expression
    }

    /// Whether the scraper reached its targets.
    #[must_use]
    pub fn up(matchers: &[Matcher]) -> Self {
        Self::selector("up", TARGET.into(), matchers)
    }

    fn selector(name: &str, labels: BTreeSet<&'static str>, matchers: &[Matcher]) -> Self {
        let mut expression = Self { text: name.to_owned(), labels, faults: Vec::new(), is_total: false };
        expression.require(matchers.iter().map(|matcher| matcher.label));
        if !matchers.is_empty() {
            let all = matchers.iter().map(|Matcher { label, operator, value }| {
                // Quoted as in Rust: the values are plain words and regular expressions.
                format!("{label}{operator}{value:?}")
            });
            expression.text = format!("{name}{{{}}}", all.collect::<Vec<_>>().join(","));
        }
        expression
    }

    /// The greatest value of all that agree in these labels.
    #[must_use]
    pub fn max_by(self, labels: &[&'static str]) -> Self {
        self.aggregate("max", labels)
    }

    /// The sum of all that agree in these labels.
    #[must_use]
    pub fn sum_by(self, labels: &[&'static str]) -> Self {
        self.aggregate("sum", labels)
    }

    /// How many agree in these labels.
    #[must_use]
    pub fn count_by(self, labels: &[&'static str]) -> Self {
        self.aggregate("count", labels)
    }

    fn aggregate(mut self, how: &str, labels: &[&'static str]) -> Self {
        self.require(labels.iter().copied());
        self.refuse_total();
        self.text = format!("{how} by ({}) ({})", labels.join(", "), self.text);
        self.labels = labels.iter().copied().collect();
        self
    }

    /// By how much a counter grew within the last seconds.
    #[must_use]
    pub fn increase(mut self, seconds: u32) -> Self {
        if !self.is_total {
            self.faults.push(format!("{} is no counter", self.text));
        }
        self.is_total = false;
        self.text = format!("increase({}[{seconds}s])", self.text);
        self
    }

    /// The least value of the last seconds.
    #[must_use]
    pub fn min_over(mut self, seconds: u32) -> Self {
        self.text = format!("min_over_time({}[{seconds}s])", self.text);
        self
    }

    /// What has this value.
    #[must_use]
    pub fn equals(self, value: i32) -> Self {
        self.compare("==", value)
    }

    /// What is greater.
    #[must_use]
    pub fn above(self, value: i32) -> Self {
        self.compare(">", value)
    }

    fn compare(mut self, operator: &str, value: i32) -> Self {
        self.refuse_total();
        self.text = format!("{} {operator} {value}", self.text);
        self
    }

    /// Those for which the other one has a sample that agrees in these labels.
    #[must_use]
    pub fn and_on(self, labels: &[&'static str], other: Self) -> Self {
        self.join("and", labels, other)
    }

    /// These, and those of the other one that are not among them.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.text = format!("({}) or ({})", self.text, other.text);
        self.labels.retain(|label| other.labels.contains(label));
        self.faults.extend(other.faults);
        self
    }

    /// The same, or 1 without any label if there is nothing of the other one at all.
    #[must_use]
    pub fn or_absent(mut self, other: &Self) -> Self {
        self.text = format!("({}) or absent({})", self.text, other.text);
        self.faults.extend_from_slice(&other.faults);
        self
    }

    fn join(mut self, how: &str, labels: &[&'static str], mut other: Self) -> Self {
        self.require(labels.iter().copied());
        other.require(labels.iter().copied());
        self.text = format!("({}) {how} on ({}) ({})", self.text, labels.join(", "), other.text);
        self.faults.extend(other.faults);
        self
    }

    fn require(&mut self, labels: impl Iterator<Item = &'static str>) {
        for label in labels.filter(|label| !self.labels.contains(label)).collect::<Vec<_>>() {
            self.faults.push(format!("{} has no label {label}", self.text));
        }
    }

    /// The value of a counter depends on when the agent started.
    fn refuse_total(&mut self) {
        if self.is_total {
            self.faults.push(format!("{} is a counter: take its increase", self.text));
        }
    }

    /// The labels that the result has.
    #[must_use]
    pub fn labels(&self) -> &BTreeSet<&'static str> {
        &self.labels
    }

    /// What is wrong with it, in words; nothing of what is shipped has any.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFLICT: &Descriptor = family("leadline_vip_conflict");
    const FAILOVERS: &Descriptor = family("leadline_vip_failovers_total");
    const PHASES: &Descriptor = family("leadline_vip_failover_seconds");

    #[test]
    fn an_expression_reads_as_its_parts_do() {
        let conflict = Expression::of(CONFLICT, &[is("vip", "192.0.2.1"), like("node", "a|b")]);
        assert_eq!(conflict.to_string(), r#"leadline_vip_conflict{vip="192.0.2.1",node=~"a|b"}"#);
        let moved = Expression::of(FAILOVERS, &[is_not("cause", "unknown")]).increase(300);
        let both = conflict.equals(1).and_on(&["vip"], moved.sum_by(&["vip"]).above(0)).max_by(&["vip"]);
        assert_eq!(
            both.to_string(),
            "max by (vip) ((leadline_vip_conflict{vip=\"192.0.2.1\",node=~\"a|b\"} == 1) and on (vip) \
             (sum by (vip) (increase(leadline_vip_failovers_total{cause!=\"unknown\"}[300s])) > 0))"
        );
        assert_eq!((both.faults(), both.labels()), (&[][..], &BTreeSet::from(["vip"])));
    }

    #[test]
    fn a_label_that_a_family_does_not_have_is_a_fault() {
        let faults = |expression: Expression| expression.faults().len();
        assert_eq!(faults(Expression::of(CONFLICT, &[is("cause", "x")])), 1);
        assert_eq!(faults(Expression::of(CONFLICT, &[]).max_by(&["vip", "port"])), 1);
        let gone = Expression::of(CONFLICT, &[]).max_by(&["vip"]);
        assert_eq!(faults(gone.clone().and_on(&["node"], Expression::up(&[]))), 1);
        assert_eq!(faults(Expression::up(&[]).and_on(&["node"], gone.clone())), 1);
        assert_eq!(faults(gone.or(Expression::up(&[is("vip", "x")]))), 1);
    }

    #[test]
    fn a_counter_is_only_asked_for_its_increase() {
        let total = || Expression::of(FAILOVERS, &[]);
        assert_eq!(
            total().above(1).faults(),
            ["leadline_vip_failovers_total is a counter: take its increase"]
        );
        assert_eq!(total().max_by(&["vip"]).faults().len(), 1);
        assert_eq!(total().increase(60).above(1).faults().len(), 0);
        assert_eq!(Expression::of(CONFLICT, &[]).increase(60).faults().len(), 1);
        assert_eq!(Expression::of(PHASES, &[]).faults(), ["leadline_vip_failover_seconds is a histogram"]);
    }

    #[test]
    fn labels_of_two_vectors_are_those_of_both() {
        let or = Expression::of(CONFLICT, &[]).max_by(&["vip"]).or(Expression::up(&[]));
        assert!(or.labels().is_empty());
        let or = Expression::up(&[]).max_by(&["node"]).equals(0).or_absent(&Expression::up(&[]));
        assert_eq!(or.to_string(), "(max by (node) (up) == 0) or absent(up)");
        assert_eq!(or.labels(), &BTreeSet::from(["node"]));
    }
}
