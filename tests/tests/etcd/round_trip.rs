//! The round trips between members on the wire: those of connections that are older than the agent, against tcpdump.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::etcd::{PEER_PORT as PORT, Version};
use lab::scrape::Samples;
use lab::witness::segment::{End, answered};
use lab::witness::tcpdump::Capture;
use lab::witness::{ensure_precise, measured};
use lab::{Delay, Etcd, Lab, LabOptions, Place as _};

use crate::of;
use crate::stage::{agent, has_margin, wait_page};

/// What the agent may be off by.
const BOUND: Duration = Duration::from_micros(50);
/// From the node and to it.
const DELAYS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(15)];

fn least(page: &Samples, peer: IpAddr) -> Option<Duration> {
    let labels = [("port", &*PORT.to_string()), ("peer_address", &*peer.to_string())];
    page.value("leadline_tcp_port_min_rtt_seconds", &labels).map(Duration::from_secs_f64)
}

/// What tcpdump has of the connections between two nodes, of which the first is the client in one capture and the server
/// in the other.
struct Witness([(End, Capture); 2]);

impl Witness {
    fn start(lab: &Lab, peer: u8) -> Result<Self> {
        let (near, far) = (lab.node(1)?.address(false)?, lab.node(peer)?.address(false)?);
        let capture = |client: IpAddr, server: IpAddr| {
            let filter = format!(
                "tcp and ((src host {client} and dst host {server} and dst port {PORT}) or \
                 (src host {server} and dst host {client} and src port {PORT}))"
            );
            Capture::start(lab.node(1)?, "eth0", &filter)
        };
        Ok(Self([(End::Client, capture(near, far)?), (End::Server, capture(far, near)?)]))
    }

    fn least(self) -> Result<Duration> {
        let mut all = Vec::new();
        for (end, capture) in self.0 {
            all.extend(answered(&capture.stop()?, PORT, end)?.round_trips);
        }
        all.into_iter().min().context("no round trip")
    }
}

fn compare(delays: Option<[Duration; 2]>) -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: None })?;
    // Before the members connect: the kernel remembers the least round trip of a connection for five minutes.
    let delay = delays.map(|delays| Delay::insert_asymmetric(&lab, lab.node(2)?, delays)).transpose()?;
    let witnesses = [(2, Witness::start(&lab, 2)?), (3, Witness::start(&lab, 3)?)];
    let etcd = Etcd::start(&lab, &of(Version::V3_6))?;
    let observer = agent(lab.node(1)?, &["--etcd.election-timeout=1s"])?;
    let peers = [lab.node(2)?.address(false)?, lab.node(3)?.address(false)?];
    let (page, _) = wait_page(&observer, "the round trips to both peers", |page| {
        has_margin(page, 1) && peers.iter().all(|peer| least(page, *peer).is_some())
    })?;
    let shown = peers.map(|peer| least(&page, peer));
    for ((node, witness), shown) in witnesses.into_iter().zip(shown) {
        let (shown, told) = (shown.context("no round trip")?, witness.least()?);
        println!("node{node}: {shown:?}, on the wire {told:?}");
        ensure_precise(shown.abs_diff(told) <= BOUND, || {
            format!("node{node}: {shown:?}, but {told:?} on the wire")
        })?;
    }
    for peer in peers {
        let name = page.only("leadline_etcd_member_info", &[("peer_address", &peer.to_string())]);
        ensure!(name.is_some(), "the address {peer} has no member");
    }
    if let (Some([from, to]), Some(shown)) = (delays, shown[0]) {
        ensure!(shown >= from + to, "{shown:?} with {from:?} and {to:?}");
        let share = page.value("leadline_etcd_election_budget_ratio", &[("part", "round_trip")]);
        let share = share.context("no share of the election timeout")?;
        ensure_precise((share / (from + to).as_secs_f64() - 1.0).abs() < 0.05, || {
            format!("a share of {share}")
        })?;
    }
    drop((delay, etcd));
    lab.shutdown()
}

fn check(delays: Option<[Duration; 2]>) -> Result<()> {
    measured(|| compare(delays))
}

#[test]
fn the_least_round_trip_between_members_is_that_of_the_wire() -> Result<()> {
    check(None)
}

#[test]
fn a_member_that_is_far_away_takes_its_part_of_the_election_timeout() -> Result<()> {
    check(Some(DELAYS))
}
