//! Paths between nodes as the agents probe them: round trips, losses by direction, pauses and strangers, against
//! tcpdump's times of the same probes and nftables' counts; probes with codes, against those of openssl; and sender and
//! reflector of another implementation, either against ours.

mod path {
    mod cilium;
    mod foreign_reflector;
    mod foreign_sender;
    mod key;
    mod loss;
    mod mtu;
    pub(crate) mod round_trip;
    pub(crate) mod truth;
    mod tunnel;
    mod vpn;
}

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::witness::tcpdump::Capture;
use lab::witness::{ensure_precise, measured};
use lab::{Agent, AgentOptions, Delay, Disorder, Flannel, Lab, LabOptions, Node, Place, process};
use nix::sys::signal::Signal;
use path::truth;

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 9862;
const LAYERS: [&str; 2] = ["underlay", "overlay"];
const DIRECTIONS: [&str; 3] = ["forward", "reverse", "unknown"];
/// Bytes of a plain STAMP packet (RFC 8762, 4.2.1).
const STAMP: usize = 44;

fn start() -> Result<Lab> {
    Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel::default()) })
}

/// An agent that probes every so many milliseconds.
fn prober(node: &Node, interval: u64) -> Result<Agent> {
    let arguments = vec!["--collector.path=on".into(), format!("--path.interval={interval}ms")];
    Agent::start(node, &AgentOptions { arguments, ..AgentOptions::default() })
}

fn mesh(lab: &Lab) -> Result<[Agent; 2]> {
    mesh_at(lab, 10)
}

/// Agents on both nodes, which probe every so many milliseconds and have answers on both layers.
fn mesh_at(lab: &Lab, interval: u64) -> Result<[Agent; 2]> {
    let agents = [prober(lab.node(1)?, interval)?, prober(lab.node(2)?, interval)?];
    for agent in &agents {
        agent.wait_page("answers on both layers", LIMIT, "leadline_path_", |page| {
            LAYERS.iter().all(|layer| page.count("leadline_path_reachable", &[("layer", layer)]) == Some(1))
        })?;
        // Probes from before the other agent began are told as lost two seconds after its first answer.
        after(agent, "overlay", 3_000 / interval)?;
    }
    Ok(agents)
}

fn sent(page: &Samples, layer: &str) -> Option<u64> {
    page.count("leadline_path_probes_sent_total", &[("layer", layer)])
}

fn lost(page: &Samples, layer: &str) -> Option<[u64; 3]> {
    let of = |way| page.count("leadline_path_probes_lost_total", &[("layer", layer), ("direction", way)]);
    let [forward, reverse, unknown] = DIRECTIONS.map(of);
    Some([forward?, reverse?, unknown?])
}

fn change(before: [u64; 3], after: [u64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|way| after[way] - before[way])
}

/// The page once so many more probes were sent on that layer.
fn after(agent: &Agent, layer: &str, probes: u64) -> Result<Samples> {
    let goal = sent(&agent.scrape()?, layer).context("nothing sent")? + probes;
    let what = format!("{probes} more probes on {layer}");
    Ok(agent.wait_page(&what, LIMIT, "leadline_path_", |page| sent(page, layer) >= Some(goal))?.0)
}

/// One of seven datagrams comes three probes late and one of eleven twice, in each direction, for a while.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn stir(lab: &Lab, agent: &Agent) -> Result<()> {
    let late_by = Duration::from_millis(35);
    let delay = Delay::disorder(lab, lab.node(2)?, Disorder { late_every: 7, late_by, twice_every: 11 })?;
    // What was lost while the cable was changed is told within two seconds.
    after(agent, "overlay", 300)?;
    let own = format!("({}) and dst host {}", truth::PROBES, lab.node(1)?.address(false)?);
    let capture = Capture::start_in_blocks(lab.node(1)?, "eth0", &own)?;
    let (first, begin) = (agent.scrape()?, truth::now()?);
    after(agent, "overlay", 500)?;
    delay.calm();
    // What is late has come, and what would be lost is told.
    let last = after(agent, "overlay", 300)?;
    let answers = truth::until_now(capture)?;
    for layer in LAYERS {
        let grown =
            |name| Some(last.count(name, &[("layer", layer)])? - first.count(name, &[("layer", layer)])?);
        let told =
            ["leadline_path_replies_reordered_total", "leadline_path_replies_duplicate_total"].map(grown);
        let seen = truth::disorder(&answers, layer, begin);
        println!("{layer}: {told:?} late and double answers, tcpdump saw {seen:?}");
        ensure!(seen.iter().all(|count| *count > 20), "{layer}: only {seen:?}");
        let is_near =
            told.iter().zip(seen).all(|(told, seen)| told.is_some_and(|told| told.abs_diff(seen) <= 1));
        ensure_precise(is_near, || format!("{layer}: {told:?}, tcpdump saw {seen:?}"))?;
        let losses = [lost(&first, layer), lost(&last, layer)];
        ensure!(losses[0].is_some() && losses[0] == losses[1], "{layer}: lost {losses:?}");
    }
    Ok(())
}

