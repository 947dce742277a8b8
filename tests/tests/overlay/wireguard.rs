//! flannel's `wireguard` backend as the kernel shows it, over devices of wireguard-go, against `ip`, `wg` and tcpdump.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::wireguard::{self, DEVICE, Wireguard};
use lab::witness::{self, tcpdump::Capture};
use lab::{Agent, AgentOptions, Lab, LabOptions, Place as _, exchange};

use super::view::{Page, Totals, View};

/// How far the round trip of a handshake may be from tcpdump's.
const PRECISION: f64 = 100e-6;

/// The round trip of the first handshake in a capture: an initiation that leaves, and the response to it.
fn handshake(capture: Capture, own: IpAddr) -> Result<Duration> {
    let IpAddr::V4(own) = own else { anyhow::bail!("{own} is of the other family") };
    let frames = capture.stop()?;
    let times = |kind: u8, is_own: bool| {
        let of = move |bytes: &[u8]| {
            bytes.get(42) == Some(&kind) && (bytes.get(26..30) == Some(&own.octets()[..])) == is_own
        };
        frames.iter().find(|frame| of(&frame.bytes)).map(|frame| frame.time)
    };
    let (asked, answered) = times(1, true).zip(times(2, false)).context("no handshake was seen")?;
    answered.checked_sub(asked).context("the answer was first")
}

#[test]
fn pods_in_wireguard_are_counted_for_their_node_and_its_handshake_is_seen() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: None })?;
    let _network = Wireguard::start(&lab)?;
    let (node, other) = (lab.node(1)?, lab.node(2)?);
    for node in [node, other] {
        // The device's own announcements (IPv6 router solicitations) belong to no node.
        node.run(&["sysctl", "-qw", "net.ipv6.conf.flannel-wg.disable_ipv6=1"])?;
    }
    let arguments = vec!["--peers.pod-cidrs=10.42.0.0/16".to_owned()];
    let view = View::new(Agent::start(node, &AgentOptions { arguments, ..AgentOptions::default() })?);
    // Nobody names the node, and WireGuard does not say behind which address it is.
    let peer = wireguard::address(other).to_string();
    view.await_that("the node behind the prefix", |page| page.totals(DEVICE, &peer).is_some())?;
    let page = view.page()?;
    assert_eq!(page.info(), [("wireguard".to_owned(), DEVICE.to_owned())]);
    assert_eq!((page.mtu(DEVICE), page.up(DEVICE)), (Some(wireguard::MTU.into()), Some(1)));
    assert_eq!(page.missing(DEVICE, &peer, "route"), Some(0));

    let capture = Capture::start(node, "eth0", &format!("udp port {}", wireguard::PORT))?;
    let told = || view.page()?.totals(DEVICE, &peer).context("no counts");
    let seen = || -> Result<Totals> {
        let device = witness::device(node, DEVICE)?;
        Ok(Totals {
            receive_packets: device.receive_packets,
            receive_bytes: device.receive_bytes,
            transmit_packets: device.transmit_packets,
            transmit_bytes: device.transmit_bytes,
        })
    };
    let before = (told()?, seen()?);
    let [own, to] = [node, other].map(|node| wireguard::address(node).into());
    exchange::datagrams((node, own), (other, to), 200, 500)?;
    let grown = told()?.since(&before.0);
    assert_eq!(grown, seen()?.since(&before.1));
    assert_eq!((grown.receive_packets, grown.transmit_bytes), (200, 200 * 528));

    wireguard::wait_handshake(node)?;
    let endpoint = format!("{}:{}", other.address(false)?, wireguard::PORT);
    let labels = [("peer", endpoint.as_str())];
    let read = |page: &Page| page.0.value("leadline_tunnel_peer_handshake_rtt_seconds", &labels);
    view.await_that("the handshake", |page| read(page).is_some())?;
    let page = view.page()?;
    let rtt = read(&page).context("no round trip")?;
    let truth = handshake(capture, node.address(false)?)?.as_secs_f64();
    ensure!((rtt - truth).abs() < PRECISION, "a handshake of {rtt} s, tcpdump saw {truth} s");
    let time = page.0.value("leadline_tunnel_peer_handshake_timestamp_seconds", &labels);
    let (time, said) = (time.context("no time")?, wireguard::last_handshake(node)?);
    // wg has whole seconds.
    ensure!((time - f64::from(u32::try_from(said)?)).abs() < 1.1, "a handshake at {time}, wg says {said}");
    drop(view);
    lab.shutdown()
}
