//! The list of checks in an answer to `?verbose`: a line `[+]NAME ok` or `[-]NAME failed: …` for each.

use std::collections::BTreeMap;

/// Checks of one component that are told apart; the API server has about fifty.
pub const MOST_CHECKS: usize = 64;
/// Bytes of a name; the longest of the API server's has about sixty.
const LONGEST_NAME: usize = 100;

/// Whether each check passes, by name.
pub type Checks = BTreeMap<String, bool>;

/// The checks that an answer lists; none where it lists none. Of too many the failing ones stay.
pub(super) fn parse(body: &str) -> Option<Checks> {
    let (passing, failing): (Vec<_>, Vec<_>) =
        body.lines().filter_map(check).partition(|(_, passes)| *passes);
    let mut checks = Checks::new();
    for (name, passes) in failing.into_iter().chain(passing) {
        if checks.len() < MOST_CHECKS {
            checks.entry(name.to_owned()).or_insert(passes);
        }
    }
    Some(checks).filter(|checks| !checks.is_empty())
}

fn check(line: &str) -> Option<(&str, bool)> {
    let (rest, passes) = match line.strip_prefix("[+]") {
        Some(rest) => (rest, true),
        None => (line.strip_prefix("[-]")?, false),
    };
    let name = rest.split(' ').next()?;
    let is_sane = (1..=LONGEST_NAME).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':'));
    is_sane.then_some((name, passes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_check() {
        let body = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]poststarthook/rbac/bootstrap-roles ok\n\
            [+]log excluded: ok\nreadyz check failed\n";
        let expected =
            [("etcd", false), ("log", true), ("ping", true), ("poststarthook/rbac/bootstrap-roles", true)];
        assert_eq!(parse(body), Some(expected.map(|(name, passes)| (name.to_owned(), passes)).into()));
    }

    #[test]
    fn what_lists_nothing_has_no_checks() {
        for body in
            ["ok", "", "{\"kind\":\"Status\"}", "[+]", "[-] failed", "[+]na\u{7f}me ok", "[+]\"x\" ok"]
        {
            assert_eq!(parse(body), None, "{body}");
        }
        assert_eq!(parse(&format!("[+]{} ok", "x".repeat(LONGEST_NAME + 1))), None);
    }

    #[test]
    fn of_too_many_the_failing_ones_stay() {
        let passing: Vec<String> = (0..100).map(|number| format!("[+]a{number} ok")).collect();
        let body = passing.join("\n") + "\n[-]last failed: reason withheld\n";
        let checks = parse(&body).unwrap();
        assert_eq!(checks.len(), MOST_CHECKS);
        assert_eq!(checks.get("last"), Some(&false));
    }

    #[test]
    fn a_check_that_is_listed_twice_fails_if_one_of_them_does() {
        assert_eq!(parse("[+]a ok\n[-]a failed: x\n").unwrap().get("a"), Some(&false));
    }
}
