//! Definitions of the Prometheus operator's objects, from its Go module whose content `go.sum` pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::built::PROMETHEUS_OPERATOR;
use super::{pin, require, target_dir, workspace};
use crate::process;

const PATH: &str = "github.com/prometheus-operator/prometheus-operator";
/// Where the module has one file for each kind.
const DEFINITIONS: &str = "example/prometheus-operator-crd";
/// The kinds that are shipped, and those without which the operator does not work.
const FILES: [&str; 5] = [
    "monitoring.coreos.com_podmonitors.yaml",
    "monitoring.coreos.com_probes.yaml",
    "monitoring.coreos.com_prometheuses.yaml",
    "monitoring.coreos.com_prometheusrules.yaml",
    "monitoring.coreos.com_servicemonitors.yaml",
];

/// A directory with the definitions, which are fetched if they are missing, and nothing else.
pub fn operator_crds() -> Result<PathBuf> {
    let module = workspace().join("tests/lab/tools").join(PROMETHEUS_OPERATOR.module);
    let directory = target_dir().join("tools").join(pin(&module)?).join("crds");
    if FILES.iter().any(|file| !directory.join(file).is_file()) {
        let source = download(&module)?.join(DEFINITIONS);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        FILES.iter().try_for_each(|file| copy(&source.join(file), &directory.join(file)))?;
    }
    Ok(directory)
}

/// Where Go keeps the module, which it compares with `go.sum` when it fetches it.
fn download(module: &Path) -> Result<PathBuf> {
    let go =
        require("go").context("the definitions come as a Go module; install Go 1.26 (https://go.dev/dl)")?;
    let mut command = Command::new(go);
    command.args(["mod", "download", "-json", PATH]).current_dir(module);
    command.env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    let said = process::run_for(&mut command, process::SHORT * 4)?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    said["Dir"].as_str().map(PathBuf::from).with_context(|| format!("go has no directory for it: {said:#}"))
}

/// Only a whole file may carry the name by which it is found.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    let partial = to.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, bytes).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("rename {}", partial.display()))
}
