//! Nodes without Tailscale, and sockets that are not what they seem to be.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Node, Place as _, tailnet};

use crate::stage::{agent, series};
use crate::{LIMIT, lab};

/// A listener in the place of tailscaled's.
fn listen(node: &Node) -> Result<UnixListener> {
    let path = node.path(tailnet::SOCKET);
    fs::create_dir_all(path.parent().context("no directory")?)?;
    UnixListener::bind(&path).with_context(|| path.display().to_string())
}

#[test]
fn without_tailscale_there_is_a_reason_and_no_series() -> Result<()> {
    let lab = lab(1)?;
    let observer = agent(lab.node(1)?, &[])?;
    observer.wait_support("tunnel", "no", "no Tailscale on this node", LIMIT)?;
    ensure!(series(&observer.scrape()?) == 0);
    ensure!(observer.events("tunnel_down")?.is_empty());
    lab.shutdown()
}

#[test]
fn a_socket_that_accepts_and_never_answers_holds_up_no_scrape() -> Result<()> {
    let lab = lab(1)?;
    let _listener = listen(lab.node(1)?)?;
    let observer = agent(lab.node(1)?, &[])?;
    observer.wait_support("tunnel", "degraded", "tailscaled does not answer in time", LIMIT)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        ensure!(series(&observer.scrape()?) == 0);
        slowest = slowest.max(begun.elapsed());
    }
    println!("slowest of 20 scrapes: {slowest:?}");
    ensure!(slowest < Duration::from_secs(1), "{slowest:?}");
    lab.shutdown()
}

#[test]
fn a_socket_of_another_user_is_not_asked() -> Result<()> {
    let lab = lab(1)?;
    let node = lab.node(1)?;
    let listener = listen(node)?;
    node.run(&["chown", "nobody", tailnet::SOCKET])?;
    let observer = agent(node, &[])?;
    observer.wait_support("tunnel", "degraded", "does not belong to root", LIMIT)?;
    listener.set_nonblocking(true)?;
    ensure!(listener.accept().is_err(), "somebody has connected");
    lab.shutdown()
}
