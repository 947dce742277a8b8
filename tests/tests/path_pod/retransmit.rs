//! Segments that are sent again, by the node of the peer and by their size: while only large packets vanish, only small
//! ones, and while several small writes are under way at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::Samples;
use lab::witness::nstat;
use lab::witness::segment::{Again, End, again};
use lab::witness::tcpdump::{Capture, Frame};
use lab::{Firewall, Lab, Node, Place as _};

use crate::{NODES, PORT, Stage, start_lab};

const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of a full segment in packets of so many: without the headers of IP and of TCP with its time stamps.
const fn full_size(ipv6: bool) -> u32 {
    if ipv6 { 1_430 - 40 - 32 } else { 1_450 - 20 - 32 }
}

/// Segments sent again to the pods of the second node, by the agent of the first.
fn told(page: &Samples) -> Option<Again> {
    let of = |size| {
        let labels = [("peer_node", NODES[1]), ("size", size)];
        page.count("leadline_path_pod_retransmit_segments_total", &labels)
    };
    Some(Again { full: of("full")?, smaller: of("smaller")? })
}

/// Drops what the client's pod sends to the server's, without a word.
fn swallow<'lab>(lab: &'lab Lab, stage: &Stage, ipv6: bool, which: &str) -> Result<Firewall<'lab, Node>> {
    let [from, to] = [stage.pods[0].address(ipv6)?, stage.pods[1].address(ipv6)?];
    let family = if ipv6 { "ip6" } else { "ip" };
    let rule = format!("{family} saddr {from} {family} daddr {to} {which} counter drop");
    let body = format!("chain hole {{ type filter hook forward priority 0;\n{rule}\n}}\n");
    Firewall::add(lab.node(1)?, family, "pod_hole", &body)
}

/// Does something while some packets vanish, and answers with what was sent again, by the agent, which is what tcpdump and
/// the kernel have seen.
fn measure(
    (lab, stage): (&Lab, &mut Stage),
    ipv6: bool,
    which: &str,
    begin: impl FnOnce(&mut Stage) -> Result<()>,
    end: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<Again> {
    let kernel = |stage: &Stage, name: &str| -> Result<u64> {
        nstat(&stage.pods[0])?.get(name).copied().with_context(|| format!("no {name}"))
    };
    let before = told(&stage.agents[0].scrape()?).context("no counts")?;
    let (segments, timeouts) = (kernel(stage, "TcpRetransSegs")?, kernel(stage, "TcpExtTCPTimeouts")?);
    let mut capture = Capture::start(&stage.pods[0], "eth0", &format!("tcp port {PORT}"))?;
    let hole = swallow(lab, stage, ipv6, which)?;
    begin(stage)?;
    let enough = || kernel(stage, "TcpExtTCPTimeouts").ok().filter(|now| now - timeouts >= 3);
    wait_for("three timeouts", LIMIT, enough)?;
    ensure!(hole.counted()? >= 3, "nothing vanished");
    drop(hole);
    end(stage)?;
    let read = |frames: &[Frame]| again(frames, PORT, End::Client, full_size(ipv6));
    let segments = kernel(stage, "TcpRetransSegs")? - segments;
    // It tells a little late.
    capture.wait_until("tcpdump to see as many as the kernel", LIMIT, |frames| {
        read(frames).is_ok_and(|seen| seen.full + seen.smaller >= segments)
    })?;
    let tcpdump = read(&capture.stop()?)?;
    assert_eq!(tcpdump.full + tcpdump.smaller, segments, "tcpdump and the kernel");
    let now = told(&stage.agents[0].scrape()?).context("no counts")?;
    let agent = Again { full: now.full - before.full, smaller: now.smaller - before.smaller };
    println!("IPv6 {ipv6}, {which}: agent {agent:?}, tcpdump {tcpdump:?}");
    assert_eq!(agent, tcpdump, "agent and tcpdump");
    Ok(agent)
}

/// Over IPv6 a node tells its pod at first that the device of the overlay takes less: full segments become smaller, and
/// what is left of the larger ones is none.
fn check(ipv6: bool) -> Result<()> {
    let lab = start_lab(ipv6)?;
    let mut stage = Stage::start(&lab)?;
    let target = stage.target(2, ipv6)?;
    stage.client.ask(&format!("open {target} S 1"))?;
    let large = measure(
        (&lab, &mut stage),
        ipv6,
        "meta length > 1000",
        |stage| stage.client.ask("send 20000").map(drop),
        |stage| stage.client.ask("finish").map(drop),
    )?;
    ensure!(large.full >= 3, "{large:?}");

    stage.open(2, ipv6, 1)?;
    let small = measure(
        (&lab, &mut stage),
        ipv6,
        "meta length < 400",
        |stage| stage.client.say("exchange 1"),
        |stage| stage.client.answer().map(drop),
    )?;
    ensure!(small.full == 0 && small.smaller >= 3, "{small:?}");
    // The other end has sent nothing again, and nobody else was spoken with.
    let page = stage.agents[0].scrape()?;
    let third = |size| {
        let labels = [("peer_node", NODES[2]), ("size", size)];
        page.count("leadline_path_pod_retransmit_segments_total", &labels)
    };
    assert_eq!(["full", "smaller"].map(third), [Some(0); 2]);
    drop(stage);
    lab.shutdown()
}

#[test]
fn large_segments_that_vanish_are_full_and_small_ones_are_not() -> Result<()> {
    check(false)
}

#[test]
fn large_segments_over_ipv6_that_vanish_are_full_and_small_ones_are_not() -> Result<()> {
    check(true)
}

/// The kernel puts some of them together before it sends them again.
#[test]
fn small_writes_under_way_at_once_are_small_ones_when_they_are_sent_again() -> Result<()> {
    let lab = start_lab(false)?;
    let mut stage = Stage::start(&lab)?;
    let target = stage.target(2, false)?;
    stage.client.ask(&format!("open {target} S 1"))?;
    let small = measure(
        (&lab, &mut stage),
        false,
        "meta length > 0",
        |stage| (0..8).try_for_each(|_| stage.client.ask("send 300").map(drop)),
        |stage| stage.client.ask("finish").map(drop),
    )?;
    ensure!(small.full == 0 && small.smaller >= 3, "{small:?}");
    drop(stage);
    lab.shutdown()
}
