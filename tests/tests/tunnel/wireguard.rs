//! `WireGuard` without Tailscale, as the uplinks show it: handshakes as its daemon and tcpdump have them, and whether data
//! is lost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::wireguard::{PORT, Wireguard, drop_data, last_handshake, traffic};
use lab::witness::tcpdump::{Capture, Frame};
use lab::{Node, Place as _};

use crate::silence::handshakes;
use crate::stage::{of, wait_event, wait_page};
use crate::wire::blind;
use crate::{LIMIT, lab};

/// How far the agent's time of a handshake may be from that of `wg`, which has whole seconds.
const MOMENT: f64 = 1.1;
/// How far its round trip may be from tcpdump's, which stands closer to the wire.
const ROUND_TRIP: f64 = 1e-3;

/// Seconds between the last initiation of a node and the response.
fn round_trip(frames: &[Frame], own: &Node) -> Result<f64> {
    let own = own.ipv4().context("no address")?.octets();
    let of = |kind: u8, is_own: bool| {
        let is_it = |frame: &&Frame| {
            frame.bytes.get(42) == Some(&kind) && (frame.bytes.get(26..30) == Some(&own[..])) == is_own
        };
        frames.iter().rfind(is_it).map(|frame| frame.time).context("no handshake")
    };
    Ok(of(2, false)?.checked_sub(of(1, true)?).context("no response to the last initiation")?.as_secs_f64())
}

fn one_way(peer: &Node, wanted: f64) -> impl Fn(&Samples) -> bool {
    move |page| of(page, "one_way", peer) == Some(wanted)
}

#[test]
fn handshakes_are_those_of_its_daemon_and_tell_that_data_is_lost() -> Result<()> {
    let lab = lab(2)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let (observer, beyond) = (blind(&lab, one, two)?, blind(&lab, two, one)?);
    let _tunnel = Wireguard::start(&lab)?;
    let filter = format!("udp port {PORT} and (udp[8] = 1 or udp[8] = 2)");
    let mut capture = Capture::start(one, "eth0", &filter)?;
    let _traffic = traffic(one, two)?;
    let (page, _) =
        wait_page(&observer, "a handshake", |page| of(page, "handshake_rtt_seconds", two).is_some())?;
    capture.wait_until("the handshake", LIMIT, |frames| frames.len() == 2)?;
    let (told, seen) =
        (of(&page, "handshake_rtt_seconds", two).context("no time")?, round_trip(&capture.frames()?, one)?);
    let moment = of(&page, "handshake_timestamp_seconds", two).context("no moment")?;
    let said = f64::from(u32::try_from(last_handshake(one)?)?);
    println!("a handshake of {told:.6} s, tcpdump {seen:.6} s; at {moment:.3}, wg says {said}");
    ensure!((told - seen).abs() < ROUND_TRIP && (moment - said).abs() < MOMENT);
    ensure!(one_way(two, 0.0)(&page));

    let (block, begun) = (drop_data(&lab, one, two)?, Instant::now());
    observer.wait_page("a one-way tunnel", LIMIT * 2, "leadline_tunnel_peer_", one_way(two, 1.0))?;
    let count = handshakes(&capture.frames()?);
    println!("one-way after {:?}, {} packets lost, {count} handshakes", begun.elapsed(), block.counted()?);
    // With the first of all, which may be too long ago.
    ensure!((3..=4).contains(&count), "{count} handshakes");
    wait_event(&observer, "tunnel_peer_silent", "node2", &[("source", "handshakes")])?;
    wait_event(&beyond, "tunnel_peer_silent", "node1", &[("source", "handshakes")])?;
    drop(block);
    let begun = Instant::now();
    observer.wait_page("a tunnel that works", LIMIT * 2, "leadline_tunnel_peer_", one_way(two, 0.0))?;
    println!("no more {:?} after data passed again", begun.elapsed());
    wait_event(&observer, "tunnel_peer_heard", "node2", &[("source", "handshakes")])?;
    ensure!(begun.elapsed() < Duration::from_secs(75));
    lab.shutdown()
}
