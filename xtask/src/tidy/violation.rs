//! What a rule reports.

use std::fmt;

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// From the root of the repository.
    pub(super) path: String,
    /// From 1.
    pub(super) line: usize,
    /// Name of the rule.
    pub(super) rule: &'static str,
    /// What is wrong and what to do.
    pub(super) fix: String,
}

impl Violation {
    pub(super) fn new(path: &str, line: usize, rule: &'static str, fix: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, fix: fix.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_one_line_that_editors_can_open() {
        let violation = Violation::new("a/b.rs", 7, "unwrap", "return the error");
        assert_eq!(violation.to_string(), "a/b.rs:7: unwrap: return the error");
    }
}
