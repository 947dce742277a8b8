//! The tunnel as a layer of its own between the same nodes, and which layer rides on which.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::flannel::FlannelRun;
use lab::scrape::Samples;
use lab::witness::measured;
use lab::{Agent, AgentOptions, Delay, Lab, Node, Place as _, Tailnet, tailnet, wait_until};
use serde_json::Value;

use crate::path::round_trip::{Pace, Stage, compare};
use crate::path::truth::Place as Seen;
use crate::{LIMIT, after, start};

/// The address of node 2 on the overlay.
const OVERLAY: &str = "10.42.2.0";
const LAYERS: [&str; 3] = ["underlay", "tunnel", "overlay"];

/// Agents on both nodes, which know each other's names, with answers on all three layers.
pub(super) fn mesh(lab: &Lab) -> Result<[Agent; 2]> {
    let agent = |node: &Node, other: &Node| {
        let file = lab.scratch().join(format!("{}.yaml", node.name()));
        let (name, address) = (other.name(), other.address(false)?);
        let peers = format!("peers:\n  nodes:\n    - name: {name}\n      addresses: [{address}]\n");
        std::fs::write(&file, peers).context("write the configuration")?;
        let file = format!("--config.file={}", file.display());
        let arguments = vec![file, "--collector.path=on".into(), "--path.interval=10ms".into()];
        Agent::start(node, &AgentOptions { arguments, ..AgentOptions::default() })
    };
    let agents = [agent(lab.node(1)?, lab.node(2)?)?, agent(lab.node(2)?, lab.node(1)?)?];
    for agent in &agents {
        wait_reachable(agent, [1; 3])?;
        // Probes from before the other agent began are told as lost two seconds after its first answer.
        after(agent, "tunnel", 300)?;
    }
    Ok(agents)
}

/// Waits until the other node is reachable or not on each layer.
fn wait_reachable(agent: &Agent, wanted: [u64; 3]) -> Result<()> {
    let what = format!("{LAYERS:?} to be reachable as {wanted:?}");
    let waited = agent.wait_page(&what, LIMIT, "leadline_path_", |page| {
        LAYERS.map(|layer| page.count("leadline_path_reachable", &[("layer", layer)])) == wanted.map(Some)
    });
    waited.map(drop)
}

/// The device and the carrier that the agent names on a layer.
pub(super) fn ride(page: &Samples, layer: &str) -> Option<[String; 2]> {
    let info = page.only("leadline_path_device_info", &[("layer", layer)])?;
    Some([info.label("device")?.to_owned(), info.label("carrier")?.to_owned()])
}

/// The device by which the kernel sends to an address.
pub(super) fn route(node: &Node, to: &str) -> Result<String> {
    let said = node.run(&["ip", "-json", "route", "get", to])?;
    let routes: Value = serde_json::from_str(&said)?;
    routes[0]["dev"].as_str().map(ToOwned::to_owned).with_context(|| said)
}

/// Where the VXLAN device of a node sends what is for that address of the overlay.
fn endpoint(node: &Node, to: &str) -> Result<String> {
    let said = node.run(&["ip", "-json", "neigh", "show", to, "dev", "flannel.1"])?;
    let neighbours: Value = serde_json::from_str(&said)?;
    let vtep = neighbours[0]["lladdr"].as_str().with_context(|| said)?;
    let said = node.run(&["bridge", "-json", "fdb", "show", "dev", "flannel.1"])?;
    let entries: Vec<Value> = serde_json::from_str(&said)?;
    let entry = entries.iter().find(|entry| entry["mac"] == vtep);
    entry.and_then(|entry| entry["dst"].as_str()).map(ToOwned::to_owned).with_context(|| said)
}

/// Moves the pod network to a device and waits until node 1 has heard from node 2 where it is to send to.
pub(super) fn carry(flannel: &mut FlannelRun, lab: &Lab, device: &str, address: IpAddr) -> Result<()> {
    flannel.move_to(lab.switch()?, lab.nodes(), device)?;
    let (node, mut last) = (lab.node(1)?, Ok(String::new()));
    let waited = wait_until(&format!("VXLAN to be sent to {address}"), LIMIT, || {
        last = endpoint(node, OVERLAY);
        matches!(&last, Ok(now) if *now == address.to_string())
    });
    let mut log = |node| flannel.daemon(node).map(|daemon| daemon.log_tail(20)).unwrap_or_default();
    let logs = [log(node), log(lab.node(2)?)];
    waited.with_context(|| format!("last seen: {last:?}; {}", logs.join("\n")))
}

