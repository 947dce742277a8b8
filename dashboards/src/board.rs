//! What a board is: rows of panels, each with what it shows, what is normal, and what to do when it is not.
//!
//! Boards are of one cluster at a time, of all where nothing tells clusters apart. What every node says of the cluster
//! is read from all nodes, since one that is cut off says something else; what a node says of itself follows the choice
//! of nodes. `grafana` makes the files that Grafana reads.

mod grafana;
mod panel;

use leadline::metric::Descriptor;

use crate::expression::{Expression, Matcher, family, like};

pub use grafana::{config_map, dashboard};
pub use panel::{Colour, Kind, Panel, Query, Text, Threshold, Unit, Word};

/// A board.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its name in addresses and of its files, for ever.
    pub uid: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// How to read it.
    pub description: &'static str,
    /// Choices beside those that every board has.
    pub variables: Vec<Variable>,
    /// What is drawn across all panels over time.
    pub annotations: Vec<Annotation>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// Panels that answer one question, side by side.
#[derive(Clone, Debug)]
pub struct Row {
    /// The question.
    pub title: &'static str,
    /// In units of 30 pixels or so.
    pub height: u8,
    /// Together [`WIDTH`] wide a line.
    pub panels: Vec<Panel>,
}

/// The columns of a board.
pub const WIDTH: u8 = 24;

/// The most panels that a tired person looks through.
pub const MOST_PANELS: usize = 20;

/// Above it there was an event: the increase of a counter is reckoned from samples, and seldom a whole number.
pub const HALF: f64 = 0.5;

/// A choice of values that a label has.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// As in expressions, behind the `$`.
    pub name: &'static str,
    /// As people read it.
    pub label: &'static str,
    /// What has the label.
    pub family: &'static Descriptor,
    /// Which further choices narrow this one, as a selector.
    pub within: &'static str,
    /// What stands for all.
    pub all: &'static str,
    /// Whether several can be chosen.
    pub is_multi: bool,
}

const BUILD: &Descriptor = family("leadline_build_info");

/// The choices that every board has, after that of the data source.
pub const VARIABLES: [Variable; 3] = [
    Variable { name: "cluster", label: "Cluster", family: BUILD, within: "", all: ".*", is_multi: false },
    Variable {
        name: "job",
        label: "Job",
        family: BUILD,
        within: r#"cluster=~"$cluster""#,
        all: ".+",
        is_multi: true,
    },
    Variable {
        name: "node",
        label: "Node",
        family: BUILD,
        within: r#"cluster=~"$cluster",job=~"$job""#,
        all: ".*",
        is_multi: true,
    },
];

/// Moments on the time axis.
#[derive(Clone, Debug)]
pub struct Annotation {
    /// What they are.
    pub name: &'static str,
    /// It has a result at those moments.
    pub expression: Expression,
    /// One line, with labels in double braces.
    pub title: &'static str,
    /// Of the line.
    pub colour: Colour,
}

const CLUSTER: Matcher = like("cluster", "$cluster");
const JOB: Matcher = like("job", "$job");
const NODE: Matcher = like("node", "$node");

fn scoped(scope: &[Matcher], matchers: &[Matcher]) -> Vec<Matcher> {
    scope.iter().chain(matchers).copied().collect()
}

/// What the nodes of the cluster say, all of them.
#[must_use]
pub fn all(family: &'static Descriptor, matchers: &[Matcher]) -> Expression {
    Expression::of(family, &scoped(&[CLUSTER, JOB], matchers))
}

/// What the chosen nodes say.
#[must_use]
pub fn each(family: &'static Descriptor, matchers: &[Matcher]) -> Expression {
    Expression::of(family, &scoped(&[CLUSTER, JOB, NODE], matchers))
}

/// The growth of the buckets of all nodes.
#[must_use]
pub fn all_buckets(family: &'static Descriptor, matchers: &[Matcher]) -> Expression {
    Expression::buckets(family, &scoped(&[CLUSTER, JOB], matchers))
}

/// The growth of the buckets of the chosen nodes.
#[must_use]
pub fn each_buckets(family: &'static Descriptor, matchers: &[Matcher]) -> Expression {
    Expression::buckets(family, &scoped(&[CLUSTER, JOB, NODE], matchers))
}

/// Whether the agents of the cluster can be scraped.
#[must_use]
pub fn up() -> Expression {
    Expression::up(&[CLUSTER, JOB])
}

#[cfg(test)]
mod tests;