#[test]
fn late_and_double_answers_are_counted_and_are_no_losses() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    measured(|| stir(&lab, &agent))?;
    lab.shutdown()
}

#[test]
fn an_agent_that_stood_still_has_lost_nothing() -> Result<()> {
    let lab = start()?;
    let [mut agent, other] = mesh(&lab)?;
    let before = LAYERS.map(|layer| agent.scrape().ok().and_then(|page| lost(&page, layer)));
    process::freeze(agent.service().pid())?;
    // Three seconds, by the probes of the other one.
    after(&other, "underlay", 300)?;
    agent.service().signal(Signal::SIGCONT)?;
    let page = after(&agent, "underlay", 400)?;
    for (layer, before) in LAYERS.into_iter().zip(before) {
        let before = before.context("no losses")?;
        assert_eq!(change(before, lost(&page, layer).context("no losses")?), [0; 3], "{layer}");
        assert_eq!(page.count("leadline_path_reachable", &[("layer", layer)]), Some(1), "{layer}");
    }
    assert_eq!(agent.events("path_lost")?, Vec::<serde_json::Value>::new());
    lab.shutdown()
}

#[test]
fn a_reflector_that_stood_still_has_lost_nothing_and_is_not_slow() -> Result<()> {
    let lab = start()?;
    let [agent, mut other] = mesh(&lab)?;
    let first = agent.scrape()?;
    process::freeze(other.service().pid())?;
    // Three seconds.
    after(&agent, "underlay", 300)?;
    other.service().signal(Signal::SIGCONT)?;
    let last = after(&agent, "underlay", 400)?;
    for layer in LAYERS {
        let [before, now] = [&first, &last].map(|page| lost(page, layer).context("no losses"));
        assert_eq!(change(before?, now?), [0; 3], "{layer}");
        let grown = |part: &str| {
            let of = |page: &Samples| {
                page.value(&format!("leadline_path_rtt_seconds_{part}"), &[("layer", layer)])
            };
            Some(of(&last)? - of(&first)?)
        };
        // The time that probes waited there is none of the network.
        let (count, sum) = grown("count").zip(grown("sum")).context("no round trips")?;
        println!("{layer}: {count} round trips of {:.1} us", sum / count * 1e6);
        ensure!(count > 600.0 && sum / count < 5e-3, "{layer}: {count} round trips of {} s", sum / count);
    }
    lab.shutdown()
}

/// Whether the reflector answers a plain packet from there, with as many bytes.
fn is_answered(from: &impl Place, to: Ipv4Addr) -> Result<bool> {
    from.net(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").context("bind")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut packet = [0; STAMP];
        // An error estimate of nothing is none (RFC 4656, 4.1.2).
        packet[13] = 1;
        socket.send_to(&packet, (to, PORT)).context("send")?;
        match socket.recv(&mut [0; 512]) {
            Ok(length) => {
                ensure!(length == STAMP, "an answer of {length} bytes");
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("receive"),
        }
    })?
}

#[test]
fn a_stranger_gets_no_answer_and_is_counted() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    let strangers =
        |page: &Samples| page.count("leadline_path_requests_total", &[("result", "unknown_sender")]);
    let before = strangers(&agent.scrape()?).context("no count")?;
    let address = lab.node(1)?.ipv4().context("no address")?;
    ensure!(is_answered(lab.node(2)?, address)?, "a node gets no answer");
    assert_eq!(strangers(&agent.scrape()?), Some(before));
    ensure!(!is_answered(lab.switch()?, address)?, "a stranger got an answer");
    assert_eq!(strangers(&agent.scrape()?), Some(before + 1));
    lab.shutdown()
}

/// A node that knows no other one sends nothing: the only datagram of that port is the test's, sent when dozens were due.
#[test]
fn without_other_nodes_the_mesh_is_silent() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let node = lab.node(1)?;
    let mut capture = Capture::start(node, "eth0", &format!("udp port {PORT}"))?;
    let agent = prober(node, 10)?;
    agent.wait_support("path", "no", "no other node is known", LIMIT)?;
    let begun = |page: &Samples| page.value("process_start_time_seconds", &[]);
    agent.wait_page("two seconds of work", LIMIT, "process_start", |page| {
        let now = truth::now().unwrap_or_default().as_secs_f64();
        begun(page).is_some_and(|begun| now - begun > 2.0)
    })?;
    let socket = node.net(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.send_to(&[0; STAMP], (lab.switch()?.address(false)?, PORT))?;
    capture.wait_until("the test's own datagram", LIMIT, |frames| !frames.is_empty())?;
    assert_eq!(capture.frames()?.len(), 1);
    lab.shutdown()
}