/// Waits until the agent names on each layer the devices that `ip route get` names.
fn wait_rides(lab: &Lab, agent: &Agent) -> Result<Samples> {
    let (node, other) = (lab.node(1)?, lab.node(2)?);
    let tunnel = tailnet::address(other)?.to_string();
    let sent_to = tailnet::peer(node, other)?["CurAddr"].as_str().unwrap_or_default().to_owned();
    let sent_to = sent_to.rsplit_once(':').context("the tunnel is not direct")?.0.to_owned();
    let expected = [
        [route(node, &other.address(false)?.to_string())?, String::new()],
        [route(node, &tunnel)?, route(node, &sent_to)?],
        [route(node, OVERLAY)?, route(node, &endpoint(node, OVERLAY)?)?],
    ];
    let (page, _) = agent.wait_page(&format!("{expected:?}"), LIMIT, "leadline_path_device", |page| {
        LAYERS.map(|layer| ride(page, layer)) == expected.clone().map(Some)
    })?;
    Ok(page)
}

fn nested(page: &Samples) -> [Option<u64>; 3] {
    LAYERS.map(|layer| page.count("leadline_path_nested", &[("layer", layer)]))
}

#[test]
fn the_median_round_trip_of_the_tunnel_is_tcpdumps() -> Result<()> {
    let lab = start()?;
    let tailnet = Tailnet::start(&lab)?;
    let [agent, _other] = mesh(&lab)?;
    let stage = |name, least| Stage { name, place: Seen::Tunnel, least, pace: Pace::SLOW };
    measured(|| compare(&lab, &agent, &stage("no delay", Duration::ZERO)))?;
    let ms = Duration::from_millis;
    let delay = Delay::insert_asymmetric(&lab, lab.node(2)?, [ms(8), ms(2)])?;
    measured(|| compare(&lab, &agent, &stage("2 ms there, 8 ms back", ms(10))))?;
    drop((delay, tailnet));
    lab.shutdown()
}

#[test]
fn a_daemon_that_dies_takes_the_tunnel_alone() -> Result<()> {
    let lab = start()?;
    let mut tailnet = Tailnet::start(&lab)?;
    let [agent, _other] = mesh(&lab)?;
    // tailscaled may take the way through the overlay, whose addresses it offers to its peers like any others.
    let page = wait_rides(&lab, &agent)?;
    let [_, carrier] = ride(&page, "tunnel").context("the tunnel leaves by nothing")?;
    assert_eq!(nested(&page), [Some(0), Some(u64::from(carrier == "flannel.1")), Some(0)], "{carrier}");
    tailnet.stop(lab.node(2)?)?;
    wait_reachable(&agent, [1, 0, 1])?;
    tailnet.run(lab.node(2)?)?;
    wait_reachable(&agent, [1; 3])?;
    // Also where it is this node's own that dies, and its device with it.
    tailnet.stop(lab.node(1)?)?;
    wait_reachable(&agent, [1, 0, 1])?;
    tailnet.run(lab.node(1)?)?;
    wait_reachable(&agent, [1; 3])?;
    for kind in ["path_lost", "path_back"] {
        let layers: Vec<Value> =
            agent.events(kind)?.into_iter().map(|event| event["details"]["layer"].clone()).collect();
        ensure!(layers.len() == 2 && layers.iter().all(|layer| layer == "tunnel"), "{kind}: {layers:?}");
    }
    drop(tailnet);
    lab.shutdown()
}

#[test]
fn an_overlay_that_moves_into_the_tunnel_is_nested_until_it_moves_back() -> Result<()> {
    let mut lab = start()?;
    let mut flannel = lab.take_flannel()?;
    let kept_out = [tailnet::keep_out_of_overlay(lab.node(1)?)?, tailnet::keep_out_of_overlay(lab.node(2)?)?];
    let tailnet = Tailnet::start(&lab)?;
    let [agent, _other] = mesh(&lab)?;
    assert_eq!(nested(&wait_rides(&lab, &agent)?), [Some(0); 3]);
    let other = lab.node(2)?;
    carry(&mut flannel, &lab, "tailscale0", tailnet::address(other)?)?;
    let page = wait_rides(&lab, &agent)?;
    assert_eq!(ride(&page, "overlay"), Some(["flannel.1".into(), "tailscale0".into()]));
    assert_eq!(nested(&page), [Some(0), Some(0), Some(1)]);
    wait_reachable(&agent, [1; 3])?;
    carry(&mut flannel, &lab, "eth0", other.address(false)?)?;
    assert_eq!(nested(&wait_rides(&lab, &agent)?), [Some(0); 3]);
    let of_overlay = |kind: &str| -> Result<Vec<Value>> {
        let events = agent.events(kind)?;
        Ok(events.into_iter().filter(|event| event["details"]["layer"] == "overlay").collect())
    };
    let (told, ended) = (of_overlay("path_nested")?, of_overlay("path_unnested")?);
    ensure!(told.len() == 1 && told[0]["details"]["carrier"] == "tailscale0", "{told:?}");
    // While there is no device the address is routed like any other.
    ensure!(ended.len() == 1, "{ended:?}");
    drop((flannel, tailnet, kept_out));
    lab.shutdown()
}
