//! Which tests failed, as libtest lists them after each binary.

/// More failures than these are no accident, and nothing is run again.
const ACCIDENTS: usize = 3;

/// The failed tests of all binaries so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    names: Vec<String>,
    /// Of the binary that runs.
    listed: Vec<String>,
    /// How many tests the binaries have that began and have not told their result. Some tests start their own binary once
    /// more, of which the end may not be heard.
    unfinished: Vec<u64>,
    /// A binary listed others than it counted.
    is_unclear: bool,
}

impl Failures {
    /// Adds a line of output.
    pub(super) fn add(&mut self, line: &str) {
        let text = line.trim_end();
        if let Some(tests) = begun(text) {
            self.unfinished.push(tests);
        } else if text == "failures:" {
            // The first of the two lists is followed by what the tests have printed.
            self.listed.clear();
        } else if let Some(result) = text.strip_prefix("test result: ") {
            let tests = told(result);
            if let Some(place) = self.unfinished.iter().rposition(|begun| *begun == tests) {
                self.unfinished.truncate(place);
            }
            let listed = std::mem::take(&mut self.listed);
            if result.starts_with("FAILED") {
                self.is_unclear |= !result.contains(&format!(" {} failed;", listed.len()));
                self.names.extend(listed);
            }
        } else if let Some(name) = text.strip_prefix("    ").filter(|name| !name.contains(' ')) {
            self.listed.push(name.to_owned());
        }
    }

    /// Adds those of another run.
    pub(super) fn append(&mut self, more: Self) {
        self.names.extend(more.names);
        self.unfinished.extend(more.unfinished);
        self.is_unclear |= more.is_unclear;
    }

    /// The tests to run again: those that failed, if they are few and nothing else went wrong.
    pub(super) fn accidents(&self) -> Option<&[String]> {
        let are_few = (1..=ACCIDENTS).contains(&self.names.len());
        (are_few && self.unfinished.is_empty() && !self.is_unclear).then_some(&self.names)
    }
}

/// How many tests begin, if that is what the line says.
fn begun(text: &str) -> Option<u64> {
    let number = text.strip_prefix("running ")?;
    number.strip_suffix(" tests").or_else(|| number.strip_suffix(" test"))?.parse().ok()
}

/// How many tests have begun by the result of their binary: all but those that were filtered out.
fn told(result: &str) -> u64 {
    let counts = result.split_once(". ").map_or("", |(_, counts)| counts).split("; ");
    let begun = counts.filter(|count| !count.contains(" filtered out"));
    begun.filter_map(|count| count.split_once(' ')?.0.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "
running 2 tests
test a::b ... ok
test a::c ... FAILED

failures:

---- a::c stdout ----
    indented
Error: no silence

failures:
    a::c

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 632.02s
";
    const NONE: &str = "
running 1 test
test a::d ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s
";

    fn read(output: &str) -> Failures {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.add(line));
        failures
    }

    #[test]
    fn those_of_all_binaries_are_run_again() {
        let failures = read(&[NONE, ONE, NONE, &ONE.replace("a::c", "x")].concat());
        assert_eq!(failures.accidents(), Some(&["a::c".to_owned(), "x".to_owned()][..]));
    }

    #[test]
    fn those_of_runs_beside_each_other_are_all_of_them() {
        let mut failures = read(ONE);
        failures.append(read(&ONE.replace("a::c", "x")));
        assert_eq!(failures.accidents(), Some(&["a::c".to_owned(), "x".to_owned()][..]));
        failures.append(read("running 3 tests\ntest x ... ok\n"));
        assert_eq!(failures.accidents(), None);
    }

    #[test]
    fn without_a_failure_nothing_is_run_again() {
        assert_eq!(read(NONE).accidents(), None);
        assert_eq!(read("").accidents(), None);
    }

    #[test]
    fn many_failures_are_no_accident() {
        assert_eq!(read(&ONE.repeat(ACCIDENTS)).accidents().map(<[_]>::len), Some(ACCIDENTS));
        assert_eq!(read(&ONE.repeat(ACCIDENTS + 1)).accidents(), None);
    }

    #[test]
    fn a_binary_that_did_not_end_is_no_accident() {
        assert_eq!(read(&[ONE, "running 3 tests\ntest x ... ok\n"].concat()).accidents(), None);
    }

    #[test]
    fn a_child_of_a_test_that_was_killed_is_no_binary_that_did_not_end() {
        let child = ONE.replacen("test a::b", "running 1 test\ntest a::b", 1);
        assert_eq!(read(&child).accidents().map(<[_]>::len), Some(1));
        // A whole one within is none either.
        let whole = ONE.replacen("test a::b", &format!("{NONE}test a::b"), 1);
        assert_eq!(read(&whole).accidents().map(<[_]>::len), Some(1));
    }

    #[test]
    fn a_list_that_does_not_fit_its_count_is_no_accident() {
        assert_eq!(read(&ONE.replace("1 failed;", "2 failed;")).accidents(), None);
    }
}
