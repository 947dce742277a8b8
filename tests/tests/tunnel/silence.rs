//! A tunnel that carries nothing although handshakes pass.

use std::time::Instant;

use anyhow::{Result, ensure};
use lab::witness::tcpdump::{Capture, Frame};
use lab::{Place as _, Tailnet, tailnet};

use crate::stage::{agent, of, path, wait_event, wait_page};
use crate::wire::blind;
use crate::{LIMIT, lab};

#[test]
fn data_that_is_lost_while_handshakes_pass_is_a_one_way_tunnel_until_it_arrives() -> Result<()> {
    let lab = lab(2)?;
    let tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let observer = agent(one, &[])?;
    let _traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "a direct path", |page| path(page, two) == Some("direct"))?;
    let block = tailnet.drop_data(one, two)?;
    let begun = Instant::now();
    let is = |wanted: f64| move |page: &lab::scrape::Samples| of(page, "one_way", two) == Some(wanted);
    // Three handshakes, fifteen seconds apart.
    let found = observer.wait_page("a one-way tunnel", LIMIT * 2, "leadline_tunnel_peer_", is(1.0));
    let (page, _) = found?;
    println!("one-way after {:?}, {} packets lost", begun.elapsed(), block.counted()?);
    ensure!(path(&page, two) == Some("direct"));
    // Nobody else has noticed.
    let status = tailnet::status(one)?;
    ensure!(status["Health"].as_array().is_some_and(Vec::is_empty), "{}", status["Health"]);
    let ping = tailnet::tailscale(one, &["ping", "--c=1", "node2"])?;
    ensure!(ping.contains("pong from node2"), "{ping}");
    wait_event(&observer, "tunnel_peer_silent", "node2", &[("path", "direct")])?;
    drop(block);
    let begun = Instant::now();
    observer.wait_page("an answered tunnel", LIMIT * 2, "leadline_tunnel_peer_", is(0.0))?;
    println!("answered {:?} after it was", begun.elapsed());
    wait_event(&observer, "tunnel_peer_heard", "node2", &[])?;
    lab.shutdown()
}

/// Handshakes that tcpdump saw: initiations of which a response names each.
pub(crate) fn handshakes(frames: &[Frame]) -> usize {
    // Header of Ethernet, IPv4 and UDP; then the type, the sender's number, and in a response that of the initiation.
    let messages = || frames.iter().filter_map(|frame| frame.bytes.get(42..54));
    let begun: Vec<&[u8]> =
        messages().filter(|message| message[..4] == [1, 0, 0, 0]).map(|message| &message[4..8]).collect();
    messages().filter(|message| message[..4] == [2, 0, 0, 0] && begun.contains(&&message[8..12])).count()
}

#[test]
fn without_its_socket_both_ends_tell_by_handshakes_that_data_is_lost() -> Result<()> {
    let lab = lab(2)?;
    let tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let (observer, beyond) = (blind(&lab, one, two)?, blind(&lab, two, one)?);
    let both = format!("udp port 41641 and host {}", two.address(false)?);
    let capture = Capture::start(one, "eth0", &format!("{both} and (udp[8] = 1 or udp[8] = 2)"))?;
    let _traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "answered pings", |page| of(page, "reachable", two) == Some(1.0))?;
    let block = tailnet.drop_data(one, two)?;
    let begun = Instant::now();
    let is = |wanted: f64| move |page: &lab::scrape::Samples| of(page, "one_way", two) == Some(wanted);
    observer.wait_page("a one-way tunnel", LIMIT * 2, "leadline_tunnel_peer_", is(1.0))?;
    let seen = handshakes(&capture.stop()?);
    println!("one-way after {:?}, {} packets lost, {seen} handshakes", begun.elapsed(), block.counted()?);
    // One of them may have been the first of all.
    ensure!((3..=4).contains(&seen), "{seen} handshakes");
    let event = wait_event(&observer, "tunnel_peer_silent", "node2", &[("source", "handshakes")])?;
    ensure!(event["details"]["endpoint"] == "192.168.56.12:41641", "{event}");
    // The pings pass, which is why nothing else tells it; the other end sees the same handshakes.
    let page = observer.scrape()?;
    ensure!(of(&page, "reachable", two) == Some(1.0), "{:?}", of(&page, "reachable", two));
    wait_event(&beyond, "tunnel_peer_silent", "node1", &[("source", "handshakes")])?;
    ensure!(of(&beyond.scrape()?, "one_way", one) == Some(1.0));
    drop(block);
    let begun = Instant::now();
    observer.wait_page("a tunnel that works", LIMIT * 2, "leadline_tunnel_peer_", is(0.0))?;
    println!("no more {:?} after data passed again", begun.elapsed());
    wait_event(&observer, "tunnel_peer_heard", "node2", &[("source", "handshakes")])?;
    wait_event(&beyond, "tunnel_peer_heard", "node1", &[("source", "handshakes")])?;
    for agent in [&observer, &beyond] {
        let silent = agent.events("tunnel_endpoint_silent")?;
        ensure!(silent.is_empty(), "{silent:?}");
    }
    lab.shutdown()
}
