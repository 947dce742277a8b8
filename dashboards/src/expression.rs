//! Expressions for Prometheus that are put together from the families of the catalogue.
//!
//! An expression knows which labels its result has. What asks for another one is kept as a fault rather than refused,
//! so that expressions are written as plain data; a test finds the faults of all of them.

mod catalogue;
mod selector;

use std::collections::BTreeSet;
use std::fmt;

use leadline::metric::{Descriptor, Kind};

pub use catalogue::family;
pub use selector::{Matcher, Window, is, is_not, like};

use catalogue::is_shared;

/// Labels that the scraper adds. `cluster` and `node` come from its configuration and may be absent, which `by` and
/// `on` take for empty.
pub const TARGET: [&str; 4] = ["cluster", "instance", "job", "node"];

/// The labels that tell agents apart.
const OBSERVER: [&str; 2] = ["instance", "node"];

/// An expression whose result is a vector.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    labels: BTreeSet<&'static str>,
    faults: Vec<String>,
    /// Whether it is a counter that has not been turned into an increase yet.
    is_total: bool,
    /// Whether every observer says it, so that adding it up over observers counts it several times.
    is_shared: bool,
    /// Whether its last operator binds weakly.
    is_open: bool,
}

impl Expression {
    /// The samples of a gauge, or of a counter that is then asked for its [`increase`](Self::increase).
    #[must_use]
    pub fn of(family: &'static Descriptor, matchers: &[Matcher]) -> Self {
        let labels = family.labels.iter().copied().chain(TARGET).collect();
        let mut expression = Self::selector(family.name, labels, matchers);
        expression.is_total = family.kind == Kind::Counter;
        expression.is_shared = is_shared(family);
        if family.kind == Kind::Histogram {
            expression.faults.push(format!("{} is a histogram", family.name));
        }
        expression
    }

    /// The buckets of a histogram, which are totals by the label `le`.
    #[must_use]
    pub fn buckets(family: &'static Descriptor, matchers: &[Matcher]) -> Self {
        let labels = family.labels.iter().copied().chain(TARGET).chain(["le"]).collect();
        let mut expression = Self::selector(&format!("{}_bucket", family.name), labels, matchers);
        expression.is_total = true;
        expression.is_shared = is_shared(family);
        if family.kind != Kind::Histogram {
            expression.faults.push(format!("{} is no histogram", family.name));
        }
        expression
    }

    /// Whether the scraper reached its targets.
    #[must_use]
    pub fn up(matchers: &[Matcher]) -> Self {
        Self::selector("up", TARGET.into(), matchers)
    }

    fn selector(name: &str, labels: BTreeSet<&'static str>, matchers: &[Matcher]) -> Self {
        let mut expression = Self {
            text: name.to_owned(),
            labels,
            faults: Vec::new(),
            is_total: false,
            is_shared: false,
            is_open: false,
        };
        expression.require(matchers.iter().map(Matcher::label));
        if !matchers.is_empty() {
            let all = matchers.iter().map(ToString::to_string).collect::<Vec<_>>();
            expression.text = format!("{name}{{{}}}", all.join(","));
        }
        expression
    }

