//! The unit, as systemd itself judges it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{process, tools};

use crate::{deploy, needed};

/// What systemd-analyze says of a unit that is open in every way is 9.6.
const EXPOSURE: f64 = 2.5;

fn file() -> PathBuf {
    deploy().join("systemd/leadline.service")
}

/// Values of a setting.
fn setting(name: &str) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(file())?;
    let prefix = format!("{name}=");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    Ok(line.with_context(|| format!("the unit has no {name}"))?.split(' ').map(str::to_owned).collect())
}

/// A tree with the unit and the agent where the unit looks for it.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Result<Self> {
        let tree = Self(tools::target_dir().join(format!("unit-{}", std::process::id())));
        for directory in ["usr/local/bin", "etc/systemd/system"] {
            fs::create_dir_all(tree.0.join(directory))?;
        }
        // Links are followed below the tree only.
        let (agent, place) = (lab::agent::binary()?, tree.0.join("usr/local/bin/leadline"));
        fs::hard_link(&agent, &place).or_else(|_| fs::copy(&agent, &place).map(drop))?;
        fs::copy(file(), tree.0.join("etc/systemd/system/leadline.service"))?;
        Ok(tree)
    }

    fn analyze(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::require("systemd-analyze")?);
        command.args(arguments).arg(format!("--root={}", self.0.display())).arg("leadline.service");
        let output = process::capture(&mut command, "", Duration::from_secs(30))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.success(), "{}: {said}", process::line(&command));
        Ok(said)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn systemd_understands_every_line_of_the_unit() -> Result<()> {
    let said = Tree::new()?.analyze(&["verify", "--man=no", "--recursive-errors=no"])?;
    ensure!(said.trim().is_empty(), "{said}");
    Ok(())
}

#[test]
fn the_unit_exposes_little() -> Result<()> {
    let said = Tree::new()?.analyze(&["security", "--offline=true", "--no-pager"])?;
    let level = said.lines().find(|line| line.contains("Overall exposure level")).context("no verdict")?;
    let figure: f64 = level.split(' ').find_map(|word| word.parse().ok()).context(level.to_owned())?;
    println!("{level}");
    ensure!(figure <= EXPOSURE, "{said}");
    Ok(())
}

#[test]
fn the_unit_leaves_the_capabilities_that_the_agent_needs() -> Result<()> {
    let expected: BTreeSet<String> = needed().iter().map(|name| format!("CAP_{name}")).collect();
    for name in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        ensure!(setting(name)? == expected, "{name}: {:?}", setting(name)?);
    }
    Ok(())
}
