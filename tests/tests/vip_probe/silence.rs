//! Servers that answer nothing, or not in TLS.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::{Certificate, Place as _, TlsServer};

use crate::stage::{PORT, Stage};

/// What a page may take while every probe waits in vain.
const SCRAPE: Duration = Duration::from_millis(500);

/// Answers as a plain HTTP server does to what is no HTTP, until the test ends.
fn answer_in_plain_text(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?;
    let mut part = [0; 512];
    while stream.read(&mut part)? > 0 {}
    Ok(())
}

#[test]
fn silence_and_plain_text_are_told_apart_and_cost_no_scrape() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::default())?;
    let certificate = Certificate::new(lab.node(1)?, 30)?;
    let server = TlsServer::start(lab.node(1)?, PORT, &certificate)?;
    stage.start_agents(&lab, &[])?;
    stage.wait("the service to be reached", |_, page| page.reachable() == Some(1))?;

    server.freeze()?;
    stage.wait("the silence", |index, page| {
        page.probes("timeout") >= Some(2)
            && page.reachable() == Some(0)
            && page.unserved() == (index == 1).then_some(1)
    })?;
    ensure!(stage.wait_event(4, "vip_unreachable", 1)?["result"] == "timeout");
    let mut times = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        stage.page(4)?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!("scrapes beside silent probes: median {:?}, worst {:?}", times[10], times[19]);
    ensure!(times[19] < SCRAPE, "{times:?}");
    server.thaw()?;
    stage.wait("an answer", |_, page| page.reachable() == Some(1))?;

    server.kill()?;
    let listener = lab.node(1)?.net(|| TcpListener::bind(("0.0.0.0", PORT)))?.context("listen")?;
    // It ends with the test's process: the lab's namespace goes without it.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(|| answer_in_plain_text(stream));
        }
    });
    stage
        .wait("plain text", |_, page| page.probes("tls_failed") >= Some(2) && page.reachable() == Some(0))?;
    // The certificate is that of the last handshake.
    ensure!(stage.page(4)?.not_after() == Some(certificate.not_after()?));
    lab.shutdown()
}
