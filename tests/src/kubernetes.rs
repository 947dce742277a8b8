//! A Kubernetes cluster of three nodes: on every node of a lab that was started for containers a member of etcd, a control
//! plane, a kubelet with its containerd, flanneld and kube-proxy, all of them real.
//!
//! HAProxy has port 6443 of every node and is in front of all API servers, and keepalived has the virtual address by which
//! nodes and clients reach it. Node N is called `nodeN` and has the pod network 10.42.N.0/24; services are in 10.43.0.0/16. What kubectl says is the
//! witness. Images come from archives that the lab makes, since there is no registry.

mod balancer;
pub mod dns;
mod image;
mod network;
mod power;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::Lab;
use crate::control_plane::pki::{self, Pki};
use crate::control_plane::{ControlPlane, Options, Part};
use crate::etcd::authority::Subject;
use crate::etcd::{Etcd, EtcdOptions, Version};
use crate::haproxy::Haproxy;
use crate::keepalived::{self, Trio};
use crate::kubectl::{Kubectl, is_ready, items};
use crate::kubelet::{self, Kubelet, Pods};
use crate::node::Node;
use crate::place::Place as _;
use crate::{process, tools};
use balancer::Pace;
use network::Network;

pub use image::{BASE, Image};

/// The time for what a cluster does by itself, such as to start a pod, on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

/// The clients of an API server in each control plane.
const CLIENTS: [Part; 2] = [Part::ControllerManager, Part::Scheduler];

/// How often the owner of the virtual address says so. With less a busy machine would take it away.
const ADVERT: Duration = Duration::from_secs(1);

/// A running cluster. Dropping it kills its daemons; containers go with the lab.
#[derive(Debug)]
pub struct Kubernetes {
    kubectl: Kubectl,
    nodes: Vec<Node>,
    pki: Pki,
    // Each before what it needs, since they are dropped in this order. A node that is off has none of the first three.
    networks: BTreeMap<u8, Network>,
    kubelets: BTreeMap<u8, Kubelet>,
    balancers: BTreeMap<u8, Haproxy>,
    vip: Trio,
    planes: BTreeMap<u8, ControlPlane>,
    etcd: Etcd,
}

impl Kubernetes {
    /// Starts a cluster without any pod on the nodes of the lab, and waits until all of them are ready.
    pub fn start(lab: &Lab) -> Result<Self> {
        let nodes = lab.nodes();
        ensure!(nodes.len() == 3, "the cluster has three nodes, not {}", nodes.len());
        let has_network = nodes.iter().any(|node| node.subnet().is_ok());
        ensure!(!has_network, "the cluster brings a pod network: start the lab without one");
        let etcd = Etcd::start(lab, &EtcdOptions { version: Version::V3_6, ..EtcdOptions::default() })?;
        let directory = lab.scratch().join("kubernetes");
        let pki = Pki::new(directory.clone())?;
        let mut planes = furnish_planes(nodes, &etcd, &pki)?;
        planes.values_mut().try_for_each(|plane| plane.run(Part::ApiServer))?;
        // While these start.
        let mut kubelets = furnish_kubelets(nodes, &image::base(&directory)?)?;
        let kubectl = Kubectl::new(lab.switch()?, pki.administrator(&url())?);
        let balancers = each(nodes, |node| balancer::start(node, nodes, Pace::Quick))?;
        let vip = Trio::start(lab, &keepalived::Spec { interval: ADVERT, ..keepalived::Spec::default() })?;
        wait_well(&mut planes, Part::ApiServer)?;
        let api = || kubectl.run(&["get", "--raw=/readyz"]).is_ok();
        process::wait_until("an API server behind the virtual address", LIMIT, api)?;

        let objects = nodes.iter().map(network::node_object).collect::<Result<String>>()?;
        kubectl.apply(&format!("{}{objects}", network::RIGHTS))?;
        for part in CLIENTS {
            planes.values_mut().try_for_each(|plane| plane.run(part))?;
        }
        let networks = start_networks(nodes, &pki)?;
        for node in nodes {
            let user = Subject::client(&format!("system:node:{}", node.name())).in_group("system:nodes");
            pki.join(node, kubelet::KUBECONFIG, &user, &url())?;
        }
        kubelets.values_mut().try_for_each(Kubelet::run)?;
        CLIENTS.iter().try_for_each(|part| wait_well(&mut planes, *part))?;
        kubelets.values_mut().try_for_each(Kubelet::wait_well)?;
        let nodes = nodes.to_vec();
        let cluster = Self { kubectl, nodes, pki, networks, kubelets, balancers, vip, planes, etcd };
        cluster.wait_ready(LIMIT)?;
        Ok(cluster)
    }

