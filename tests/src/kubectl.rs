//! kubectl as the administrator of a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::CloneFlags;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::node::Node;
use crate::place::{Namespaces, Place as _, join};
use crate::{process, tools};

/// The time that a command may take which waits for the cluster.
const LIMIT: Duration = Duration::from_mins(2);

/// Where kubectl runs, and with what file.
#[derive(Clone, Debug)]
pub struct Kubectl {
    namespaces: Namespaces,
    cgroup: PathBuf,
    kubeconfig: PathBuf,
}

/// What an API server says of objects that it would take.
#[derive(Debug)]
pub struct Verdict {
    /// One line for each object.
    pub taken: Vec<String>,
    /// What it warns of.
    pub warnings: Vec<String>,
}

impl Kubectl {
    /// The kubeconfig is a file as a process on the machine sees it.
    pub(crate) fn new(machine: &Machine, kubeconfig: PathBuf) -> Self {
        Self { namespaces: machine.namespaces().clone(), cgroup: machine.cgroup().to_owned(), kubeconfig }
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl, and answers with what it prints.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        process::run_for(&mut self.command(arguments)?, LIMIT)
    }

    /// Has the objects of a manifest made or changed.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let mut command = self.command(&["apply", "--filename=-"])?;
        process::run_with_input(&mut command, manifest).with_context(|| manifest.to_owned()).map(drop)
    }

    /// Has a node of the lab made in the API or changed, with its address as the kubelet would report it.
    pub fn join(&self, node: &Node, annotations: &Value, spec: &Value) -> Result<()> {
        let name = node.name();
        let metadata = json!({"name": name, "annotations": annotations});
        self.apply(
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}).to_string(),
        )?;
        let address = json!([{"type": "InternalIP", "address": node.address(false)?}]);
        let status = json!({"status": {"addresses": address}}).to_string();
        let patch = ["patch", "node", name, "--subresource=status", "--type=merge", "--patch", &status];
        self.run(&patch).map(drop)
    }

    /// What kubectl gets, such as `["pods", "--all-namespaces"]`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.run(&[&["get", "--output=json"], arguments].concat())?;
        serde_json::from_str(&said).with_context(|| format!("read what kubectl says of {arguments:?}"))
    }

    /// Hands the objects of a file to the API server, which checks them like any others and keeps none. A field that it does
    /// not know is an error.
    pub fn dry_run(&self, manifest: &Path) -> Result<Verdict> {
        let mut command = self.command(&["apply", "--dry-run=server", "--validate=strict", "--filename"])?;
        let output = process::capture(command.arg(manifest), "", LIMIT)?;
        let [said, complained] = [output.stdout, output.stderr].map(String::from_utf8);
        let (said, complained) = (said?, complained?);
        ensure!(output.status.success(), "{} is refused: {}", manifest.display(), complained.trim());
        let warnings =
            complained.lines().map(|line| line.strip_prefix("Warning: ").unwrap_or(line).to_owned());
        Ok(Verdict { taken: said.lines().map(str::to_owned).collect(), warnings: warnings.collect() })
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
pub(crate) fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Whether the condition `Ready` of a node or of a pod holds.
pub(crate) fn is_ready(object: &Value) -> bool {
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
