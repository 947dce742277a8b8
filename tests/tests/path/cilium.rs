//! Cilium's pod network as a layer: the kernel's tables have its devices and prefixes, the API whose they are.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::control_plane::Options;
use lab::etcd::Version;
use lab::scrape::Samples;
use lab::witness::{self, measured};
use lab::{
    Agent, AgentOptions, ControlPlane, Etcd, EtcdOptions, Kubectl, Lab, LabOptions, Place as _, cilium,
    exchange, wait_until,
};
use serde_json::json;

use super::tunnel::{ride, route};
use crate::path::round_trip::{Pace, Stage, compare};
use crate::path::truth::Place as Seen;
use crate::{LAYERS, after};

/// The time for what agents and the API server notice by themselves: a pause after a failure is 15 s at most.
const LIMIT: Duration = Duration::from_secs(40);
const RESOURCE: &str = "ciliumnodes";
const OTHER: &str = "node2";

/// Two nodes with Cilium's network and an API server on the first, which does not know of Cilium yet.
struct Stand {
    kubectl: Kubectl,
    plane: ControlPlane,
    _etcd: Etcd,
    lab: Lab,
}

fn stand() -> Result<Stand> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: None })?;
    let etcd =
        Etcd::start(&lab, &EtcdOptions { members: 1, version: Version::V3_6, ..EtcdOptions::default() })?;
    let plane = ControlPlane::start(lab.node(1)?, &etcd, &Options::default())?;
    cilium::lay(&lab)?;
    lab.node(2)?.own_etc()?;
    let kubectl = plane.kubectl()?;
    lab.nodes().iter().try_for_each(|node| kubectl.join(node, &json!({}), &json!({})))?;
    Ok(Stand { kubectl, plane, _etcd: etcd, lab })
}

impl Stand {
    fn agent(&self, index: u8, arguments: &[&str]) -> Result<Agent> {
        let node = self.lab.node(index)?;
        let kubeconfig = format!("--kubernetes.kubeconfig={}", self.plane.log_in(node)?);
        let arguments = [kubeconfig.as_str()].iter().chain(arguments).map(ToString::to_string).collect();
        Agent::start(node, &AgentOptions { arguments, ..AgentOptions::default() })
    }

    /// As if Cilium came to the cluster.
    fn install(&self) -> Result<()> {
        self.kubectl.apply(cilium::definition())?;
        self.kubectl.run(&[
            "wait",
            "--for=condition=established",
            "--timeout=30s",
            "crd/ciliumnodes.cilium.io",
        ])?;
        let objects = self.lab.nodes().iter().map(cilium::object).collect::<Result<String>>()?;
        // The API server serves the resource a moment after it says so.
        let mut last = Ok(());
        let waited = wait_until("CiliumNodes to be taken", LIMIT, || {
            last = self.kubectl.apply(&objects);
            last.is_ok()
        });
        waited.with_context(|| format!("{last:?}"))
    }
}

fn watched(page: &Samples) -> Option<u64> {
    page.count("leadline_kubernetes_watch_up", &[("resource", RESOURCE)])
}

fn route_missing(page: &Samples) -> Option<u64> {
    let labels = [("device", cilium::TUNNEL), ("peer_node", OTHER), ("entry", "route")];
    page.count("leadline_overlay_entries_missing", &labels)
}