    /// The greatest value of all that agree in these labels.
    #[must_use]
    pub fn max_by(self, labels: &[&'static str]) -> Self {
        self.aggregate("max", labels)
    }

    /// The least value of all that agree in these labels.
    #[must_use]
    pub fn min_by(self, labels: &[&'static str]) -> Self {
        self.aggregate("min", labels)
    }

    /// One of all that agree in these labels, the greatest, with all its labels.
    #[must_use]
    pub fn one_by(mut self, labels: &[&'static str]) -> Self {
        self.require(labels.iter().copied());
        self.refuse_total();
        self.text = format!("topk by ({}) (1, {})", labels.join(", "), self.text);
        self.is_open = false;
        self
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
        if self.is_shared {
            let keeps_observers = labels.iter().any(|label| OBSERVER.contains(label));
            if how == "sum" && !keeps_observers {
                self.faults.push(format!("every observer says {}: never add it up", self.text));
            }
            self.is_shared = keeps_observers;
        }
        self.text = format!("{how} by ({}) ({})", labels.join(", "), self.text);
        self.labels = labels.iter().copied().collect();
        self.is_open = false;
        self
    }

    /// By how much a counter grew.
    #[must_use]
    pub fn increase(self, window: Window) -> Self {
        self.growth("increase", window)
    }

    /// By how much a counter grew in a second.
    #[must_use]
    pub fn rate(self, window: Window) -> Self {
        self.growth("rate", window)
    }

    fn growth(mut self, how: &str, window: Window) -> Self {
        if !self.is_total {
            self.faults.push(format!("{} is no counter", self.text));
        }
        self.is_total = false;
        self.text = format!("{how}({}[{window}])", self.text);
        self
    }

    /// The least value of the last seconds.
    #[must_use]
    pub fn min_over(mut self, seconds: u32) -> Self {
        self.text = format!("min_over_time({}[{seconds}s])", self.text);
        self
    }

    /// How often the value became another one.
    #[must_use]
    pub fn changes(mut self, window: Window) -> Self {
        self.text = format!("changes({}[{window}])", self.text);
        self
    }

    /// The value below which this share of what was observed is, of the growth of buckets.
    #[must_use]
    pub fn quantile(mut self, share: f64) -> Self {
        self.require(["le"].into_iter());
        self.refuse_total();
        self.text = format!("histogram_quantile({share}, {})", self.text);
        self.labels.remove("le");
        self
    }

    /// The greatest ones.
    #[must_use]
    pub fn top(mut self, count: u8) -> Self {
        self.refuse_total();
        self.text = format!("topk({count}, {})", self.text);
        self.is_open = false;
        self
    }

    /// Each of them, or this where it is less.
    #[must_use]
    pub fn at_least(mut self, value: f64) -> Self {
        self.refuse_total();
        self.text = format!("clamp_min({}, {value})", self.text);
        self.is_open = false;
        self
    }

    /// What has this value.
    #[must_use]
    pub fn equals(self, value: impl Into<f64>) -> Self {
        self.operate("==", &value.into().to_string())
    }

    /// What is greater.
    #[must_use]
    pub fn above(self, value: impl Into<f64>) -> Self {
        self.operate(">", &value.into().to_string())
    }

    /// What is less.
    #[must_use]
    pub fn below(self, value: impl Into<f64>) -> Self {
        self.operate("<", &value.into().to_string())
    }

    /// 1 for what has this value, 0 for the others.
    #[must_use]
    pub fn is(self, value: impl Into<f64>) -> Self {
        self.operate("== bool", &value.into().to_string())
    }

    /// So many times that.
    #[must_use]
    pub fn times(self, factor: impl Into<f64>) -> Self {
        self.operate("*", &factor.into().to_string())
    }

    /// The seconds from now to a moment.
    #[must_use]
    pub fn from_now(self) -> Self {
        self.operate("-", "time()")
    }

    fn operate(mut self, operator: &str, value: &str) -> Self {
        self.refuse_total();
        let left = if self.is_open { format!("({})", self.text) } else { self.text };
        self.text = format!("{left} {operator} {value}");
        self.is_open = true;
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
        self.is_shared |= other.is_shared;
        self.is_open = true;
        self
    }

    /// The same, or 1 without any label if there is nothing of the other one at all.
    #[must_use]
    pub fn or_absent(mut self, other: &Self) -> Self {
        self.text = format!("({}) or absent({})", self.text, other.text);
        self.faults.extend_from_slice(&other.faults);
        self.is_open = true;
        self
    }

    /// Each of them over the one of the other that agrees in these labels.
    #[must_use]
    pub fn over(self, labels: &[&'static str], other: Self) -> Self {
        let (left, right) = (labels.join(", "), "group_left ()");
        self.combine(&format!("/ on ({left}) {right}"), labels, other)
    }

    /// The same, with further labels of the other one, which is 1 and agrees in the first ones.
    #[must_use]
    pub fn named(self, labels: &[&'static str], further: &[&'static str], mut info: Self) -> Self {
        info.require(further.iter().copied());
        let how = format!("* on ({}) group_left ({})", labels.join(", "), further.join(", "));
        let mut named = self.combine(&how, labels, info);
        named.labels.extend(further);
        named
    }

    /// The same, with a label's value under another name too.
    #[must_use]
    pub fn renamed(mut self, from: &'static str, to: &'static str) -> Self {
        self.require([from].into_iter());
        self.refuse_total();
        self.text = format!("label_replace({}, \"{to}\", \"$1\", \"{from}\", \"(.+)\")", self.text);
        self.labels.insert(to);
        self.is_open = false;
        self
    }

    /// The worst of several findings: the first counts most, the last one is 1. 0 where there is what must be `seen`
    /// and no finding. Findings whose labels are the same hide each other, the worse one the others.
    #[must_use]
    pub fn worst(labels: &[&'static str], findings: Vec<Self>, seen: Self) -> Self {
        Self::ranked(findings, seen).max_by(labels)
    }

    /// How many findings there are; 0 where there is what must be `seen` and no finding.
    #[must_use]
    pub fn number(labels: &[&'static str], finding: Self, seen: Self) -> Self {
        Self::ranked(vec![finding], seen).sum_by(labels)
    }

    fn ranked(findings: Vec<Self>, seen: Self) -> Self {
        let ranked = findings.into_iter().rev().zip(1..).map(|(finding, rank)| {
            let text = format!("({}) * 0 + {rank}", finding.text);
            Self { text, ..finding }
        });
        ranked.fold(seen.times(0), |all, finding| finding.or(all))
    }

    fn join(self, how: &str, labels: &[&'static str], other: Self) -> Self {
        self.combine(&format!("{how} on ({})", labels.join(", ")), labels, other)
    }

    fn combine(mut self, how: &str, labels: &[&'static str], mut other: Self) -> Self {
        self.require(labels.iter().copied());
        other.require(labels.iter().copied());
        self.text = format!("({}) {how} ({})", self.text, other.text);
        self.faults.extend(other.faults);
        self.is_open = true;
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
        let moved = Expression::of(FAILOVERS, &[is_not("cause", "unknown")]).increase(Window::Seconds(300));
        let both = conflict.equals(1).and_on(&["vip"], moved.max_by(&["vip"]).above(0)).max_by(&["vip"]);
        assert_eq!(
            both.to_string(),
            "max by (vip) ((leadline_vip_conflict{vip=\"192.0.2.1\",node=~\"a|b\"} == 1) and on (vip) \
             (max by (vip) (increase(leadline_vip_failovers_total{cause!=\"unknown\"}[300s])) > 0))"
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
        assert_eq!(total().increase(Window::Seconds(60)).above(1).faults().len(), 0);
        assert_eq!(Expression::of(CONFLICT, &[]).increase(Window::Rate).faults().len(), 1);
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

    #[test]
    fn what_every_observer_says_is_not_added_up() {
        let moved =
            |labels: &[&'static str]| Expression::of(FAILOVERS, &[]).increase(Window::Range).sum_by(labels);
        assert_eq!(moved(&["vip"]).faults().len(), 1);
        assert_eq!(moved(&["instance", "vip"]).faults().len(), 0);
        assert_eq!(moved(&["instance", "vip"]).sum_by(&["vip"]).faults().len(), 1);
        assert_eq!(moved(&["instance", "vip"]).max_by(&["vip"]).sum_by(&[]).faults().len(), 0);
    }

    #[test]
    fn a_quantile_is_one_of_buckets() {
        let buckets = || Expression::buckets(PHASES, &[]).rate(Window::Rate);
        let median = buckets().sum_by(&["phase", "le", "node"]).quantile(0.5);
        assert_eq!(
            median.to_string(),
            "histogram_quantile(0.5, sum by (phase, le, node) (rate(leadline_vip_failover_seconds_bucket[$__rate_interval])))"
        );
        assert_eq!((median.faults(), median.labels()), (&[][..], &BTreeSet::from(["phase", "node"])));
        assert_eq!(buckets().max_by(&["phase"]).quantile(0.5).faults().len(), 1);
        assert_eq!(Expression::buckets(CONFLICT, &[]).faults(), ["leadline_vip_conflict is no histogram"]);
    }

    #[test]
    fn operators_bind_what_stands_before_them() {
        let both = Expression::up(&[]).equals(0).or(Expression::up(&[]));
        assert_eq!(both.clone().times(2).to_string(), "((up == 0) or (up)) * 2");
        assert_eq!(both.max_by(&["node"]).is(1).to_string(), "max by (node) ((up == 0) or (up)) == bool 1");
        let share = Expression::up(&[])
            .max_by(&["node", "job"])
            .over(&["node"], Expression::up(&[]).count_by(&["node"]));
        assert_eq!(
            share.to_string(),
            "(max by (node, job) (up)) / on (node) group_left () (count by (node) (up))"
        );
        assert_eq!(share.labels(), &BTreeSet::from(["node", "job"]));
    }

    #[test]
    fn a_name_comes_with_its_label() {
        let info = Expression::of(CONFLICT, &[]).max_by(&["node", "vip"]).renamed("vip", "name");
        let named =
            Expression::up(&[]).max_by(&["node"]).named(&["node"], &["name"], info.max_by(&["node", "name"]));
        assert_eq!(
            named.to_string(),
            "(max by (node) (up)) * on (node) group_left (name) (max by (node, name) \
             (label_replace(max by (node, vip) (leadline_vip_conflict), \"name\", \"$1\", \"vip\", \"(.+)\")))"
        );
        assert_eq!((named.faults(), named.labels()), (&[][..], &BTreeSet::from(["node", "name"])));
    }

    #[test]
    fn the_first_finding_is_the_worst() {
        let finding = |value: i32| Expression::up(&[]).equals(value);
        let worst = Expression::worst(&["node"], vec![finding(7), finding(8)], Expression::up(&[]));
        assert_eq!(
            worst.to_string(),
            "max by (node) (((up == 7) * 0 + 2) or (((up == 8) * 0 + 1) or (up * 0)))"
        );
        let number = Expression::number(&["node"], finding(7), Expression::up(&[]));
        assert_eq!(number.to_string(), "sum by (node) (((up == 7) * 0 + 1) or (up * 0))");
    }
}
