//! The way by which a node sends to a peer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_until;
use lab::{Tailnet, tailnet};

use crate::stage::{agent, of, path, wait_agreement, wait_event, wait_page, witness_path};
use crate::{LIMIT, lab};

/// How long after tailscale itself the page may say it: a poll interval, an answer, and what a busy machine adds.
const LATE: Duration = Duration::from_secs(3);
/// How long an address may be silent before that is told, and what a busy machine adds.
const SILENT: Duration = Duration::from_millis(5_500);

#[test]
fn it_is_direct_and_idle_as_tailscale_says_with_the_same_bytes_and_handshakes() -> Result<()> {
    let lab = lab(3)?;
    let _tailnet = Tailnet::start(&lab)?;
    let (one, two, three) = (lab.node(1)?, lab.node(2)?, lab.node(3)?);
    let observer = agent(one, &["--collector.tunnel=on"])?;
    observer.wait_support("tunnel", "supported", "", LIMIT)?;
    let traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "a direct path", |page| path(page, two) == Some("direct"))?;
    let ping = tailnet::tailscale(one, &["ping", "--c=1", "node2"])?;
    ensure!(ping.contains("via 192.168.56.12:41641"), "{ping}");
    drop(traffic);
    let page = wait_agreement(&observer, one, two)?;
    ensure!(path(&page, two) == Some("direct") && of(&page, "receive_bytes_total", two) > Some(0.0));
    ensure!(of(&page, "handshake_timestamp_seconds", two).is_some());
    ensure!(of(&page, "nested", two) == Some(0.0) && of(&page, "one_way", two) == Some(0.0));
    let page = wait_agreement(&observer, one, three)?;
    ensure!(path(&page, three) == Some("idle") && of(&page, "handshake_timestamp_seconds", three).is_none());
    ensure!(page.value("leadline_tunnel_state", &[("state", "running")]) == Some(1.0));
    let status = tailnet::status(one)?;
    let health = status["Health"].as_array().context("no Health")?.len();
    ensure!(page.value("leadline_tunnel_health_messages", &[]) == Some(f64::from(u32::try_from(health)?)));
    ensure!(page.value("leadline_tunnel_online", &[]) == Some(1.0) && status["Self"]["Online"] == true);
    let relay = page.only("leadline_tunnel_home_relay_info", &[]).and_then(|info| info.label("relay"));
    ensure!(relay.is_some() && relay == status["Self"]["Relay"].as_str(), "{relay:?} {}", status["Self"]);
    let info = page.only("leadline_tunnel_info", &[]).context("no info")?;
    ensure!(status["Version"].as_str() == info.label("version"), "{info:?} {}", status["Version"]);
    lab.shutdown()
}

#[test]
fn it_falls_to_the_relay_where_udp_is_blocked_and_comes_back() -> Result<()> {
    let lab = lab(2)?;
    let tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let observer = agent(one, &[])?;
    let _traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "a direct path", |page| path(page, two) == Some("direct"))?;
    let before = of(&observer.scrape()?, "path_changes_total", two).context("no changes")?;

    wait_page(&observer, "an answered ping", |page| of(page, "reachable", two) == Some(1.0))?;
    let (block, blocked) = (tailnet.block_udp(one, two)?, Instant::now());
    // The wire tells it first, most of the time: tailscale leaves the path 3.5 to 6.5 s after it was blocked.
    wait_page(&observer, "silence on the wire", |page| of(page, "reachable", two) == Some(0.0))?;
    let silent = blocked.elapsed();
    println!("blocked: silent after {silent:?}");
    ensure!(silent < SILENT, "{silent:?}");
    wait_until("tailscale to relay", LIMIT, || witness_path(one, two).is_ok_and(|path| path == "derp"))?;
    let witnessed = blocked.elapsed();
    let (page, _) = wait_page(&observer, "a path through DERP", |page| path(page, two) == Some("derp"))?;
    let shown = blocked.elapsed();
    println!("blocked: tailscale relays after {witnessed:?}, shown after {shown:?}");
    ensure!(shown < witnessed + LATE, "{shown:?} and {witnessed:?}");
    ensure!(of(&page, "path_changes_total", two) == Some(before + 1.0));
    let labels = [("peer", "node2")];
    ensure!(
        page.only("leadline_tunnel_peer_endpoint", &labels).is_none() && of(&page, "nested", two).is_none()
    );
    let changed = [("was", "direct"), ("path", "derp")];
    let changed = wait_event(&observer, "tunnel_path_changed", "node2", &changed)?;
    ensure!(changed["details"]["was_rtt_ms"].is_string(), "{changed}");
    let silence =
        wait_event(&observer, "tunnel_endpoint_silent", "node2", &[("endpoint", "192.168.56.12:41641")])?;
    ensure!(silence["details"]["rtt_ms"] == changed["details"]["was_rtt_ms"], "{silence} {changed}");
    let ping = tailnet::tailscale(one, &["ping", "--c=1", "--until-direct=false", "node2"])?;
    ensure!(ping.contains("via DERP(lab)"), "{ping}");

    drop(block);
    let unblocked = Instant::now();
    wait_until("tailscale to send directly", LIMIT, || {
        witness_path(one, two).is_ok_and(|path| path == "direct")
    })?;
    let witnessed = unblocked.elapsed();
    let (page, _) = wait_page(&observer, "a direct path again", |page| path(page, two) == Some("direct"))?;
    let shown = unblocked.elapsed();
    println!("unblocked: tailscale is direct after {witnessed:?}, shown after {shown:?}");
    ensure!(shown < witnessed + LATE, "{shown:?} and {witnessed:?}");
    ensure!(of(&page, "path_changes_total", two) == Some(before + 2.0));
    let details = [("was", "derp"), ("path", "direct"), ("endpoint", "192.168.56.12:41641")];
    wait_event(&observer, "tunnel_path_changed", "node2", &details)?;
    wait_event(&observer, "tunnel_endpoint_heard", "node2", &[("endpoint", "192.168.56.12:41641")])?;
    ensure!(of(&observer.scrape()?, "reachable", two) == Some(1.0));
    ensure!(of(&page, "one_way", two) == Some(0.0), "six seconds of silence are no one-way tunnel");
    lab.shutdown()
}

#[test]
fn a_tunnel_whose_endpoint_is_in_a_network_of_pods_is_nested() -> Result<()> {
    let lab = lab(2)?;
    let _tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    // The underlay is said to be one.
    let observer = agent(one, &["--peers.pod-cidrs=192.168.56.0/24"])?;
    let _traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "a nested tunnel", |page| of(page, "nested", two) == Some(1.0))?;
    let event = wait_event(&observer, "tunnel_peer_nested", "node2", &[("path", "direct")])?;
    ensure!(event["details"]["endpoint"] == "192.168.56.12:41641", "{event}");
    lab.shutdown()
}
