//! Many pods at once: cgroups and log directories like the kubelet's, with traffic of their own. One process makes
//! them and their sockets, going from cgroup to cgroup: for the agent there is no difference to 110 containers.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::field;
use crate::{Agent, Node, process};

/// How many pods, and what they talk with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) pods: u32,
    /// Pods that talk over TCP.
    pub(super) tcp: u32,
    /// Classes of peers that each pod sends datagrams to.
    pub(super) classes: usize,
}

/// Pods that exist until this handle is dropped.
pub(super) struct Crowd(Child);

impl Crowd {
    pub(super) fn start(node: &Node, plan: Plan) -> Result<Self> {
        let mut words = vec!["crowd".to_owned(), plan.pods.to_string(), plan.tcp.to_string()];
        words.extend(targets(node)?.iter().take(plan.classes).map(ToString::to_string));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = field::child(node, &words)?;
        let mut crowd = Self(process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?);
        let output = crowd.0.stdout.take().context("no output of the crowd")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("read the output of the crowd")?;
        ensure!(line == "ready\n", "the pods could not be made; the reason stands above");
        Ok(crowd)
    }

    /// Removes the pods.
    pub(super) fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = process::wait_exit(&mut self.0, "the crowd", Duration::from_mins(1))?;
        ensure!(status.success(), "the pods could not be removed ({status})");
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // After a failure only; cgroups that stay go with the lab.
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

/// A peer of each class that a lone node has: external, a pod of this node, multicast. Nobody answers.
pub(super) fn targets(node: &Node) -> Result<[Ipv4Addr; 3]> {
    let [a, b, c, _] = node.subnet()?.ipv4.octets();
    Ok([Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(a, b, c, 250), Ipv4Addr::new(239, 1, 1, 1)])
}

/// Waits until the agent exports at least this many series, and says how many.
pub(super) fn wait_series(agent: &Agent, least: usize) -> Result<usize> {
    let mut seen = 0;
    process::wait_for("all pods on the page", Duration::from_secs(30), || {
        let samples = agent.scrape().ok()?;
        seen = samples.all().len();
        // Without their names all pods are there, but labels are of another length.
        let is_named = samples
            .of("leadline_pod_transmit_packets_total", |_| true)
            .all(|sample| sample.label("namespace") != Some(""));
        (seen >= least && is_named).then_some(seen)
    })
    .with_context(|| format!("{seen} series of {least}"))
}
