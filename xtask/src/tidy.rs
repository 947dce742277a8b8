//! `cargo xtask tidy`: the rules of the repository that no compiler checks.

mod arrows;
mod manifest;
mod rules;
mod source;
mod violation;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{process::repository, progress::say};
use source::Source;
use violation::Violation;

/// Directories that hold nothing of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// Files without an extension that are text.
const TEXT_NAMES: [&str; 3] = ["run", "Dockerfile", "Containerfile"];

/// Extensions of text that people write.
const TEXT_EXTENSIONS: [&str; 9] = ["rs", "toml", "md", "yaml", "yml", "json", "sh", "go", "tpl"];

/// Checks the repository and prints one line for each violation.
pub(crate) fn run() -> Result<()> {
    let root = repository();
    let mut paths = Vec::new();
    walk(&root, &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let relative = path.strip_prefix(&root).unwrap_or(path).to_string_lossy().into_owned();
        files.push((relative, text));
    }
    let rust = files.iter().filter(|(path, _)| extension(path) == Some("rs"));
    let test_files: Vec<String> =
        rust.flat_map(|(path, text)| Source::new(path, text, &[]).test_files()).collect();
    let violations: Vec<_> = files.iter().flat_map(|(path, text)| check(path, text, &test_files)).collect();
    for violation in &violations {
        say(violation);
    }
    match violations.len() {
        0 => {
            say(format_args!("{} files follow the rules", paths.len()));
            Ok(())
        }
        many => bail!("{many} violations of the repository's rules (cargo xtask tidy)"),
    }
}

/// Everything that is wrong with one file.
fn check(path: &str, text: &str, test_files: &[String]) -> Vec<Violation> {
    let mut found = rules::unfinished(path, text);
    if extension(path) == Some("rs") {
        let source = Source::new(path, text, test_files);
        found.extend(rules::all(&source));
        found.extend(arrows::modules(&source));
    } else if path.ends_with("Cargo.toml") {
        found.extend(manifest::check(path, text));
    }
    found
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{} cannot be read", directory.display()))?;
        let kind = entry.file_type().with_context(|| format!("{}", entry.path().display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(&entry.path(), found)?;
        } else if kind.is_file() && is_text(&name) {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn is_text(name: &str) -> bool {
    TEXT_NAMES.contains(&name)
        || extension(name).is_some_and(|extension| TEXT_EXTENSIONS.contains(&extension))
}

fn extension(path: &str) -> Option<&str> {
    Path::new(path).extension()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_file_meets_its_rules() {
        let rules_of = |path: &str, text: &str| -> Vec<&str> {
            check(path, text, &[]).iter().map(|violation| violation.rule).collect()
        };
        assert_eq!(
            rules_of("probe-user/src/agent.rs", "use aya::Ebpf;\n"),
            ["module-doc", "aya-outside-kernel"]
        );
        assert_eq!(rules_of("probe-user/src/metric.rs", "//! Doc.\nuse crate::agent::Agent;\n"), ["arrow"]);
        assert_eq!(rules_of("xtask/Cargo.toml", "[package]\nname = \"xtask\"\n"), ["lint-table"]);
        assert_eq!(rules_of("README.md", concat!("FIX", "ME later\n")), ["unfinished"]);
    }

    #[test]
    fn this_repository_is_walked() {
        let mut paths = Vec::new();
        walk(&repository(), &mut paths).unwrap();
        assert!(paths.iter().any(|path| path.ends_with("xtask/src/tidy.rs")));
        assert!(paths.iter().any(|path| path.ends_with("probe-common/Cargo.toml")));
        assert!(!paths.iter().any(|path| path.starts_with(repository().join("target"))));
    }

    #[test]
    fn text_is_told_by_name() {
        assert!(is_text("a.rs") && is_text("run") && is_text("values.yaml"));
        assert!(!is_text("image.png") && !is_text("Cargo.lock") && !is_text("go.sum"));
    }
}
