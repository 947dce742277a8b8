//! kubectl outside of the nodes, as the administrator.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::CloneFlags;
use serde_json::Value;

use crate::machine::Machine;
use crate::place::{Namespaces, Place as _, join};
use crate::{process, tools};

/// The time that a command may take which waits for the cluster.
const LIMIT: Duration = Duration::from_mins(2);

/// Where kubectl runs, and with what file.
#[derive(Clone, Debug)]
pub(super) struct Kubectl {
    namespaces: Namespaces,
    cgroup: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(super) fn new(machine: &Machine, kubeconfig: PathBuf) -> Self {
        Self { namespaces: machine.namespaces().clone(), cgroup: machine.cgroup().to_owned(), kubeconfig }
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        process::run_for(&mut self.command(arguments)?, LIMIT)
    }

    pub(super) fn apply(&self, manifest: &str) -> Result<()> {
        let mut command = self.command(&["apply", "--filename=-"])?;
        process::run_with_input(&mut command, manifest).with_context(|| manifest.to_owned()).map(drop)
    }

    pub(super) fn get(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.run(&[&["get", "--output=json"], arguments].concat())?;
        serde_json::from_str(&said).with_context(|| format!("read what kubectl says of {arguments:?}"))
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(tools::kubectl()?);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        // It keeps what the API server offers in files, by default in the home of the user.
        command.arg("--cache-dir").arg(self.kubeconfig.with_file_name("kubectl-cache"));
        command.args(arguments);
        join(&mut command, [self.cgroup.as_path()], &self.namespaces, CloneFlags::empty())?;
        Ok(command)
    }
}

/// The elements of a list.
pub(super) fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Whether the condition `Ready` of a node or of a pod holds.
pub(super) fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_condition_ready_counts() {
        let object = |kind: &str, status: &str| serde_json::json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        assert!(is_ready(&object("Ready", "True")));
        assert!(!is_ready(&object("Ready", "Unknown")));
        assert!(!is_ready(&object("Initialized", "True")));
        assert!(!is_ready(&Value::Null));
    }

    #[test]
    fn what_is_no_list_has_no_elements() {
        assert!(items(&serde_json::json!({"kind": "Pod"})).is_empty());
    }
}
