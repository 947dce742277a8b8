//! Routers that say that a packet is too big: as many messages as a real one has sent, by its own count and by tcpdump's;
//! the MTU of its way onwards, for as long as the kernel remembers it; and none that somebody forged.

#![expect(clippy::print_stdout, reason = "a test shows what it measured")]

mod too_big {
    mod flood;
    pub(crate) mod forged;
    mod told;
}

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::scrape::Samples;
use lab::{Agent, AgentOptions, Backend, Flannel, Lab, LabOptions, Place};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

use too_big::forged;

const LIMIT: Duration = Duration::from_secs(20);
/// The other node, as the agent names it: flannel knows no names.
const PEER: &str = "192.168.56.12";
const MESSAGES: &str = "leadline_path_too_big_messages_total";
const REASONS: [&str; 3] = ["destination", "source", "malformed"];
/// Bytes of a packet that fills the underlay.
const FULL: u64 = 1_500;
/// Where nobody listens.
const PORT: u16 = 7_009;

/// Two nodes whose addresses nobody has to ask for, and the agent of the first.
fn start(backend: Backend) -> Result<(Lab, Agent)> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel { backend, ipv6: true }) })?;
    lab.pin_underlay()?;
    let agent = Agent::start(lab.node(1)?, &AgentOptions::default())?;
    agent.wait_page("the other node and the tap", LIMIT, "leadline_", |page| {
        let tap = page.count("leadline_tap_attached", &[("interface", "eth0")]);
        tap == Some(1) && told(page) == (Some(0), None)
    })?;
    Ok((lab, agent))
}

/// Messages about the other node, and its MTU.
fn told(page: &Samples) -> (Option<u64>, Option<u64>) {
    let of = |name| page.count(name, &[("peer_node", PEER)]);
    (of(MESSAGES), of("leadline_path_too_big_mtu_bytes"))
}

/// Messages about no node, by reason.
fn others(page: &Samples) -> [Option<u64>; 3] {
    REASONS.map(|reason| page.count("leadline_path_too_big_other_messages_total", &[("reason", reason)]))
}

/// Waits until so many messages were about the other node and that is its MTU.
fn expect(agent: &Agent, messages: u64, mtu: Option<u64>) -> Result<Samples> {
    let what = format!("{messages} messages and an MTU of {mtu:?}");
    let is_so = |page: &Samples| told(page) == (Some(messages), mtu);
    Ok(agent.wait_page(&what, LIMIT, "leadline_path_too_big", is_so)?.0)
}

/// Sends datagrams that make packets of so many bytes, which nobody may fragment, whatever the kernel knows of the path.
fn send(from: &impl Place, to: IpAddr, bytes: u64, count: u64) -> Result<()> {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let payload = vec![0x5a; usize::try_from(bytes - headers)?];
    from.net(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).context("bind")?;
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE).context("IP_MTU_DISCOVER")?;
        set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE).context("IPV6_MTU_DISCOVER")?;
        let to = match to {
            IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
            IpAddr::V6(_) => to,
        };
        for _ in 0..count {
            socket.send_to(&payload, SocketAddr::new(to, PORT)).context("send")?;
        }
        Ok(())
    })?
}