    /// Runs kubectl as the administrator, from outside of the nodes.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl.run(arguments)
    }

    /// What kubectl gets, such as `["pods", "--all-namespaces"]`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        self.kubectl.get(arguments)
    }

    /// Has the objects of a manifest made or changed.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl.apply(manifest)
    }

    /// The kubeconfig of the administrator. Its paths are right on this machine and on all nodes.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        self.kubectl.kubeconfig()
    }

    /// Where clients reach an API server, and the certificate of the authority by which they trust it.
    pub(crate) fn api(&self) -> (String, PathBuf) {
        (url(), self.kubectl.kubeconfig().with_file_name("pki").join(pki::CA))
    }

    /// Puts the kubeconfig of a user on a node, with no more rights than the user is given; answers with its path there.
    pub fn log_in(&self, node: &Node, user: &str) -> Result<String> {
        self.pki.join(node, &format!("{user}.conf"), &Subject::client(user), &url())?;
        Ok(format!("/etc/kubernetes/{user}.conf"))
    }

    /// Waits until the API says of all nodes that they are ready.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let mut last = Ok(Value::Null);
        let waited = process::wait_until("all nodes to be ready", limit, || {
            last = self.get(&["nodes"]);
            let nodes = last.as_ref().map(items).unwrap_or_default();
            nodes.len() == self.nodes.len() && nodes.iter().all(is_ready)
        });
        waited.with_context(|| format!("{last:#?}"))
    }

    /// Waits until the API says of a node that it is not ready.
    pub fn wait_lost(&self, node: &Node, limit: Duration) -> Result<()> {
        let mut last = Ok(Value::Null);
        let waited = process::wait_until(&format!("{} not to be ready", node.name()), limit, || {
            last = self.get(&["node", node.name()]);
            last.as_ref().is_ok_and(|object| !is_ready(object))
        });
        waited.with_context(|| format!("{last:#?}"))
    }

    /// Waits until exactly `count` pods have that label, and all of them are ready; answers with them, ordered by node and name.
    pub fn wait_pods(&self, namespace: &str, label: &str, count: usize) -> Result<Vec<Value>> {
        let mut last = Ok(Value::Null);
        let waited = process::wait_for(&format!("{count} ready pods with {label}"), LIMIT, || {
            last = self.get(&["pods", "--namespace", namespace, "--selector", label]);
            let mut pods = last.as_ref().map(items).unwrap_or_default();
            let text = |pod: &Value, path: &str| pod.pointer(path).and_then(Value::as_str).map(str::to_owned);
            pods.sort_by_key(|pod| ["/spec/nodeName", "/metadata/name"].map(|path| text(pod, path)));
            (pods.len() == count && pods.iter().all(is_ready)).then_some(pods)
        });
        waited.with_context(|| format!("{last:#?}"))
    }

    /// Gives the images of an archive to a node, which then has no need of a registry for them.
    pub fn import(&self, node: &Node, archive: &Path) -> Result<()> {
        let kubelet = self.kubelets.get(&node.index());
        kubelet.with_context(|| format!("no kubelet runs on {}", node.name()))?.import(archive)
    }

    /// Gives the kubelet of a node a static pod: the API server is not asked, it only gets a mirror.
    pub fn add_static_pod(&self, node: &Node, name: &str, manifest: &str) -> Result<()> {
        node.write(&format!("{}/{name}.yaml", kubelet::STATIC_PODS), manifest)
    }

    /// The kubelet of a node.
    pub fn kubelet(&mut self, node: &Node) -> Result<&mut Kubelet> {
        let kubelet = self.kubelets.get_mut(&node.index());
        kubelet.with_context(|| format!("no kubelet runs on {}", node.name()))
    }

    /// The control plane of a node.
    pub fn control_plane(&mut self, node: &Node) -> Result<&mut ControlPlane> {
        let plane = self.planes.get_mut(&node.index());
        plane.with_context(|| format!("no control plane runs on {}", node.name()))
    }

    /// Has the virtual address given up by nodes whose HAProxy has no API server left, and lets HAProxy take its time to say
    /// so. A node that boots later is without both.
    pub fn guard_vip(&mut self) -> Result<()> {
        for node in &self.nodes {
            self.balancers.remove(&node.index());
            self.balancers.insert(node.index(), balancer::start(node, &self.nodes, Pace::Patient)?);
            self.vip.daemon(node.index())?.add_check(balancer::check())?;
        }
        Ok(())
    }

    /// Who has the virtual address.
    pub fn vip(&mut self) -> &mut Trio {
        &mut self.vip
    }

    /// The store of all control planes.
    pub fn etcd(&mut self) -> &mut Etcd {
        &mut self.etcd
    }
}

/// Makes something for each node, by its number.
fn each<T>(nodes: &[Node], make: impl Fn(&Node) -> Result<T>) -> Result<BTreeMap<u8, T>> {
    nodes.iter().map(|node| Ok((node.index(), make(node)?))).collect()
}

fn furnish_planes(nodes: &[Node], etcd: &Etcd, pki: &Pki) -> Result<BTreeMap<u8, ControlPlane>> {
    let options = Options { api_port: balancer::SERVER_PORT, ..Options::default() };
    each(nodes, |node| ControlPlane::furnish(node, etcd, &options, pki))
}

fn furnish_kubelets(nodes: &[Node], image: &Path) -> Result<BTreeMap<u8, Kubelet>> {
    let pods = pods()?;
    each(nodes, |node| {
        let kubelet = Kubelet::furnish(node, Some(&pods))?;
        kubelet.import(image)?;
        Ok(kubelet)
    })
}

fn pods() -> Result<Pods> {
    Ok(Pods { sandbox: BASE, plugins: tools::cni_plugins()? })
}

fn wait_well(planes: &mut BTreeMap<u8, ControlPlane>, part: Part) -> Result<()> {
    planes.values_mut().try_for_each(|plane| plane.wait_well(part))
}

fn start_networks(nodes: &[Node], pki: &Pki) -> Result<BTreeMap<u8, Network>> {
    let mut networks = each(nodes, |node| Network::start(node, pki, &url()))?;
    networks.values_mut().try_for_each(Network::wait_lease)?;
    Ok(networks)
}

/// Where the nodes and all others reach an API server.
fn url() -> String {
    format!("https://{}:6443", keepalived::VIP.address)
}
