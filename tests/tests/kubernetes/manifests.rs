//! The shipped manifests with the shipped image, as a user applies them to a cluster of kubeadm's kind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::agent::ADDRESS;
use lab::process::wait_for;
use lab::scrape::{self, Samples};
use lab::{Kubernetes, Lab, Node, Place, tools};
use serde_json::{Value, json};

use super::identity::{peers, shown, told};
use super::{deployment, start, text};

const LIMIT: Duration = Duration::from_mins(1);
const NAMESPACE: &str = "leadline";
const LABEL: &str = "app.kubernetes.io/name=leadline";
/// What a node of this cluster has, and what therefore must be measured there.
const SUPPORTED: [&str; 9] =
    ["control_plane", "etcd", "kubernetes", "overlay", "program", "tap", "tcp", "tcp_port", "traffic"];

/// The overlay for kubeadm with flannel, in a directory of the lab.
fn overlay(lab: &Lab) -> Result<PathBuf> {
    let directory = lab.scratch().join("overlay");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // Paths in a kustomization are relative.
    let up = "../".repeat(directory.canonicalize()?.components().count() - 1);
    let shipped = tools::workspace().join("deploy/kustomize").canonicalize()?;
    let shipped = format!("{up}{}", shipped.strip_prefix("/")?.display());
    let mut text = json!({
        "resources": [format!("{shipped}/overlays/kubeadm-ha")],
        "components": [format!("{shipped}/components/flannel")],
    });
    // On a machine with both versions of cgroups the second is below the first.
    if Path::new("/sys/fs/cgroup/unified").exists() {
        let volume = json!({"name": "cgroup", "hostPath": {"path": "/sys/fs/cgroup/unified"}});
        let patch = json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "any"},
            "spec": {"template": {"spec": {"volumes": [volume]}}},
        });
        text["patches"] = json!([{"target": {"kind": "DaemonSet"}, "patch": patch.to_string()}]);
    }
    fs::write(directory.join("kustomization.yaml"), text.to_string())?;
    Ok(directory)
}

/// Gives every node the image, and applies the manifests; answers with the pods of the agents.
fn install(lab: &Lab, cluster: &Kubernetes) -> Result<Vec<Value>> {
    let archive = tools::target_dir().join("image/leadline-test.tar");
    let how = "cargo xtask image --profile release --output target/image/leadline-test.tar";
    ensure!(archive.is_file(), "{} is missing: {how}", archive.display());
    for node in lab.nodes() {
        cluster.import(node, &archive)?;
    }
    cluster.kubectl(&["label", "nodes", "--all", "node-role.kubernetes.io/control-plane="])?;
    let overlay = overlay(lab)?;
    let overlay = overlay.to_str().context("the path of the lab is no UTF-8")?;
    cluster.kubectl(&["apply", "--validate=strict", "--kustomize", overlay])?;
    cluster.wait_pods(NAMESPACE, LABEL, 3)
}

fn page(node: &Node) -> Result<Samples> {
    let response = scrape::get(node, ADDRESS, "/metrics", &[])?;
    ensure!(response.status == 200, "/metrics answered {}", response.status);
    scrape::parse(response.text()?).with_context(|| format!("scrape the agent of {}", node.name()))
}

fn support(page: &Samples, collector: &str) -> Option<[String; 2]> {
    let sample = page.only("leadline_collector_support", &[("collector", collector)])?;
    Some(["level", "reason"].map(|label| sample.label(label).unwrap_or_default().to_owned()))
}

/// What of the page of a node is not as it must be.
fn faults(cluster: &Kubernetes, lab: &Lab, node: &Node) -> Result<Vec<String>> {
    let (page, truth) = (page(node)?, told(cluster, node)?);
    let mut faults = Vec::new();
    if shown(&page) != truth {
        faults.push(format!("pods {:?}, kubectl has {truth:?}", shown(&page)));
    }
    let others: BTreeSet<&str> =
        lab.nodes().iter().map(Place::name).filter(|name| *name != node.name()).collect();
    if peers(&page) != others {
        faults.push(format!("peers {:?}", peers(&page)));
    }
    for collector in SUPPORTED {
        let found = support(&page, collector);
        if found.as_ref().is_none_or(|[level, _]| level != "supported") {
            faults.push(format!("{collector}: {found:?}"));
        }
    }
    for (name, expected) in [("leadline_etcd_has_quorum", 1), ("leadline_etcd_quorum_margin", 1)] {
        if page.count(name, &[]) != Some(expected) {
            faults.push(format!("{name} {:?}", page.count(name, &[])));
        }
    }
    let counted = page.all().iter().filter(|sample| sample.name == "leadline_tcp_connects_total");
    let named: BTreeSet<_> = counted.filter_map(|sample| sample.label("pod")).collect();
    if let Some([_, pod, ..]) = truth.iter().find(|[_, pod, ..]| !named.contains(pod.as_str())) {
        faults.push(format!("{pod} is not counted"));
    }
    Ok(faults)
}

/// Every agent says of its node what kubectl says, and measures what the node has.
fn check(cluster: &Kubernetes, lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        let mut last = None;
        let waited = wait_for("a page without faults", LIMIT, || {
            last = Some(faults(cluster, lab, node));
            matches!(&last, Some(Ok(faults)) if faults.is_empty()).then_some(())
        });
        waited.with_context(|| format!("{}: {last:#?}", node.name()))?;
    }
    Ok(())
}

#[test]
fn what_is_shipped_runs_on_every_node_of_a_cluster_and_is_rolled_out_again() -> Result<()> {
    let (lab, cluster, _) = start()?;
    cluster.apply(&deployment(3))?;
    cluster.wait_pods("default", "app=idle", 3)?;
    let uids = |pods: &[Value]| -> Result<BTreeSet<String>> {
        pods.iter().map(|pod| text(pod, "/metadata/uid").map(str::to_owned)).collect()
    };
    let before = uids(&install(&lab, &cluster)?)?;
    check(&cluster, &lab)?;
    let of_agents = ["--namespace", NAMESPACE, "daemonset/leadline-control-plane"];
    cluster.kubectl(&[&["rollout", "restart"], &of_agents[..]].concat())?;
    cluster.kubectl(&[&["rollout", "status", "--timeout=100s"], &of_agents[..]].concat())?;
    let after = uids(&cluster.wait_pods(NAMESPACE, LABEL, 3)?)?;
    ensure!(before.is_disjoint(&after), "{before:?} and {after:?}");
    check(&cluster, &lab)?;
    drop(cluster);
    lab.shutdown()
}
