//! What a probe sees of a service that works.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::witness::tcpdump::{Capture, Frame};
use lab::witness::{ensure_precise, measured};
use lab::{Certificate, Place as _, TlsServer};

use crate::stage::{LIMIT, PORT, Stage};

/// How far the average time may be from tcpdump's on a busy machine.
const ERROR: f64 = 0.005;

/// The length of an Ethernet header.
const ETHERNET: usize = 14;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// The time from each SYN to its SYN-ACK over IPv4, in the order of the latter.
fn handshakes(frames: &[Frame]) -> Vec<Duration> {
    let mut begun = BTreeMap::new();
    let mut times = Vec::new();
    for frame in frames {
        let Some(packet) = frame.bytes.get(ETHERNET..) else { continue };
        let header = packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
        let Some(segment) = packet.get(header..header + 14) else { continue };
        let [source, destination] = [0, 2].map(|at| u16::from_be_bytes([segment[at], segment[at + 1]]));
        match segment[13] & SYN_ACK {
            SYN => {
                begun.entry(source).or_insert(frame.time);
            }
            SYN_ACK => times.extend(begun.remove(&destination).map(|begun| frame.time.saturating_sub(begun))),
            _ => {}
        }
    }
    times
}

#[test]
fn every_node_reaches_the_service_and_times_it_like_tcpdump() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let mut stage = Stage::new(&lab, &Spec::default())?;
        let certificate = Certificate::new(lab.node(1)?, 30)?;
        let _server = TlsServer::start(lab.node(1)?, PORT, &certificate)?;
        let filter = format!("tcp port {PORT} and host {}", stage.vip);
        let start = |index| Ok((index, Capture::start(lab.node(index)?, "eth0", &filter)?));
        let captures: Vec<(u8, Capture)> = (2..=4).map(start).collect::<Result<_>>()?;
        stage.start_agents(&lab, &[])?;
        stage.wait("twenty probes", |_, page| page.probes("ok") >= Some(20))?;
        let not_after = certificate.not_after()?;
        for index in 1..=4 {
            let page = stage.page(index)?;
            ensure!(page.reachable() == Some(1) && page.not_after() == Some(not_after), "node{index}");
            ensure!(page.unserved() == (index == 1).then_some(0), "node{index}: {:?}", page.unserved());
            let failed: Option<u64> =
                page.samples.sum("leadline_vip_probes_total", |sample| sample.label("result") != Some("ok"));
            ensure!(failed == Some(0), "node{index}: {failed:?} failed");
        }
        for index in [1, 4] {
            let filter = format!("( sport = :{PORT} or dport = :{PORT} )");
            let waiting = lab.node(index)?.run(&["ss", "-tanH", "state", "time-wait", &filter])?;
            ensure!(waiting.is_empty(), "node{index} remembers connections: {waiting}");
        }
        for (index, mut capture) in captures {
            let page = stage.page(index.into())?;
            let (count, sum) = page.phase("connect").context("no time to connect")?;
            let all = usize::try_from(count)?;
            capture.wait_until("the handshakes", LIMIT, |frames| handshakes(frames).len() >= all)?;
            let times = handshakes(&capture.frames()?);
            let witness: f64 = times.iter().take(all).map(Duration::as_secs_f64).sum();
            #[expect(clippy::cast_precision_loss, reason = "a number of probes")]
            let (mean, error) = (witness / count as f64, (sum - witness) / count as f64);
            let [tls, http] = ["tls", "http"].map(|phase| page.phase(phase));
            println!(
                "node{index}: {count} handshakes, mean {mean:.6} s, error {error:+.6} s, {tls:?}, {http:?}"
            );
            ensure_precise((0.0..=ERROR).contains(&error), || format!("{error} s from tcpdump"))?;
            ensure!(
                tls.is_some_and(|(tls, _)| tls + 1 >= count)
                    && http.is_some_and(|(http, _)| http + 1 >= count)
            );
        }
        lab.shutdown()
    })
}
