//! Which test binaries of the lab run beside each other. Most of them wait most of the time, for elections, expiries and
//! timeouts of real daemons; those that measure how fast something is have the machine to themselves.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// Binaries that wait, in two rows that take about as long as each other. A row runs one after the other.
const LANES: [&[&str]; 2] = [&["etcd", "vip_probe"], &["certificate", "tunnel", "control_plane"]];

/// What `cargo test` is told, for each group of binaries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lanes {
    /// Groups that run beside each other.
    pub(super) beside: Vec<Vec<String>>,
    /// All others.
    pub(super) alone: Vec<String>,
}

/// Sorts the binaries of a folder of tests into their groups.
pub(super) fn read(folder: &Path) -> Result<Lanes> {
    let mut names = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("{} cannot be read", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(ToOwned::to_owned));
        }
    }
    names.sort();
    sort(&names)
}

fn sort(names: &[String]) -> Result<Lanes> {
    for name in LANES.concat() {
        ensure!(
            names.iter().any(|known| known == name),
            "there is no test binary {name} to run beside others"
        );
    }
    let targets = |names: &mut dyn Iterator<Item = &str>| -> Vec<String> {
        names.flat_map(|name| ["--test".to_owned(), name.to_owned()]).collect()
    };
    let beside = LANES.iter().map(|lane| targets(&mut lane.iter().copied())).collect();
    let is_alone = |name: &&str| !LANES.concat().contains(name);
    let mut alone = vec!["--lib".to_owned(), "--bins".to_owned()];
    alone.extend(targets(&mut names.iter().map(String::as_str).filter(is_alone)));
    Ok(Lanes { beside, alone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::repository;

    #[test]
    fn every_binary_is_in_one_group() {
        let lanes = read(&repository().join("tests/tests")).unwrap();
        let mut all: Vec<&String> = lanes.beside.iter().flatten().chain(&lanes.alone).collect();
        all.retain(|word| *word != "--test");
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        let files = fs::read_dir(repository().join("tests/tests")).unwrap();
        let files = files.filter(|entry| entry.as_ref().unwrap().path().extension().is_some()).count();
        assert_eq!(count, files + 2);
    }

    #[test]
    fn a_lane_of_a_binary_that_is_gone_is_an_error() {
        let names: Vec<String> = LANES.concat().iter().skip(1).map(ToString::to_string).collect();
        assert!(sort(&names).unwrap_err().to_string().contains("no test binary etcd"));
    }
}
