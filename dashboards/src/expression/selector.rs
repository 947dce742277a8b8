//! What an expression selects: conditions on labels, and the time it looks back.

use std::fmt;

/// A condition on a label.
#[derive(Clone, Copy, Debug)]
pub struct Matcher {
    label: &'static str,
    operator: &'static str,
    value: &'static str,
}

impl Matcher {
    /// The label that it is about.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.label
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Quoted as in Rust: the values are plain words and regular expressions.
        write!(f, "{}{}{:?}", self.label, self.operator, self.value)
    }
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

/// The time that an expression looks back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// So many seconds.
    Seconds(u32),
    /// At least four scrapes, whatever the resolution of a panel: Grafana puts it in.
    Rate,
    /// All that a board shows: Grafana puts it in.
    Range,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds}s"),
            Self::Rate => f.write_str("$__rate_interval"),
            Self::Range => f.write_str("$__range"),
        }
    }
}
