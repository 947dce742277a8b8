//! Segments that are sent again, by the node of the peer and by their size: while only large packets vanish, only small
//! ones, and while several small writes are under way at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::Samples;
use lab::witness::nstat;
use lab::witness::segment::{Again, End, again};
use lab::witness::tcpdump::Capture;
use lab::{Firewall, Lab, Node, Place as _};

use crate::{NODES, PORT, Stage, start_lab};

const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of a full segment in a VXLAN of 1450 bytes: without the headers of IPv4 and of TCP with its time stamps.
const FULL: u32 = 1_398;

/// Segments sent again to the pods of the second node, by the agent of the first.
fn told(page: &Samples) -> Option<Again> {
    let of = |size| {
        let labels = [("peer_node", NODES[1]), ("size", size)];
        page.count("leadline_path_pod_retransmit_segments_total", &labels)
    };
    Some(Again { full: of("full")?, smaller: of("smaller")? })
}

/// Drops what the client's pod sends to the server's, without a word.
fn swallow<'lab>(lab: &'lab Lab, stage: &Stage, which: &str) -> Result<Firewall<'lab, Node>> {
    let [from, to] = [stage.pods[0].address(false)?, stage.pods[1].address(false)?];
    let rule = format!("ip saddr {from} ip daddr {to} {which} counter drop");
    let body = format!("chain hole {{ type filter hook forward priority 0;\n{rule}\n}}\n");
    Firewall::add(lab.node(1)?, "ip", "pod_hole", &body)
}

/// What both saw of a part of the test.
struct Seen {
    agent: Again,
    tcpdump: Again,
    /// Segments with more than half of the bytes of a full one, by tcpdump.
    large: u64,
}

/// Does something while some packets vanish, and answers with what was sent again. `kernel` says whether it has had
/// enough of it.
fn measure(
    lab: &Lab,
    stage: &mut Stage,
    which: &str,
    begin: impl FnOnce(&mut Stage) -> Result<()>,
    end: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<Seen> {
    let kernel = |stage: &Stage, name: &str| -> Result<u64> {
        nstat(&stage.pods[0])?.get(name).copied().with_context(|| format!("no {name}"))
    };
    let before = told(&stage.agents[0].scrape()?).context("no counts")?;
    let (segments, timeouts) = (kernel(stage, "TcpRetransSegs")?, kernel(stage, "TcpExtTCPTimeouts")?);
    let capture = Capture::start(&stage.pods[0], "eth0", &format!("tcp port {PORT}"))?;
    let hole = swallow(lab, stage, which)?;
    begin(stage)?;
    let enough = || kernel(stage, "TcpExtTCPTimeouts").ok().filter(|now| now - timeouts >= 3);
    wait_for("three timeouts", LIMIT, enough)?;
    ensure!(hole.counted()? >= 3, "nothing vanished");
    drop(hole);
    end(stage)?;
    let frames = capture.stop()?;
    let tcpdump = again(&frames, PORT, End::Client, FULL)?;
    let large = again(&frames, PORT, End::Client, FULL / 2 + 1)?.full;
    assert_eq!(
        tcpdump.full + tcpdump.smaller,
        kernel(stage, "TcpRetransSegs")? - segments,
        "tcpdump and the kernel"
    );
    let now = told(&stage.agents[0].scrape()?).context("no counts")?;
    let agent = Again { full: now.full - before.full, smaller: now.smaller - before.smaller };
    println!("{which}: agent {agent:?}, tcpdump {tcpdump:?}, {large} of more than half");
    Ok(Seen { agent, tcpdump, large })
}

#[test]
fn large_segments_that_vanish_are_full_and_small_ones_are_not() -> Result<()> {
    let lab = start_lab(false)?;
    let mut stage = Stage::start(&lab)?;
    let target = stage.target(2, false)?;
    stage.client.ask(&format!("open {target} S 1"))?;
    let large = measure(
        &lab,
        &mut stage,
        "ip length > 1000",
        |stage| stage.client.ask("send 20000").map(drop),
        |stage| stage.client.ask("finish").map(drop),
    )?;
    assert_eq!(large.agent, large.tcpdump, "agent and tcpdump");
    ensure!(large.agent.full >= 3, "{:?}", large.agent);

    stage.open(2, false, 1)?;
    let small = measure(
        &lab,
        &mut stage,
        "ip length < 400",
        |stage| stage.client.say("exchange 1"),
        |stage| stage.client.answer().map(drop),
    )?;
    assert_eq!(small.agent, small.tcpdump, "agent and tcpdump");
    ensure!(small.agent.full == 0 && small.agent.smaller >= 3, "{:?}", small.agent);
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

/// The kernel puts small segments together before it sends them again, and up to less than a full one.
#[test]
fn of_small_writes_under_way_at_once_the_sum_is_right_and_what_counts_as_full_is_more_than_half() -> Result<()>
{
    let lab = start_lab(false)?;
    let mut stage = Stage::start(&lab)?;
    let target = stage.target(2, false)?;
    stage.client.ask(&format!("open {target} S 1"))?;
    let seen = measure(
        &lab,
        &mut stage,
        "ip length > 0",
        |stage| (0..8).try_for_each(|_| stage.client.ask("send 300").map(drop)),
        |stage| stage.client.ask("finish").map(drop),
    )?;
    assert_eq!(seen.agent.full + seen.agent.smaller, seen.tcpdump.full + seen.tcpdump.smaller, "sums");
    ensure!(seen.tcpdump.full == 0, "no write had a full segment: {:?}", seen.tcpdump);
    ensure!(seen.agent.full > 0 && seen.agent.full <= seen.large, "{:?}, {}", seen.agent, seen.large);
    drop(stage);
    lab.shutdown()
}
