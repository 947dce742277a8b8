//! Pods' packets in the tailnet: by routes through it, as `k3s --vpn-auth` has them, and by VXLAN on its device.

use std::net::IpAddr;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::flannel::FlannelRun;
use lab::scrape::Samples;
use lab::{
    Agent, AgentOptions, Backend, Firewall, Flannel, Lab, LabOptions, Node, Place as _, Pod, PodSpec,
    Tailnet, process, tailnet, wait_until, witness,
};
use serde_json::Value;

use super::tunnel::{carry, mesh};
use crate::start;

/// The time for a check of sizes, a search, and its confirmation; daemons are quicker.
const LIMIT: Duration = Duration::from_mins(1);
const TUNNEL: &str = "tailscale0";
const OVERLAY: &str = "flannel.1";

/// Two nodes in a tailnet through which flanneld has their pods' packets routed.
fn routed(lab: &Lab) -> Result<(Tailnet<'_>, FlannelRun)> {
    let tailnet = Tailnet::start(lab)?;
    let options = Flannel { backend: Backend::Tailscale, ipv6: false };
    let flannel = FlannelRun::start(options, lab.switch()?, lab.nodes())?;
    for node in lab.nodes() {
        tailnet.approve_routes(node, &pods(node))?;
    }
    for (node, other) in [(lab.node(1)?, lab.node(2)?), (lab.node(2)?, lab.node(1)?)] {
        let what = format!("{} to have a route to the other pods", node.name());
        let wanted = pods(other);
        wait_until(&what, LIMIT, || {
            let routes = node.run(&["ip", "route", "show", "table", "52"]).unwrap_or_default();
            routes.contains(&wanted)
        })?;
    }
    Ok((tailnet, flannel))
}

fn pods(node: &Node) -> String {
    format!("10.42.{}.0/24", node.index())
}

/// Datagrams there and back, which the other end answers to whom it sees: its node has put its own address there.
fn exchange(from: &Pod, to: &Pod, count: u64) -> Result<()> {
    let open = |pod: &Pod| -> Result<UdpSocket> {
        let address = pod.address(false)?;
        let socket = pod.net(|| UdpSocket::bind((address, 0)))??;
        socket.set_read_timeout(Some(process::SHORT))?;
        Ok(socket)
    };
    let (one, other) = (open(from)?, open(to)?);
    let mut buffer = [0; 501];
    for _ in 0..count {
        one.send_to(&[0; 500], other.local_addr()?)?;
        let (length, seen) = other.recv_from(&mut buffer).context("a datagram is lost")?;
        ensure!(length == 500, "{length} bytes");
        other.send_to(&[0; 500], seen)?;
        ensure!(one.recv(&mut buffer).context("an answer is lost")? == 500, "another answer");
    }
    Ok(())
}

/// Packets and bytes that were received and sent.
fn counted(page: &Samples, peer: &str) -> Option<[u64; 4]> {
    let labels = [("device", TUNNEL), ("peer_node", peer)];
    let of = |name| page.count(&format!("leadline_overlay_{name}_total"), &labels);
    let [a, b, c, d] = ["receive_packets", "receive_bytes", "transmit_packets", "transmit_bytes"].map(of);
    Some([a?, b?, c?, d?])
}

#[test]
fn pods_routed_through_the_tailnet_are_counted_for_the_node_behind_it() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: None })?;
    let (tailnet, flannel) = routed(&lab)?;
    let (node, other) = (lab.node(1)?, lab.node(2)?);
    let (here, there) = (node.pod(PodSpec::new("here"))?, other.pod(PodSpec::new("there"))?);
    // Whoever is known by its address there: nobody names the node.
    let peer = tailnet::address(other)?.to_string();
    let agent = Agent::start(node, &AgentOptions::default())?;
    let (page, _) = agent.wait_page("the node behind the pods", LIMIT, "leadline_overlay_", |page| {
        counted(page, &peer).is_some()
    })?;
    let info = [("backend", "extension"), ("device", TUNNEL)];
    assert_eq!(page.count("leadline_overlay_info", &info), Some(1));
    let link: Value = serde_json::from_str(&node.run(&["ip", "-json", "link", "show", "dev", TUNNEL])?)?;
    assert_eq!(page.count("leadline_overlay_mtu_bytes", &[("device", TUNNEL)]), link[0]["mtu"].as_u64());

    let read = || counted(&agent.scrape()?, &peer).context("no counts");
    let device = || -> Result<[u64; 4]> {
        let device = witness::device(node, TUNNEL)?;
        Ok([device.receive_packets, device.receive_bytes, device.transmit_packets, device.transmit_bytes])
    };
    let (told, seen) = (read()?, device()?);
    exchange(&here, &there, 200)?;
    let grown = |before: [u64; 4], after: [u64; 4]| [0, 1, 2, 3].map(|part| after[part] - before[part]);
    let told = grown(told, read()?);
    assert_eq!(told, [200, 200 * 528, 200, 200 * 528]);
    assert_eq!(told, grown(seen, device()?));
    drop((agent, here, there, flannel, tailnet));
    lab.shutdown()
}

