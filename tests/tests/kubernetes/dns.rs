//! The cluster's DNS: pods find services by it, and the agents know its pods.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::kubernetes::dns;
use lab::process::wait_for;
use lab::{Kubernetes, Lab, Place as _};
use serde_json::Value;

use super::manifests::page;
use super::text;

/// The time for what an agent notices by itself.
const LIMIT: Duration = Duration::from_secs(20);
const API: &str = "kubernetes.default.svc.cluster.local";
/// The Service that is shipped has no address of its own: its name leads to the agents.
const AGENTS: &str = "leadline.leadline.svc.cluster.local";

/// Asks for a name in a pod: the server that answers, and the addresses that it has.
fn resolve(cluster: &Kubernetes, pod: &str, name: &str) -> Result<(String, BTreeSet<String>)> {
    let said = cluster.kubectl(&["exec", pod, "--", "nslookup", name])?;
    let (server, answer) = said.split_once("Name:").with_context(|| format!("no answer: {said}"))?;
    let last = |line: &str| line.rsplit([' ', '\t']).next().unwrap_or_default().to_owned();
    let server = server.lines().find(|line| line.starts_with("Server:")).context("no server")?;
    Ok((last(server), answer.lines().filter(|line| line.starts_with("Address")).map(last).collect()))
}

/// Pods find services as every cluster lets them, and agents name those who answer as kubectl does.
pub(crate) fn check_dns(lab: &Lab, cluster: &Kubernetes, from: &str, servers: &[Value]) -> Result<()> {
    let nodes = lab.nodes().iter().map(|node| Ok(node.address(false)?.to_string()));
    let agents = nodes.collect::<Result<BTreeSet<_>>>()?;
    for (name, addresses) in [(API, BTreeSet::from(["10.43.0.1".to_owned()])), (AGENTS, agents)] {
        let found = resolve(cluster, from, name)?;
        ensure!(found == (dns::ADDRESS.to_owned(), addresses), "{name}: {found:?}");
    }
    for pod in servers {
        let (name, node) = (text(pod, "/metadata/name")?, text(pod, "/spec/nodeName")?);
        let node = lab.nodes().iter().find(|one| one.name() == node).context("a pod has a node")?;
        let of_pod = [("namespace", "kube-system"), ("pod", name)];
        let of_workload = [("workload", "coredns"), ("workload_kind", "Deployment")];
        let mut last = None;
        let waited = wait_for("the agent to know who answers", LIMIT, || {
            let page = page(node).ok()?;
            let info = page.count("leadline_pod_info", &[of_pod, of_workload].concat());
            let traffic = page.traffic("pod", &of_pod).map(|traffic| traffic.receive_packets);
            last = Some((info, traffic));
            (info == Some(1) && traffic > Some(0)).then_some(())
        });
        waited.with_context(|| format!("{name} on {}: {last:?}", node.name()))?;
        println!("{name} on {}: named, and {last:?}", node.name());
    }
    Ok(())
}
