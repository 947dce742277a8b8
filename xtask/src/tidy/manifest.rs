//! Rules about manifests: every crate inherits the lint table, and the arrows between our crates point one way.

use super::violation::Violation;

/// Our crates, as dependencies name them.
const OURS: [&str; 5] = ["probe-common", "probe-ebpf", "leadline", "leadline-tests", "dashboards"];

/// What a crate may depend on, of ours.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("probe-common", &[]),
    ("probe-ebpf", &["probe-common"]),
    ("probe-user", &["probe-common"]),
    ("dashboards", &["leadline"]),
    ("tests", &["probe-common", "leadline"]),
    // `cargo xtask setup` must start where the agent cannot be built yet.
    ("xtask", &[]),
];

/// Checks one manifest.
pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let sections = sections(text);
    let is_crate = sections.iter().any(|section| section.name == "package");
    let lints = sections.iter().find(|section| section.name == "lints");
    if is_crate && !lints.is_some_and(|section| section.lines.iter().any(|(_, line)| inherits(line))) {
        let fix = "add [lints] with workspace = true";
        found.push(Violation::new(path, lints.map_or(1, |section| section.line), "lint-table", fix));
    }
    let folder = path.split('/').next().unwrap_or_default();
    let Some((_, allowed)) = ALLOWED.iter().find(|(crate_, _)| *crate_ == folder) else { return found };
    for section in sections.iter().filter(|section| section.name == "dependencies") {
        for (line, text) in &section.lines {
            let name = text.split(['.', ' ', '=']).next().unwrap_or_default();
            if OURS.contains(&name) && !allowed.contains(&name) {
                let fix = format!("{folder} must not depend on {name}: arrows between crates point one way");
                found.push(Violation::new(path, *line, "arrow", fix));
            }
        }
    }
    found
}

fn inherits(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, value)| key.trim() == "workspace" && value.trim() == "true")
}

/// A `[name]` and the lines below it.
struct Section<'a> {
    line: usize,
    name: &'a str,
    lines: Vec<(usize, &'a str)>,
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match (name, sections.last_mut()) {
            (Some(name), _) => sections.push(Section { line: number + 1, name, lines: Vec::new() }),
            (None, Some(section)) => section.lines.push((number + 1, line)),
            (None, None) => {}
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<(&'static str, usize)> {
        check(path, text).iter().map(|violation| (violation.rule, violation.line)).collect()
    }

    #[test]
    fn every_crate_inherits_the_lints() {
        let package = "[package]\nname = \"x\"\n";
        assert_eq!(broken("x/Cargo.toml", package), [("lint-table", 1)]);
        assert_eq!(
            broken("x/Cargo.toml", &format!("{package}[lints]\n# workspace = true\n")),
            [("lint-table", 3)]
        );
        assert_eq!(broken("x/Cargo.toml", &format!("{package}[lints]\nworkspace = true\n")), []);
        assert_eq!(broken("Cargo.toml", "[workspace]\nmembers = []\n"), []);
    }

    #[test]
    fn arrows_between_crates_point_one_way() {
        let manifest = |dependency: &str| {
            format!("[package]\nname = \"x\"\n[dependencies]\n{dependency}\n[lints]\nworkspace = true\n")
        };
        assert_eq!(broken("probe-common/Cargo.toml", &manifest("leadline.workspace = true")), [("arrow", 4)]);
        assert_eq!(
            broken("probe-user/Cargo.toml", &manifest("probe-ebpf = { path = \"..\" }")),
            [("arrow", 4)]
        );
        assert_eq!(broken("xtask/Cargo.toml", &manifest("leadline-tests.workspace = true")), [("arrow", 4)]);
        assert_eq!(broken("probe-user/Cargo.toml", &manifest("probe-common.workspace = true")), []);
        assert_eq!(broken("tests/Cargo.toml", &manifest("leadline.workspace = true")), []);
    }
}
