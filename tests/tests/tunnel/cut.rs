//! UDP that is blocked in one direction only: whoever is not heard any more still hears.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::process::wait_until;
use lab::{Place as _, Tailnet, tailnet};

use crate::stage::{agent, of, path, wait_event, wait_page, witness_path};
use crate::{LIMIT, lab};

/// How long an address may be silent before that is told, and what a busy machine adds.
const SILENT: Duration = Duration::from_millis(5_500);

/// What node 1 sends is dropped. Node 2 hears nothing from there and says so within seconds; node 1 still hears the pings
/// of node 2, so that its address is not silent, and both leave the path as tailscale says.
#[test]
fn udp_that_is_blocked_one_way_is_silence_at_the_end_that_hears_nothing() -> Result<()> {
    let lab = lab(2)?;
    let tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let observers = [agent(one, &[])?, agent(two, &[])?];
    let _traffic = tailnet::traffic(one, two)?;
    for (observer, peer) in observers.iter().zip([two, one]) {
        wait_page(observer, "a direct path that answers", |page| {
            path(page, peer) == Some("direct") && of(page, "reachable", peer) == Some(1.0)
        })?;
    }
    let (block, blocked) = (tailnet.cut_udp(one, two)?, Instant::now());
    wait_page(&observers[1], "silence on the wire", |page| of(page, "reachable", one) == Some(0.0))?;
    let silent = blocked.elapsed();
    println!("blocked: silent at the other end after {silent:?}");
    ensure!(silent < SILENT, "{silent:?}");
    for ((observer, node), peer) in observers.iter().zip([one, two]).zip([two, one]) {
        wait_until("tailscale to relay", LIMIT, || {
            witness_path(node, peer).is_ok_and(|path| path == "derp")
        })?;
        wait_page(observer, "a path through DERP", |page| path(page, peer) == Some("derp"))?;
        wait_event(observer, "tunnel_path_changed", peer.name(), &[("was", "direct"), ("path", "derp")])?;
    }
    ensure!(block.counted()? > 0, "nothing was dropped");
    wait_event(&observers[1], "tunnel_endpoint_silent", "node1", &[("endpoint", "192.168.56.11:41641")])?;
    ensure!(
        observers[0].events("tunnel_endpoint_silent")?.is_empty(),
        "node 1 has heard node 2 all the time"
    );

    drop(block);
    for (observer, peer) in observers.iter().zip([two, one]) {
        wait_page(observer, "a direct path again", |page| {
            path(page, peer) == Some("direct") && of(page, "reachable", peer) == Some(1.0)
        })?;
        ensure!(of(&observer.scrape()?, "one_way", peer) == Some(0.0), "through the relay all has arrived");
    }
    lab.shutdown()
}
