//! A tunnel that carries nothing although handshakes pass.

use std::time::Instant;

use anyhow::{Result, ensure};
use lab::{Tailnet, tailnet};

use crate::stage::{agent, of, path, wait_event, wait_page};
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