/// Promised, fitting and passing bytes of a layer, and whether that is a hole.
fn sizes(page: &Samples, layer: &str) -> [Option<u64>; 4] {
    let names = ["promised_mtu_bytes", "fitting_mtu_bytes", "mtu_bytes", "mtu_black_hole"];
    names.map(|name| page.count(&format!("leadline_path_{name}"), &[("layer", layer)]))
}

fn wait_sizes(agent: &Agent, layer: &str, wanted: [u64; 4]) -> Result<()> {
    let what = format!("{layer}: {wanted:?}");
    agent.wait_page(&what, LIMIT, "leadline_path_", |page| sizes(page, layer) == wanted.map(Some)).map(drop)
}

/// Whether a ping of a packet of so many bytes is answered.
fn passes(node: &Node, to: IpAddr, bytes: u64) -> bool {
    let (to, data) = (to.to_string(), (bytes - 28).to_string());
    node.run(&["ping", "-q", "-M", "do", "-c", "3", "-i", "0.2", "-W", "1", "-s", &data, &to]).is_ok()
}

/// A tunnel whose device promises what fits into no packet of the underlay: tailscaled's packets are cut, and who drops
/// fragments makes a hole of it.
#[test]
fn a_tunnel_with_too_large_an_mtu_is_a_hole_where_fragments_are_dropped() -> Result<()> {
    let lab = start()?;
    let kept_out = [tailnet::keep_out_of_overlay(lab.node(1)?)?, tailnet::keep_out_of_overlay(lab.node(2)?)?];
    let tailnet = Tailnet::start(&lab)?;
    let [agent, _other] = mesh(&lab)?;
    wait_sizes(&agent, "tunnel", [1_280, 1_440, 1_280, 0])?;
    for node in lab.nodes() {
        node.ip(&format!("link set {TUNNEL} mtu 1500\n"))?;
    }
    wait_sizes(&agent, "tunnel", [1_500, 1_440, 1_500, 0])?;
    let rule =
        "chain cut { type filter hook forward priority 0;\nip frag-off & 0x3fff != 0 counter drop\n}\n";
    let fragments = Firewall::add(lab.switch()?, "bridge", "fragments", rule)?;
    wait_sizes(&agent, "tunnel", [1_500, 1_440, 1_440, 1])?;
    ensure!(fragments.counted()? > 0, "nothing was cut");
    let (node, to) = (lab.node(1)?, tailnet::address(lab.node(2)?)?);
    assert_eq!([1_440, 1_441].map(|bytes| passes(node, to, bytes)), [true, false]);
    drop((fragments, agent, tailnet, kept_out));
    lab.shutdown()
}

#[test]
fn vxlan_in_the_tailnet_goes_with_its_device_and_that_is_said() -> Result<()> {
    let mut lab = start()?;
    let mut flannel = lab.take_flannel()?;
    let kept_out = [tailnet::keep_out_of_overlay(lab.node(1)?)?, tailnet::keep_out_of_overlay(lab.node(2)?)?];
    let mut tailnet = Tailnet::start(&lab)?;
    let [agent, _other] = mesh(&lab)?;
    wait_sizes(&agent, "overlay", [1_450, 1_450, 1_450, 0])?;
    carry(&mut flannel, &lab, TUNNEL, tailnet::address(lab.node(2)?)?)?;
    wait_sizes(&agent, "overlay", [1_230, 1_230, 1_230, 0])?;
    let nested = agent.events("path_nested")?;
    let said = nested.iter().map(|event| event["details"]["fitting_mtu_bytes"].clone());
    assert_eq!(said.collect::<Vec<_>>(), ["1230"]);

    let node = lab.node(1)?;
    tailnet.stop(node)?;
    tailnet.run(node)?;
    let removed = || agent.events("overlay_device_removed").unwrap_or_default();
    let gone = |event: &Value| event["subject"] == OVERLAY && event["details"]["gone_with"] == TUNNEL;
    wait_until("the end of the overlay to be told", LIMIT, || removed().iter().any(gone))?;
    // tailscaled is back, and flanneld does not see what it has lost.
    tailnet.wait_status(node, "to run again", |status| status["BackendState"] == "Running")?;
    ensure!(node.run(&["ip", "link", "show", "dev", OVERLAY]).is_err(), "flanneld has made its device anew");
    flannel.restart_daemon(node)?;
    wait_sizes(&agent, "overlay", [1_230, 1_230, 1_230, 0])?;
    drop((agent, flannel, tailnet, kept_out));
    lab.shutdown()
}
