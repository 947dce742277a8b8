//! Entries of flanneld for a node that the cluster does not have, against `ip`, `bridge` and kubectl.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::control_plane::Options;
use lab::etcd::Version;
use lab::scrape::Samples;
use lab::{Agent, AgentOptions, Backend, ControlPlane, Etcd, EtcdOptions, Kubectl, Node, Place as _};
use serde_json::{Value, json};

use crate::{DEVICE, ENTRIES, start};

const LIMIT: Duration = Duration::from_secs(40);

/// A node of the API with the address and the prefix of the lab's, which flannel has there.
fn join(kubectl: &Kubectl, node: &Node) -> Result<()> {
    let annotations = json!({"flannel.alpha.coreos.com/kube-subnet-manager": "true"});
    kubectl.join(node, &annotations, &json!({"podCIDR": format!("10.42.{}.0/24", node.index())}))
}

fn stale(page: &Samples) -> [Option<u64>; 3] {
    ENTRIES.map(|entry| page.count("leadline_overlay_entries_stale", &[("device", DEVICE), ("entry", entry)]))
}

/// What the kernel has of a kind on the device: the objects that `ip` and `bridge` print with that field and value.
fn count(node: &Node, command: &[&str], field: &str, value: &str) -> Result<u64> {
    let objects: Vec<Value> = serde_json::from_str(&node.run(command)?)?;
    Ok(objects.iter().filter(|object| object[field] == value).count() as u64)
}

/// The entries for a node: its pods' route, its neighbour and its endpoint.
fn entries_for(node: &Node, of: &Node) -> Result<[u64; 3]> {
    let (number, address) = (of.index(), of.address(false)?.to_string());
    Ok([
        count(
            node,
            &["ip", "-json", "route", "show", "dev", DEVICE],
            "dst",
            &format!("10.42.{number}.0/24"),
        )?,
        count(node, &["ip", "-json", "neigh", "show", "dev", DEVICE], "dst", &format!("10.42.{number}.0"))?,
        count(node, &["bridge", "-json", "fdb", "show", "dev", DEVICE], "dst", &address)?,
    ])
}

#[test]
fn entries_of_a_node_that_the_cluster_does_not_have_are_stale_until_it_has() -> Result<()> {
    let lab = start(Backend::Vxlan, false)?;
    let (node, gone) = (lab.node(1)?, lab.node(3)?);
    let etcd =
        Etcd::start(&lab, &EtcdOptions { members: 1, version: Version::V3_6, ..EtcdOptions::default() })?;
    let plane = ControlPlane::start(node, &etcd, &Options::default())?;
    let kubectl = plane.kubectl()?;
    let agent =
        |arguments: Vec<String>| Agent::start(node, &AgentOptions { arguments, ..AgentOptions::default() });
    let agent = agent(vec![format!("--kubernetes.kubeconfig={}", plane.log_in(node)?)])?;
    // An API without any node says nothing of which there are.
    agent.wait_page("the answer of the API", LIMIT, "leadline_kubernetes_", |page| {
        page.count("leadline_kubernetes_objects", &[("resource", "nodes")]) == Some(0)
    })?;
    assert_eq!(stale(&agent.scrape()?), [None; 3]);

    join(&kubectl, node)?;
    join(&kubectl, lab.node(2)?)?;
    let told = |wanted: [u64; 3]| {
        let what = format!("{wanted:?} stale entries");
        agent.wait_page(&what, LIMIT, "leadline_overlay_", |page| stale(page) == wanted.map(Some)).map(drop)
    };
    let left = entries_for(node, gone)?;
    assert_eq!(left, [1; 3], "flanneld has other entries than one of each kind");
    told(left)?;
    join(&kubectl, gone)?;
    told([0; 3])?;
    kubectl.run(&["delete", "node", gone.name()])?;
    told(entries_for(node, gone)?)?;

    // The node is at another address than flanneld has heard of.
    join(&kubectl, gone)?;
    told([0; 3])?;
    let neighbours = node.run(&["ip", "-json", "neigh", "show", "10.42.3.0", "dev", DEVICE])?;
    let neighbours: Value = serde_json::from_str(&neighbours)?;
    let vtep = neighbours[0]["lladdr"].as_str().context("no VTEP")?;
    node.run(&["bridge", "fdb", "replace", vtep, "dev", DEVICE, "dst", "192.168.56.99"])?;
    told([0, 0, 1])?;
    drop((agent, plane, etcd));
    lab.shutdown()
}
