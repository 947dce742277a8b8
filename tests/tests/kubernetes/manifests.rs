//! The shipped manifests with the shipped image, as a user applies them to a cluster of kubeadm's kind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lab::agent::ADDRESS;
use lab::process::wait_for;
use lab::scrape::{self, Samples};
use lab::{Kubernetes, Lab, Node, Place, tools};
use serde_json::{Value, json};

use super::dns::check_dns;
use super::exchange::{self, End, check_exchange, server};
use super::identity::{peers, shown, told};
use super::monitors::check_monitors;
use super::rollout::check_gaps;
use super::{deployment, start, text};

const LIMIT: Duration = Duration::from_mins(1);
pub(crate) const NAMESPACE: &str = "leadline";
const LABEL: &str = "app.kubernetes.io/name=leadline";
/// What a node of this cluster has, and what therefore must be measured there.
const SUPPORTED: [&str; 11] = [
    "control_plane",
    "etcd",
    "haproxy",
    "kubernetes",
    "overlay",
    "path",
    "program",
    "tap",
    "tcp",
    "tcp_port",
    "traffic",
];
/// What the overlay does not have by itself, and this cluster needs.
const COMPONENTS: [&str; 5] = ["flannel", "haproxy-config", "haproxy-socket", "path", "path-key"];
/// Layers on which the nodes of this cluster reach each other.
const LAYERS: [&str; 2] = ["underlay", "overlay"];

