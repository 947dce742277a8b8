//! What the uplink shows of tunnels, against tcpdump on the same device and against `tailscale ping`.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::Samples;
use lab::tailnet::Daemon;
use lab::witness::tcpdump::{Capture, Frame};
use lab::witness::{ensure_precise, measured};
use lab::{Agent, Delay, Lab, Node, Place as _, Tailnet, tailnet};

use crate::stage::{agent, of, path, wait_event, wait_page, witness_path};
use crate::{LIMIT, lab};

/// Further pings of `tailscale ping`, one a second, beside those that tailscaled makes by itself.
const PINGS: &str = "--c=10";
/// How far the mean may be from the witness's, which stands closer to the wire on either way.
const PRECISION: f64 = 100e-6;
/// How far it may be from that of tailscale ping: that has whole milliseconds, with the time that tailscaled itself takes.
const ROUGHLY: f64 = 5e-3;
/// Header of Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
const GENEVE: usize = 8;

/// A packet of disco on the wire, as its length tells what it is.
struct Disco {
    time: Duration,
    transmitted: bool,
    length: usize,
}

/// The packets of disco between a node and an address, maybe within a relay's header.
fn discos(frames: &[Frame], own: IpAddr) -> Vec<Disco> {
    let IpAddr::V4(own) = own else { return Vec::new() };
    let of = |frame: &Frame| {
        let payload = frame.bytes.get(HEADERS..)?;
        let header = if payload.get(2..4) == Some(&[0x7a, 0x11]) { GENEVE } else { 0 };
        let is_disco = payload.get(header..)?.starts_with(b"TS\xf0\x9f\x92\xac");
        let length = usize::try_from(frame.original_len).ok()? - HEADERS - header;
        let transmitted = frame.bytes.get(26..30)? == own.octets();
        is_disco.then_some(Disco { time: frame.time, transmitted, length })
    };
    frames.iter().filter_map(of).collect()
}

/// The round trips: each pong that comes belongs to the newest ping that left.
fn round_trips(discos: &[Disco]) -> Vec<f64> {
    let (mut asked, mut trips) = (None, Vec::new());
    for disco in discos {
        match (disco.transmitted, disco.length) {
            (true, 124) => asked = Some(disco.time),
            (false, 110) => trips.extend(asked.take().map(|asked| disco.time.abs_diff(asked).as_secs_f64())),
            _ => {}
        }
    }
    trips
}

/// Number and sum of the round trips, and the answered and unanswered pings.
pub(crate) fn counted(page: &Samples, peer: &str) -> Option<[f64; 4]> {
    let labels = [("peer", peer)];
    let pings =
        |result| page.value("leadline_tunnel_peer_pings_total", &[("peer", peer), ("result", result)]);
    let trips = |part: &str| page.value(&format!("leadline_tunnel_peer_rtt_seconds_{part}"), &labels);
    Some([trips("count")?, trips("sum")?, pings("answered")?, pings("unanswered")?])
}

/// What a page has more than an earlier one.
fn growth(agent: &Agent, before: [f64; 4], peer: &str) -> Result<[f64; 4]> {
    let after = counted(&agent.scrape()?, peer).context("no round trips")?;
    Ok([0, 1, 2, 3].map(|at| after[at] - before[at]))
}

/// Measures for some seconds; the filter is that of the witness.
fn compare(one: &Node, two: &Node, agent: &Agent, filter: &str, least: Duration) -> Result<[f64; 4]> {
    compare_of(one, [one, two], agent, filter, least)
}

/// The same of a daemon whose packets leave by the uplink of a node.
pub(crate) fn compare_of(
    node: &Node,
    [one, two]: [&dyn Daemon; 2],
    agent: &Agent,
    filter: &str,
    least: Duration,
) -> Result<[f64; 4]> {
    let (own, two) = (node.address(false)?, two.hostname());
    let mut capture = Capture::start_in_blocks(node, "eth0", filter)?;
    let before = counted(&agent.scrape()?, two).context("no round trips")?;
    let said = one.tailscale(&["ping", PINGS, "--until-direct=false", two])?;
    let growth = growth(agent, before, two)?;
    let [trips, sum, answered, _] = growth;
    // A capture in blocks has all of them a second later.
    let mut seen = 0;
    capture.wait_until("the frames of the last second", Duration::from_secs(5), |frames| {
        let now = frames.len();
        std::mem::replace(&mut seen, now) == now && now > 20
    })?;
    let witnessed = round_trips(&discos(&capture.stop()?, own));
    let number = f64::from(u32::try_from(witnessed.len())?);
    let (mean, truth) = (sum / trips, witnessed.iter().sum::<f64>() / number);
    println!("{trips} round trips of {mean:.6} s, by tcpdump {number} of {truth:.6} s\n{said}");
    ensure!(number >= 10.0 && (number - trips).abs() <= 2.0, "{trips} and {number}");
    // Of two that are too close there is no round trip.
    ensure!((0.0..=2.0).contains(&(answered - trips)), "{answered} {trips}");
    ensure!(mean > least.as_secs_f64(), "{mean}");
    ensure_precise((mean - truth).abs() < PRECISION, || format!("{mean} and {truth}"))?;
    ensure_precise((spoken(&said)? - mean).abs() < ROUGHLY, || format!("{mean}: {said}"))?;
    Ok(growth)
}