#[test]
fn round_trips_devices_and_sizes_of_ciliums_overlay_are_those_of_the_kernel() -> Result<()> {
    let stand = stand()?;
    stand.install()?;
    let probing = ["--collector.path=on", "--path.interval=10ms"];
    let (agent, _other) = (stand.agent(1, &probing)?, stand.agent(2, &probing)?);
    agent.wait_page("answers on both layers", LIMIT, "leadline_path_", |page| {
        LAYERS.iter().all(|layer| {
            page.count("leadline_path_reachable", &[("layer", layer), ("peer_node", OTHER)]) == Some(1)
        })
    })?;
    after(&agent, "overlay", 300)?;
    let stage = Stage { name: "Cilium", place: Seen::Cilium, least: Duration::ZERO, pace: Pace::SLOW };
    measured(|| compare(&stand.lab, &agent, &stage))?;

    let (node, other) = (stand.lab.node(1)?, stand.lab.node(2)?);
    let devices =
        [cilium::address(other).into(), other.address(false)?].map(|to: IpAddr| route(node, &to.to_string()));
    let [inner, outer] = devices;
    let (page, _) = agent.wait_page("the size that passes", LIMIT, "leadline_path_", |page| {
        page.count("leadline_path_mtu_bytes", &[("layer", "overlay")]) == Some(cilium::MTU.into())
    })?;
    assert_eq!(ride(&page, "overlay"), Some([inner?, outer?]));
    for (name, value) in [("nested", 0), ("promised_mtu_bytes", cilium::MTU.into()), ("mtu_black_hole", 0)] {
        assert_eq!(
            page.count(&format!("leadline_path_{name}"), &[("layer", "overlay")]),
            Some(value),
            "{name}"
        );
    }
    drop((agent, stand.plane));
    stand.lab.shutdown()
}

#[test]
fn whose_prefix_it_is_comes_with_cilium_and_its_packets_are_those_of_the_device() -> Result<()> {
    let stand = stand()?;
    let (node, other) = (stand.lab.node(1)?, stand.lab.node(2)?);
    // The devices' own announcements (IPv6 router solicitations) belong to no node.
    for node in [node, other] {
        node.run(&["sysctl", "-qw", "net.ipv6.conf.cilium_vxlan.disable_ipv6=1"])?;
    }
    let agent = stand.agent(1, &[])?;
    // The device is there, and the API does not know the resource.
    let failed = [("resource", RESOURCE), ("reason", "refused")];
    let (page, _) = agent.wait_page("a refusal", LIMIT, "leadline_kubernetes_", |page| {
        page.count("leadline_kubernetes_failures_total", &failed).is_some_and(|count| count > 0)
    })?;
    assert_eq!((watched(&page), route_missing(&page)), (Some(0), None));
    let overlay = [("backend", "cilium"), ("device", cilium::TUNNEL)];
    assert_eq!(page.count("leadline_overlay_info", &overlay), Some(1));

    stand.install()?;
    agent.wait_page("the other node's prefix", LIMIT, "leadline_", |page| {
        (watched(page), route_missing(page)) == (Some(1), Some(0))
    })?;
    let counted = || -> Result<[u64; 4]> {
        let page = agent.scrape()?;
        let names = ["receive_packets", "receive_bytes", "transmit_packets", "transmit_bytes"];
        let labels = [("device", cilium::TUNNEL), ("peer_node", OTHER)];
        let read = names.map(|name| page.count(&format!("leadline_overlay_{name}_total"), &labels));
        let [Some(a), Some(b), Some(c), Some(d)] = read else { anyhow::bail!("no counts: {read:?}") };
        Ok([a, b, c, d])
    };
    let device = || -> Result<[u64; 4]> {
        let device = witness::device(node, cilium::TUNNEL)?;
        Ok([device.receive_packets, device.receive_bytes, device.transmit_packets, device.transmit_bytes])
    };
    let (told, seen) = (counted()?, device()?);
    let [own, to] = [node, other].map(|node| cilium::address(node).into());
    exchange::datagrams((node, own), (other, to), 200, 500)?;
    let grown = |before: [u64; 4], after: [u64; 4]| [0, 1, 2, 3].map(|part| after[part] - before[part]);
    let told = grown(told, counted()?);
    assert_eq!(told, grown(seen, device()?));
    assert_eq!(told, [200, 200 * 528, 200, 200 * 528]);

    let lost = format!("{} dev {}", cilium::pods(other), cilium::HOST);
    node.ip(&format!("route del {lost}\n"))?;
    agent.wait_page("a lost route", LIMIT, "leadline_overlay_", |page| route_missing(page) == Some(1))?;
    drop((agent, stand.plane));
    stand.lab.shutdown()
}
