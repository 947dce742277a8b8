//! A tailscaled in a pod, as a subnet router is one: what its socket says, where its directory is mounted; what the node's
//! uplink shows of it behind the address translation; and that the node is no end of its tunnel.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::tailnet::{ROUTER_SOCKET, Router, TRANSLATED, keep_out_of_overlay};
use lab::witness::measured;
use lab::witness::tcpdump::Capture;
use lab::{Agent, Flannel, Lab, LabOptions, Node, Place as _, Tailnet, tailnet};

use crate::LIMIT;
use crate::stage::{agent, of, path, wait_agreement, wait_page, witness_path};
use crate::wire::{compare_of, counted};

/// What must not be told of a tunnel that works.
const TROUBLE: [&str; 7] = [
    "tunnel_peer_silent",
    "tunnel_endpoint_silent",
    "tunnel_peer_lost",
    "tunnel_peer_nested",
    "tunnel_down",
    "path_lost",
    "path_nested",
];

/// An agent that probes the other node and knows it by its name, with further arguments.
fn observer(lab: &Lab, node: &Node, other: &Node, more: &[&str]) -> Result<Agent> {
    let file = lab.scratch().join(format!("{}.yaml", node.name()));
    let (name, address) = (other.name(), other.address(false)?);
    let peers = format!("peers:\n  nodes:\n    - name: {name}\n      addresses: [{address}]\n");
    fs::write(&file, peers).context("write the configuration")?;
    let file = format!("--config.file={}", file.display());
    agent(node, &[&[file.as_str(), "--collector.path=on"], more].concat())
}

/// The node is no end of the tunnel: nothing is probed there, and nothing was told.
fn check_quiet(agent: &Agent) -> Result<()> {
    let page = agent.scrape()?;
    let layers = |sample: &lab::scrape::Sample| sample.label("layer").map(ToOwned::to_owned);
    let probed: Vec<String> =
        page.of("leadline_path_probes_sent_total", |_| true).filter_map(layers).collect();
    ensure!(probed.iter().any(|layer| layer == "underlay"), "{probed:?}");
    let tunnel = page.all().iter().filter(|sample| {
        sample.name.starts_with("leadline_path_") && sample.label("layer") == Some("tunnel")
    });
    ensure!(tunnel.count() == 0, "the tunnel is probed: {probed:?}");
    for kind in TROUBLE {
        let events = agent.events(kind)?;
        ensure!(events.is_empty(), "{events:#?}");
    }
    Ok(())
}

fn endpoint(page: &Samples, peer: &str) -> Option<String> {
    let sample = page.only("leadline_tunnel_peer_endpoint", &[("peer", peer)])?;
    sample.label("endpoint").map(ToOwned::to_owned)
}

/// With its socket mounted: state, path and bytes as tailscale says, at both ends.
fn check_socket(router: &Router<'_>, one: &Agent, other: (&Agent, &Node)) -> Result<()> {
    let (beyond, two) = other;
    one.wait_support("tunnel", "supported", "", LIMIT)?;
    let (page, _) = wait_page(one, "a direct path", |page| path(page, two) == Some("direct"))?;
    ensure!(page.value("leadline_tunnel_state", &[("state", "running")]) == Some(1.0));
    let info = page.only("leadline_tunnel_info", &[]).context("no info")?;
    ensure!(info.label("socket") == Some(ROUTER_SOCKET), "{info:?}");
    ensure!(
        endpoint(&page, "node2").as_deref() == Some("192.168.56.12:41641"),
        "{:?}",
        endpoint(&page, "node2")
    );
    // The other node sends to a port that the translation has made.
    let (page, _) = wait_page(beyond, "the router at its node's address", |page| {
        let port = endpoint(page, "router")
            .and_then(|address| address.strip_prefix("192.168.56.11:")?.parse::<u16>().ok());
        port.is_some_and(|port| TRANSLATED.contains(&port)) && path(page, router) == Some("direct")
    })?;
    ensure!(witness_path(two, router)? == "direct");
    println!("node2 sends to {:?}", endpoint(&page, "router"));
    Ok(())
}

#[test]
fn a_router_in_a_pod_is_read_by_its_mounted_socket_and_seen_behind_the_translation() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel::default()) })?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    // No tunnel leads through the overlay, where nothing is translated.
    let kept_out = keep_out_of_overlay(two)?;
    let tailnet = Tailnet::start_on(&lab, &[two])?;
    let router = Router::start(&tailnet, one)?;
    router.wait_status("to know the node", LIMIT, |status| {
        status["Peer"].as_object().is_some_and(|peers| peers.len() == 1)
    })?;
    ensure!(!one.path("/run/tailscale").exists() && one.run(&["ip", "link", "show", "tailscale0"]).is_err());
    let reading = observer(&lab, one, two, &[&format!("--tunnel.socket={ROUTER_SOCKET}")])?;
    let beyond = observer(&lab, two, one, &[])?;
    let traffic = tailnet::traffic(two, &router)?;
    check_socket(&router, &reading, (&beyond, two))?;
    measured(|| compare_router(one, two, &router, &reading))?;
    check_quiet(&reading)?;
    check_quiet(&beyond)?;
    drop(traffic);
    let page = wait_agreement(&reading, &router, two)?;
    ensure!(of(&page, "receive_bytes_total", two) > Some(0.0) && of(&page, "one_way", two) == Some(0.0));
    wait_agreement(&beyond, two, &router)?;
    reading.sigterm()?;

    // Without its socket: what the uplink shows, by the address of the other end.
    let blind = observer(&lab, one, two, &[])?;
    let _traffic = tailnet::traffic(two, &router)?;
    wait_page(&blind, "round trips without tailscaled's word", |page| {
        counted(page, "node2").is_some_and(|[trips, ..]| trips > 0.0)
            && of(page, "reachable", two) == Some(1.0)
    })?;
    measured(|| compare_router(one, two, &router, &blind))?;
    // What is heard of peers is all that there is of a tunnel on this node.
    blind.wait_support("tunnel", "supported", "", LIMIT)?;
    let page = blind.scrape()?;
    ensure!(path(&page, two).is_none() && page.only("leadline_tunnel_info", &[]).is_none());
    check_quiet(&blind)?;
    drop((router, kept_out));
    lab.shutdown()
}

/// The round trips of the router's pings are tcpdump's at the uplink, where its packets have the translated port.
fn compare_router(one: &Node, two: &Node, router: &Router<'_>, agent: &Agent) -> Result<()> {
    let capture = Capture::start(one, "eth0", "udp src port 41641 and src host 192.168.56.11")?;
    let filter = format!("udp portrange {}-{}", TRANSLATED.start(), TRANSLATED.end());
    compare_of(one, [router, two], agent, &filter, Duration::ZERO)?;
    ensure!(capture.stop()?.is_empty(), "packets of the router leave untranslated");
    Ok(())
}
