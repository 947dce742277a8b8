//! The Go compiler, which builds the lab's components from pinned modules.

use std::fs;

use anyhow::{Result, bail};

use crate::{
    process::{answer, find, repository},
    progress::Step,
};

/// Major and minor version.
type Version = (u32, u32);

/// Checks that a Go is here that is new enough for every component.
pub(super) fn check() -> Result<()> {
    let step = Step::silent("Go");
    let needed = needed();
    let how = format!(
        "install Go {}.{} or newer: https://go.dev/dl/, unpacked to /usr/local/go",
        needed.0, needed.1
    );
    let Some(program) = find("go") else {
        bail!("Go is missing, and the lab builds its components with it: {how}")
    };
    let version = answer(&program, &["env", "GOVERSION"]).unwrap_or_default();
    match parse_version(&version) {
        Some(found) if found >= needed => step.done(format_args!("{version} at {}", program.display())),
        Some(_) => bail!("{} is {version}: {how}", program.display()),
        None => bail!("{} does not tell its version: {how}", program.display()),
    }
    Ok(())
}

/// The newest Go that any component asks for.
fn needed() -> Version {
    let tools = repository().join("tests/lab/tools");
    let modules = fs::read_dir(tools).into_iter().flatten().flatten();
    modules
        .filter_map(|entry| fs::read_to_string(entry.path().join("go.mod")).ok())
        .filter_map(|text| module_version(&text))
        .max()
        .unwrap_or((1, 24))
}

fn module_version(go_mod: &str) -> Option<Version> {
    go_mod.lines().find_map(|line| line.strip_prefix("go ")).and_then(parse_version)
}

fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.trim().trim_start_matches("go").split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(parse_version("go1.26.8"), Some((1, 26)));
        assert_eq!(parse_version("1.9"), Some((1, 9)));
        assert!(parse_version("go1.26") > parse_version("go1.9"));
        assert_eq!(parse_version("devel"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn a_module_says_which_go_it_needs() {
        assert_eq!(module_version("module x\n\ngo 1.24.0\n\ntool y\n"), Some((1, 24)));
        assert_eq!(module_version("module x\n"), None);
    }
}
