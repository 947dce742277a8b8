//! The lab's own Kubernetes cluster: nodes, pod network and pods, against what kubectl says.
#![expect(clippy::print_stdout, reason = "the log of a run shows what was counted and how long it took")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::kubernetes::BASE;
use lab::{Kubernetes, Lab, LabOptions, Node, Place as _};
use serde_json::Value;

#[path = "kubernetes/dns.rs"]
mod dns;
#[path = "kubernetes/exchange.rs"]
mod exchange;
#[path = "kubernetes/identity.rs"]
mod identity;
#[path = "kubernetes/manifests.rs"]
mod manifests;
#[path = "kubernetes/monitors.rs"]
mod monitors;
#[path = "kubernetes/quorum.rs"]
mod quorum;
#[path = "kubernetes/rollout.rs"]
mod rollout;

/// A lab with a cluster, and how long it took.
fn start() -> Result<(Lab, Kubernetes, Duration)> {
    let begun = Instant::now();
    let lab = Lab::start_for_containers(&LabOptions { nodes: 3, flannel: None })?;
    let cluster = Kubernetes::start(&lab)?;
    Ok((lab, cluster, begun.elapsed()))
}

/// A manifest of pods that do nothing, one on each of the first nodes that are free.
fn deployment(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: idle}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: idle}}}}\n  template:\n    metadata: {{labels: {{app: idle}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      topologySpreadConstraints:\n      - {{maxSkew: 1, topologyKey: \
         kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: idle}}}}}}\n      \
         containers: [{{name: idle, image: \"{BASE}\"}}]\n"
    )
}

fn text<'a>(object: &'a Value, path: &str) -> Result<&'a str> {
    object.pointer(path).and_then(Value::as_str).with_context(|| format!("no {path} in {object:#}"))
}

fn check_node(cluster: &Kubernetes, node: &Node) -> Result<()> {
    let object = cluster.get(&["node", node.name()])?;
    let (address, network) = (node.address(false)?.to_string(), format!("10.42.{}.0/24", node.index()));
    ensure!(text(&object, "/spec/podCIDR")? == network, "{object:#}");
    ensure!(object["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.3", "{object:#}");
    let flannel =
        |name: &str| text(&object, &format!("/metadata/annotations/flannel.alpha.coreos.com~1{name}"));
    ensure!(flannel("public-ip")? == address && flannel("backend-type")? == "vxlan", "{object:#}");
    // What flanneld tells the other nodes of its device is what the device has.
    let data: Value = serde_json::from_str(flannel("backend-data")?)?;
    let device = node.run(&["cat", "/sys/class/net/flannel.1/address"])?;
    ensure!(text(&data, "/VtepMAC")? == device.trim() && data["VNI"] == 1, "{data}, {device}");
    Ok(())
}

#[test]
fn three_nodes_are_ready_and_their_pods_reach_each_other() -> Result<()> {
    let (lab, cluster, took) = start()?;
    println!("three nodes are ready after {took:.1?}");
    for node in lab.nodes() {
        check_node(&cluster, node)?;
    }

    cluster.apply(&deployment(3))?;
    let pods = cluster.wait_pods("default", "app=idle", 3)?;
    for (pod, node) in pods.iter().zip(lab.nodes()) {
        ensure!(text(pod, "/spec/nodeName")? == node.name(), "{pod:#}");
        let network = format!("10.42.{}.", node.index());
        ensure!(text(pod, "/status/podIP")?.starts_with(&network), "{pod:#}");
        ensure!(text(pod, "/metadata/name")?.starts_with("idle-"), "{pod:#}");
    }
    let (from, to) = (text(&pods[0], "/metadata/name")?, text(&pods[1], "/status/podIP")?);
    let said = cluster.kubectl(&["exec", from, "--", "ping", "-c", "3", "-W", "2", to])?;
    ensure!(said.contains("3 packets transmitted, 3 packets received"), "{said}");

    // The API server as a service, from a node and from a pod.
    let code = lab.node(1)?.run(&[
        "curl",
        "--silent",
        "--insecure",
        "--max-time",
        "5",
        "--write-out",
        "%{http_code}",
        "--output",
        "/dev/null",
        "https://10.43.0.1/readyz",
    ])?;
    ensure!(code == "200", "{code}");
    cluster.kubectl(&["exec", from, "--", "nc", "-w", "5", "10.43.0.1", "443", "-e", "true"])?;

    drop(cluster);
    lab.shutdown()
}

#[test]
fn a_node_that_loses_its_power_is_lost_to_the_api_and_comes_back_with_its_pods() -> Result<()> {
    let (lab, mut cluster, _) = start()?;
    let node = lab.node(1)?;
    cluster.apply(&deployment(3))?;
    let before = cluster.wait_pods("default", "app=idle", 3)?;

    let begun = Instant::now();
    cluster.crash(&lab, node)?;
    cluster.wait_lost(node, Duration::from_secs(90))?;
    println!("{} is lost after {:.1?}", node.name(), begun.elapsed());

    let begun = Instant::now();
    cluster.boot(&lab, node)?;
    cluster.wait_ready(Duration::from_mins(1))?;
    println!("all nodes are ready {:.1?} after the boot", begun.elapsed());
    let after = cluster.wait_pods("default", "app=idle", 3)?;
    ensure!(
        text(&after[0], "/metadata/uid")? == text(&before[0], "/metadata/uid")?,
        "another pod: {:#}",
        after[0]
    );
    let restarts = after[0].pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64);
    ensure!(restarts == Some(1), "{:#}", after[0]);
    let (from, to) = (text(&after[1], "/metadata/name")?, text(&after[0], "/status/podIP")?);
    let said = cluster.kubectl(&["exec", from, "--", "ping", "-c", "3", "-W", "2", to])?;
    ensure!(said.contains("3 packets transmitted, 3 packets received"), "{said}");

    drop(cluster);
    lab.shutdown()
}