/// The mean of what `tailscale ping` says: "pong from ... in 1ms", or "in 0s".
fn spoken(said: &str) -> Result<f64> {
    let times: Vec<f64> = said
        .lines()
        .map(|line| {
            let word = line.rsplit(' ').next().unwrap_or_default();
            word.trim_end_matches('s').trim_end_matches('m').parse().with_context(|| line.to_owned())
        })
        .collect::<Result<_>>()?;
    Ok(times.iter().sum::<f64>() / f64::from(u32::try_from(times.len())?) / 1e3)
}

/// The same where nothing is lost.
fn compare_lossless(one: &Node, two: &Node, agent: &Agent, least: Duration) -> Result<()> {
    let [.., unanswered] = compare(one, two, agent, "udp port 41641", least)?;
    ensure!(unanswered < 0.5, "{unanswered} pings without an answer");
    Ok(())
}

#[test]
fn round_trips_are_those_of_tcpdump_and_of_tailscale_ping() -> Result<()> {
    let lab = lab(2)?;
    let _tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let observer = agent(one, &[])?;
    let blind = blind(&lab, two, one)?;
    let _traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "a round trip", |page| counted(page, "node2").is_some())?;
    measured(|| compare_lossless(one, two, &observer, Duration::ZERO))?;
    let ms = Duration::from_millis;
    let delay = Delay::insert_asymmetric(&lab, two, [ms(7), ms(3)])?;
    measured(|| compare_lossless(one, two, &observer, ms(10)))?;
    drop(delay);
    // The other end's agent finds no tailscaled, and knows the node by its address.
    wait_page(&blind, "round trips without tailscaled's word", |page| {
        counted(page, "node1").is_some_and(|[trips, ..]| trips > 0.0)
            && of(page, "reachable", one) == Some(1.0)
    })?;
    ensure!(path(&blind.scrape()?, one).is_none());
    garbage(one, two, &observer)?;
    lab.shutdown()
}

/// An agent that knows the other node by name and address and cannot ask tailscaled.
pub(crate) fn blind(lab: &Lab, node: &Node, other: &Node) -> Result<Agent> {
    let file = lab.scratch().join(format!("{}.yaml", node.name()));
    let (name, address) = (other.name(), other.address(false)?);
    let peers = format!("peers:\n  nodes:\n    - name: {name}\n      addresses: [{address}]\n");
    std::fs::write(&file, peers).context("write the configuration")?;
    agent(node, &[&format!("--config.file={}", file.display()), "--tunnel.socket=/run/nobody.sock"])
}

/// What begins like packets of tunnels and is none is counted, one by one.
fn garbage(one: &Node, two: &Node, observer: &Agent) -> Result<()> {
    let foreign = || {
        let page = observer.scrape().ok()?;
        page.value("leadline_tunnel_foreign_packets_total", &[])
    };
    let before = foreign().context("no count")?;
    let socket = two.net(|| UdpSocket::bind(("0.0.0.0", 0)))?.context("bind")?;
    let beginnings: [&[u8]; 4] = [b"TS\xf0\x9f\x92\xac", b"TS\xf0\x9f", &[1, 0, 0, 0], &[2, 0, 0, 0]];
    let to = (one.address(false)?, 9);
    for round in 0..250_usize {
        for beginning in beginnings {
            let mut payload = beginning.to_vec();
            payload.resize(if beginning.len() == 6 { 77 } else { 70 + round }, 0);
            // These lengths are those of handshakes.
            if [92, 148].contains(&payload.len()) {
                payload.push(0);
            }
            socket.send_to(&payload, to).context("send")?;
        }
    }
    let limit = Duration::from_secs(10);
    wait_for("1000 foreign packets", limit, || (foreign()? - before > 999.5).then_some(()))?;
    ensure!((foreign().context("no count")? - before - 1000.0).abs() < 0.5, "more than were sent");
    Ok(())
}

#[test]
fn a_relay_of_a_peer_is_a_path_of_its_own_with_its_round_trips() -> Result<()> {
    let lab = lab(3)?;
    let tailnet = Tailnet::start(&lab)?;
    let (one, two, relay) = (lab.node(1)?, lab.node(2)?, lab.node(3)?);
    tailnet::tailscale(relay, &["set", "--relay-server-port=40000"])?;
    let (observer, beside) = (agent(one, &[])?, agent(relay, &[])?);
    let _traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "a direct path", |page| path(page, two) == Some("direct"))?;
    let block = tailnet.block_udp(one, two)?;
    let mut last = Ok("");
    let relayed = wait_for("tailscale to relay through a peer", LIMIT, || {
        last = witness_path(one, two);
        matches!(last, Ok("peer_relay")).then_some(())
    });
    relayed.with_context(|| format!("{last:?}"))?;
    let (page, _) =
        wait_page(&observer, "a path through a peer", |page| path(page, two) == Some("peer_relay"))?;
    let endpoint = page.only("leadline_tunnel_peer_endpoint", &[("peer", "node2")]).context("no endpoint")?;
    ensure!(endpoint.label("endpoint") == Some("192.168.56.13:40000"), "{endpoint:?}");
    wait_event(&observer, "tunnel_path_changed", "node2", &[("path", "peer_relay")])?;
    wait_page(&observer, "the relay to answer", |page| of(page, "reachable", two) == Some(1.0))?;
    measured(|| compare(one, two, &observer, "udp port 40000", Duration::ZERO).map(drop))?;
    // Whoever passes pings on has not asked anything.
    let page = beside.scrape()?;
    let is_session =
        |sample: &lab::scrape::Sample| sample.label("peer").is_some_and(|peer| peer.contains("session"));
    let sessions = page.of("leadline_tunnel_peer_pings_total", is_session).count();
    ensure!(sessions == 0, "{sessions} series of sessions that this node only passes on");
    drop(block);
    lab.shutdown()
}
