//! Part `path`: what the probes between nodes cost one node of 3, of 32 and of 1000. The other nodes are addresses of a
//! second one, whose agent answers for all of them, and from which this one is probed as often as it would be.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Effort;
use super::field::Field;
use super::process::processor_time;
use super::report::{Goal, Report};
use super::statistics::number;
use crate::scrape::Samples;
use crate::witness::device;
use crate::{Agent, AgentOptions, Lab, LabOptions, Node, Place as _};

const PORT: u16 = 9862;
/// Other nodes, and how many of them probe this one.
const CLUSTERS: [(u16, u16); 3] = [(2, 2), (31, 31), (999, 16)];
/// The default, and a pace at which the cost of a probe can be seen.
const USUAL: Duration = Duration::from_secs(1);
const FAST: Duration = Duration::from_millis(25);
const SECONDS: u64 = 20;
/// Until all that are probed have answered.
const LIMIT: Duration = Duration::from_secs(20);
/// A plain STAMP packet (RFC 8762, 4.2.1), and where its error estimate has to be more than 0 (RFC 4656, 4.1.2).
const STAMP: usize = 44;
const MULTIPLIER: usize = 13;

/// What a node takes in some time.
struct Cost {
    processor: Duration,
    time: Duration,
    /// Packets of the uplink in both directions.
    packets: u64,
    /// Probes sent, and those of others that were answered.
    probes: u64,
}

impl Cost {
    fn share(&self) -> f64 {
        self.processor.as_secs_f64() / self.time.as_secs_f64() * 100.0
    }
}

/// Two nodes of its own: on the field's only node nothing passes the uplink.
pub(super) fn measure(_field: &mut Field, effort: Effort, report: &mut Report) -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: None })?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    two.ip("route add local 198.18.0.0/15 dev lo\n")?;
    one.ip(&format!("route add 198.18.0.0/15 via {}\n", two.address(false)?))?;
    let answering = configuration(&lab, "one.yaml", &[one.ipv4().context("no address")?])?;
    let _others = agent(two, &answering, USUAL)?;
    let time = Duration::from_secs(effort.seconds(SECONDS));
    let off = {
        let agent = Agent::start(one, &AgentOptions::default())?;
        cost(one, agent, time)?.share()
    };
    let mut usual = Vec::new();
    for (others, probers) in CLUSTERS {
        let addresses: Vec<Ipv4Addr> = (0..others).map(address).collect();
        let file = configuration(&lab, "others.yaml", &addresses)?;
        let what = format!("{} nodes", others + 1);
        let one_second = probed(&lab, &file, &addresses[..probers.into()], USUAL, time)?;
        let share = one_second.share() - off;
        let packets = number(one_second.packets) / one_second.time.as_secs_f64();
        report.add(format!("packets, {what}"), "1/s", Goal::None, &[packets])?;
        report.add(format!("processor, {what}"), "% of a core", Goal::None, &[share])?;
        usual.push(share);
        let fast = probed(&lab, &file, &addresses[..probers.into()], FAST, time)?;
        let net = fast.processor.as_secs_f64() - off / 100.0 * fast.time.as_secs_f64();
        let each = net / number(fast.probes) * 1e6;
        report.add(format!("a probe, sent or answered, {what}"), "us", Goal::None, &[each])?;
    }
    let [_, all, some] = usual.as_slice() else { return Ok(()) };
    report.add("processor, 1000 nodes by that of 32", "", Goal::None, &[some / all])?;
    lab.shutdown()
}

/// The address of another node, of a network for benchmarks (RFC 2544).
fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(198, 18, high, low)
}

/// A configuration with nodes that have these addresses.
fn configuration(lab: &Lab, name: &str, addresses: &[Ipv4Addr]) -> Result<String> {
    let mut text = "peers:\n  nodes:\n".to_owned();
    for (number, address) in addresses.iter().enumerate() {
        writeln!(text, "    - {{name: other{number}, addresses: [{address}]}}")?;
    }
    let file = lab.scratch().join(name);
    fs::write(&file, text).context("write a configuration")?;
    Ok(format!("--config.file={}", file.display()))
}

fn agent(node: &Node, file: &str, pace: Duration) -> Result<Agent> {
    let pace = format!("--path.interval={}ms", pace.as_millis());
    let arguments = vec![file.to_owned(), "--collector.path=on".to_owned(), pace];
    Agent::start(node, &AgentOptions { arguments, ..AgentOptions::default() })
}

/// What it costs to probe others while these probe this node.
fn probed(lab: &Lab, file: &str, probers: &[Ipv4Addr], pace: Duration, time: Duration) -> Result<Cost> {
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let agent = agent(one, file, pace)?;
    agent.wait_page("answers of all that are probed", LIMIT, "leadline_path_", |page| {
        let probed = page.of("leadline_path_probes_sent_total", |_| true).count();
        let reachable = page.of("leadline_path_reachable", |sample| sample.count() == Some(1)).count();
        probed > 0 && probed == reachable
    })?;
    let to = SocketAddr::new(one.address(false)?, PORT);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let probers = scope.spawn(|| two.net(|| probe(probers, to, pace, &is_over)));
        let cost = cost(one, agent, time);
        is_over.store(true, Ordering::Relaxed);
        probers.join().unwrap_or_else(|payload| resume_unwind(payload))??;
        cost
    })
}

/// Probes from each of the addresses, one after the other, until it is over. What comes back is left lying.
fn probe(from: &[Ipv4Addr], to: SocketAddr, pace: Duration, is_over: &AtomicBool) -> Result<()> {
    let sockets = from.iter().map(|address| UdpSocket::bind((*address, 0)).context("bind a prober"));
    let sockets: Vec<UdpSocket> = sockets.collect::<Result<_>>()?;
    let mut packet = [0; STAMP];
    packet[MULTIPLIER] = 1;
    let pause = pace / u32::try_from(sockets.len()).context("too many probers")?;
    let (start, mut count) = (Instant::now(), 0);
    for socket in sockets.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        socket.send_to(&packet, to).context("probe")?;
        count += 1;
        // The pace is what is measured here.
        thread::sleep((pause * count).saturating_sub(start.elapsed()));
    }
    Ok(())
}

/// What the agent takes in that time.
fn cost(node: &Node, mut agent: Agent, time: Duration) -> Result<Cost> {
    let pid = agent.service().pid();
    let packets = || -> Result<u64> {
        let device = device(node, "eth0")?;
        Ok(device.receive_packets + device.transmit_packets)
    };
    let first = agent.scrape()?;
    let (begin, before, passed) = (Instant::now(), processor_time(pid)?, packets()?);
    // The passing of time is what is measured here.
    thread::sleep(time);
    let (time, after, packets) = (begin.elapsed(), processor_time(pid)?, packets()?);
    let last = agent.scrape()?;
    let (processor, packets) = (after.saturating_sub(before), packets.saturating_sub(passed));
    ensure!(!processor.is_zero(), "the agent has taken no time");
    Ok(Cost { processor, time, packets, probes: probes(&last).saturating_sub(probes(&first)) })
}

/// Probes that were sent or answered.
fn probes(page: &Samples) -> u64 {
    let sent = page.sum("leadline_path_probes_sent_total", |_| true);
    let answered = page.count("leadline_path_requests_total", &[("result", "answered")]);
    sent.unwrap_or_default() + answered.unwrap_or_default()
}