/// One pod of the nodes' own network on each node, which may read pods.
const READER: &str = r#"apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: reader}
spec:
  selector: {matchLabels: {app: reader}}
  template:
    metadata: {labels: {app: reader}}
    spec:
      serviceAccountName: reader
      hostNetwork: true
      terminationGracePeriodSeconds: 0
      containers: [{name: reader, image: "lab.example/base:1"}]
"#;

/// Asks the API server as a service, from inside the node, which trusts it by the authority of the cluster.
fn ask(node: &Node, token: &str, path: &str) -> Result<(String, Value)> {
    let said = node.run(&[
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "5",
        "--cacert",
        "/etc/kubernetes/pki/ca.crt",
        "--header",
        &format!("Authorization: Bearer {token}"),
        "--write-out",
        "\n%{http_code}",
        &format!("https://10.43.0.1/api/v1/{path}"),
    ])?;
    let (body, status) = said.rsplit_once('\n').context("no status")?;
    Ok((status.to_owned(), serde_json::from_str(body).with_context(|| body.to_owned())?))
}

#[test]
fn a_service_account_reads_what_it_may_through_the_service_of_the_api_server() -> Result<()> {
    let (lab, cluster, _) = start()?;
    cluster.apply(READER)?;
    let pods = cluster.wait_pods("default", "app=reader", 3)?;
    for (pod, node) in pods.iter().zip(lab.nodes()) {
        ensure!(text(pod, "/status/podIP")? == node.address(false)?.to_string(), "{pod:#}");
        let name = text(pod, "/metadata/name")?;
        let mounted = |file: &str| {
            let path = format!("/var/run/secrets/kubernetes.io/serviceaccount/{file}");
            cluster.kubectl(&["exec", name, "--", "cat", &path])
        };
        ensure!(mounted("ca.crt")? == node.run(&["cat", "/etc/kubernetes/pki/ca.crt"])?, "another authority");
        let token = mounted("token")?;
        let (status, list) =
            ask(node, &token, &format!("pods?fieldSelector=spec.nodeName%3D{}", node.name()))?;
        let items = list["items"].as_array().with_context(|| format!("no items in {list:#}"))?;
        ensure!(
            status == "200" && items.len() == 1 && text(&items[0], "/metadata/name")? == name,
            "{list:#}"
        );
        let (status, refusal) = ask(node, &token, "secrets")?;
        ensure!(status == "403", "{refusal:#}");
    }
    drop(cluster);
    lab.shutdown()
}
