//! `cargo xtask dashboards`: the rendered rules and boards, from the crate `dashboards`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    generated::{self, Mode},
    process::{cargo, loudly, repository, target_directory},
    progress::say,
};

/// Where the committed files are, from the root of the repository.
const RENDERED: &str = "dashboards/rendered";
const REPAIR: &str = "cargo xtask dashboards";

/// Arguments of `dashboards`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only say whether the rendered files are up to date
    #[arg(long)]
    check: bool,
}

/// Writes the files, or compares them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    settle(Mode::from_check(arguments.check))
}

/// Has everything rendered into a folder of its own, and compares that with what is committed.
pub(crate) fn settle(mode: Mode) -> Result<()> {
    let fresh = target_directory().join("dashboards");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("{} cannot be removed", fresh.display()))?;
    }
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "dashboards", "--"]).arg(&fresh);
    loudly(&mut command)?;
    let wanted = files(&fresh)?;
    if wanted.is_empty() {
        bail!("nothing was rendered");
    }
    for path in &wanted {
        let file = fresh.join(path);
        let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        generated::settle(&format!("{RENDERED}/{}", path.display()), &text, REPAIR, mode)?;
    }
    let rendered = repository().join(RENDERED);
    for path in left_over(&files(&rendered)?, &wanted) {
        if mode == Mode::Check {
            bail!("{RENDERED}/{} is rendered no more; `{REPAIR}` removes it", path.display());
        }
        let file = rendered.join(path);
        fs::remove_file(&file).with_context(|| format!("{} cannot be removed", file.display()))?;
        say(format_args!("{RENDERED}/{} removed", path.display()));
    }
    Ok(())
}

/// Committed files that nothing renders.
fn left_over<'a>(committed: &'a BTreeSet<PathBuf>, wanted: &'a BTreeSet<PathBuf>) -> Vec<&'a PathBuf> {
    committed.difference(wanted).collect()
}

/// The paths of all files below a folder.
fn files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let unreadable = || format!("{} cannot be read", folder.display());
        for entry in fs::read_dir(&folder).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(of: &[&str]) -> BTreeSet<PathBuf> {
        of.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_is_rendered_no_more_is_found() {
        let committed = paths(&["boards/old.json", "rules/vip.yaml"]);
        let wanted = paths(&["rules/etcd.yaml", "rules/vip.yaml"]);
        assert_eq!(left_over(&committed, &wanted), [&PathBuf::from("boards/old.json")]);
    }

    #[test]
    fn files_are_found_in_folders() {
        let found = files(&repository().join("xtask")).unwrap();
        assert!(found.contains(Path::new("Cargo.toml")) && found.contains(Path::new("src/dashboards.rs")));
    }
}
