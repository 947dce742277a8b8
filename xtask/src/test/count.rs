//! Counting the results of `cargo test`.

use std::fmt;

/// Results of all test binaries so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
    /// Of those that passed, how many had failed before.
    pub(super) flaky: u64,
}

impl Count {
    /// Adds a line of output, if it is the result of a test binary.
    pub(super) fn add(&mut self, line: &str) {
        let Some((_, results)) =
            line.trim().strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for result in results.split(';') {
            let Some((number, word)) = result.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// So many that had failed were run again and have passed.
    pub(super) fn forgive(&mut self, flaky: u64) {
        self.failed -= flaky;
        self.flaky += flaky;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} ignored", self.ignored)?;
        }
        if self.flaky > 0 {
            write!(f, ", {} of them only when run again", self.flaky)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut count = Count::default();
        count.add(
            "test result: ok. 37 passed; 0 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.07s",
        );
        count.add(
            "test result: FAILED. 4 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        assert_eq!(count, Count { passed: 41, failed: 3, ignored: 2, flaky: 0 });
        assert_eq!(count.to_string(), "41 passed, 3 failed, 2 ignored");
        count.forgive(3);
        assert_eq!(count.to_string(), "41 passed, 0 failed, 2 ignored, 3 of them only when run again");
    }

    #[test]
    fn other_lines_count_nothing() {
        let mut count = Count::default();
        for line in ["test config::tests::x ... ok", "test result", "running 3 tests", "", "test result: ok"]
        {
            count.add(line);
        }
        assert_eq!(count, Count::default());
        assert_eq!(count.to_string(), "0 passed, 0 failed");
    }
}