/// The overlay for kubeadm with flannel and HAProxy and with more components, in a directory of the lab.
fn overlay(lab: &Lab, more: &[&str]) -> Result<PathBuf> {
    let directory = lab.scratch().join("overlay");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // Paths in a kustomization are relative.
    let up = "../".repeat(directory.canonicalize()?.components().count() - 1);
    let shipped = tools::workspace().join("deploy/kustomize").canonicalize()?;
    let shipped = format!("{up}{}", shipped.strip_prefix("/")?.display());
    let components = COMPONENTS.iter().chain(more);
    let mut text = json!({
        "resources": [format!("{shipped}/overlays/kubeadm-ha")],
        "components": components.map(|component| format!("{shipped}/components/{component}")).collect::<Vec<_>>(),
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
    let secret = ["create", "secret", "generic", "leadline-path"];
    let key = "--from-literal=key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    cluster.kubectl(&[&["--namespace", NAMESPACE], &secret[..], &[key]].concat())?;
    apply(lab, cluster, &[])?;
    cluster.wait_pods(NAMESPACE, LABEL, 3)
}

/// Applies the manifests with more components.
pub(crate) fn apply(lab: &Lab, cluster: &Kubernetes, more: &[&str]) -> Result<()> {
    let overlay = overlay(lab, more)?;
    let overlay = overlay.to_str().context("the path of the lab is no UTF-8")?;
    cluster.kubectl(&["apply", "--validate=strict", "--kustomize", overlay]).map(drop)
}

/// Scrapes the installed agent of a node.
pub(crate) fn page(node: &Node) -> Result<Samples> {
    let response = scrape::get(node, ADDRESS, "/metrics", &[])?;
    ensure!(response.status == 200, "/metrics answered {}", response.status);
    scrape::parse(response.text()?).with_context(|| format!("scrape the agent of {}", node.name()))
}

fn support(page: &Samples, collector: &str) -> Option<[String; 2]> {
    let sample = page.only("leadline_collector_support", &[("collector", collector)])?;
    Some(["level", "reason"].map(|label| sample.label(label).unwrap_or_default().to_owned()))
}

/// What of the page of a node is not as it must be while so many more members of etcd may fail.
fn faults(cluster: &Kubernetes, lab: &Lab, node: &Node, margin: u64) -> Result<Vec<String>> {
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
    for (name, expected) in [("leadline_etcd_has_quorum", 1), ("leadline_etcd_quorum_margin", margin)] {
        if page.count(name, &[]) != Some(expected) {
            faults.push(format!("{name} {:?}", page.count(name, &[])));
        }
    }
    // Of a node that is off another probe says more.
    let reached = |peer: &str, layer: &str| {
        page.count("leadline_path_reachable", &[("peer_node", peer), ("layer", layer)])
    };
    for (peer, layer) in others.iter().flat_map(|peer| LAYERS.map(|layer| (*peer, layer))) {
        if margin > 0 && reached(peer, layer) != Some(1) {
            faults.push(format!("{peer} by the {layer}: {:?}", reached(peer, layer)));
        }
    }
    let counted = page.all().iter().filter(|sample| sample.name == "leadline_tcp_connects_total");
    let named: BTreeSet<_> = counted.filter_map(|sample| sample.label("pod")).collect();
    if let Some([_, pod, ..]) = truth.iter().find(|[_, pod, ..]| !named.contains(pod.as_str())) {
        faults.push(format!("{pod} is not counted"));
    }
    Ok(faults)
}

/// The agents of these nodes say of them what kubectl says, and measure what they have.
fn check(cluster: &Kubernetes, lab: &Lab, nodes: &[Node], margin: u64) -> Result<()> {
    for node in nodes {
        let mut last = None;
        let waited = wait_for("a page without faults", LIMIT, || {
            last = Some(faults(cluster, lab, node, margin));
            matches!(&last, Some(Ok(faults)) if faults.is_empty()).then_some(())
        });
        waited.with_context(|| format!("{}: {last:#?}", node.name()))?;
    }
    Ok(())
}

/// A static pod has the cgroup of its file's hash, and its mirror in the API another UID, which is shown.
fn check_static(node: &Node, pod: &Value) -> Result<()> {
    let (uid, hash) =
        (text(pod, "/metadata/uid")?, text(pod, "/metadata/annotations/kubernetes.io~1config.hash")?);
    ensure!(uid != hash, "no mirror: {pod:#}");
    let cgroup = |id: &str| node.root().join(format!("kubepods/besteffort/pod{id}"));
    ensure!(cgroup(hash).is_dir(), "no cgroup {}", cgroup(hash).display());
    ensure!(!cgroup(uid).exists(), "a cgroup by the UID of the mirror");
    let page = page(node)?;
    let name = text(pod, "/metadata/name")?;
    let labels = [("namespace", "default"), ("pod", name), ("uid", uid)];
    ensure!(page.count("leadline_pod_info", &labels) == Some(1), "{name} is not shown by {uid}");
    println!("static pod {name}: UID {uid}, cgroup by {hash}");
    Ok(())
}

/// Replaces all agents, one after the other.
fn roll_out(cluster: &Kubernetes, lab: &Lab) -> Result<()> {
    let uids = |pods: &[Value]| -> Result<BTreeSet<String>> {
        pods.iter().map(|pod| text(pod, "/metadata/uid").map(str::to_owned)).collect()
    };
    let before = uids(&cluster.wait_pods(NAMESPACE, LABEL, 3)?)?;
    let of_agents = ["--namespace", NAMESPACE, "daemonset/leadline-control-plane"];
    let after = check_gaps(lab.nodes(), || {
        cluster.kubectl(&[&["rollout", "restart"], &of_agents[..]].concat())?;
        cluster.kubectl(&[&["rollout", "status", "--timeout=100s"], &of_agents[..]].concat())?;
        uids(&cluster.wait_pods(NAMESPACE, LABEL, 3)?)
    })?;
    ensure!(before.is_disjoint(&after), "{before:?} and {after:?}");
    Ok(())
}

/// Takes the power of a node and gives it back: meanwhile the other agents go on, and afterwards its own does.
fn lose_power(cluster: &mut Kubernetes, lab: &Lab, node: &Node) -> Result<()> {
    cluster.crash(lab, node)?;
    ensure!(page(node).is_err(), "the agent of a node without power answers");
    let others: Vec<Node> =
        lab.nodes().iter().filter(|other| other.index() != node.index()).cloned().collect();
    check(cluster, lab, &others, 0).context("while a node is off")?;
    cluster.boot(lab, node)?;
    cluster.wait_ready(LIMIT)?;
    let begun = Instant::now();
    check(cluster, lab, lab.nodes(), 1).context("after the boot")?;
    println!("{}: a page without faults {:.1?} after it was ready", node.name(), begun.elapsed());
    cluster.wait_pods(NAMESPACE, LABEL, 3).map(drop)
}

#[test]
fn what_is_shipped_runs_on_every_node_counts_and_survives_rollout_and_power_loss() -> Result<()> {
    let (lab, mut cluster, _) = start()?;
    let [first, second, third] = lab.nodes() else { bail!("not three nodes") };
    let image = exchange::image(&lab)?;
    for node in lab.nodes() {
        cluster.import(node, &image)?;
    }
    cluster.add_static_pod(third, "static", &server("static", third))?;
    cluster.apply(&deployment(3))?;
    let idle = cluster.wait_pods("default", "app=idle", 3)?;
    let names = cluster.start_dns(lab.scratch())?;
    cluster.apply(&format!("{}{}", server("client", first), server("server", second)))?;
    let pod =
        |label: &str| -> Result<Value> { cluster.wait_pods("default", label, 1)?.pop().context("no pod") };
    let [client, server, of_file] = [pod("app=client")?, pod("app=server")?, pod("app=static")?];
    let [client, server, of_file] =
        [(first, &client), (second, &server), (third, &of_file)].map(|(node, pod)| End { node, pod });
    install(&lab, &cluster)?;
    check(&cluster, &lab, lab.nodes(), 1)?;
    check_static(third, of_file.pod)?;
    check_dns(&lab, &cluster, text(&idle[0], "/metadata/name")?, &names)?;
    check_exchange(&cluster, [client, server])?;
    check_monitors(&lab, &cluster)?;
    roll_out(&cluster, &lab)?;
    check(&cluster, &lab, lab.nodes(), 1)?;
    check_exchange(&cluster, [client, of_file])?;
    lose_power(&mut cluster, &lab, third)?;
    drop(cluster);
    lab.shutdown()
}
