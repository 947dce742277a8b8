//! Round trips of probes by tcpdump's times at the devices of both nodes.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use lab::Node;
use lab::witness::tcpdump::{Capture, Frame};

const PROBES: &str = "udp port 9862 or udp port 8472";
const REFLECTOR: u16 = 9862;
const VXLAN: u16 = 8472;
/// Bytes of the headers of Ethernet, IPv4 without options, UDP and VXLAN.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const VXLAN_HEADER: usize = 8;
/// Where an answer repeats the number of the probe (RFC 8762, 4.3.1).
const SENDER_SEQUENCE: usize = 24;

/// Frames come in blocks of a second.
const LIMIT: Duration = Duration::from_secs(10);

/// A probe: its layer, its sender's port, its number.
type Key = (&'static str, u16, u32);

/// The captures at both ends.
pub(crate) struct Watch {
    sender: Capture,
    reflector: Capture,
}

/// A probe's round trip.
pub(crate) struct Round {
    layer: &'static str,
    arrived: Duration,
    rtt: Duration,
}

impl Watch {
    /// From now on, at the underlay devices of both.
    pub(crate) fn start(sender: &Node, reflector: &Node) -> Result<Self> {
        let capture = |node| Capture::start_in_blocks(node, "eth0", PROBES);
        Ok(Self { sender: capture(sender)?, reflector: capture(reflector)? })
    }

    /// The round trips of the sender's probes that were seen whole until now, without their time at the reflector.
    pub(crate) fn stop(mut self) -> Result<Vec<Round>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        for capture in [&mut self.sender, &mut self.reflector] {
            capture.wait_until("a later frame", LIMIT, |frames| {
                frames.last().is_some_and(|frame| frame.time > now)
            })?;
        }
        let sender = Ends::of(&self.sender.stop()?);
        let reflector = Ends::of(&self.reflector.stop()?);
        let rounds = sender.answers.iter().filter_map(|(key, arrived)| {
            let whole = arrived.checked_sub(*sender.requests.get(key)?)?;
            let residence = reflector.answers.get(key)?.checked_sub(*reflector.requests.get(key)?)?;
            // A probe of the other node was longer there than here: it is none.
            Some(Round { layer: key.0, arrived: *arrived, rtt: whole.checked_sub(residence)? })
        });
        Ok(rounds.filter(|round: &Round| round.arrived <= now).collect())
    }
}

/// When requests and answers passed.
#[derive(Default)]
struct Ends {
    requests: HashMap<Key, Duration>,
    answers: HashMap<Key, Duration>,
}

impl Ends {
    fn of(frames: &[Frame]) -> Self {
        let mut ends = Self::default();
        for frame in frames {
            match probe(&frame.bytes) {
                Some((key, true)) => ends.answers.insert(key, frame.time),
                Some((key, false)) => ends.requests.insert(key, frame.time),
                None => None,
            };
        }
        ends
    }
}

/// The probe of a frame, and whether it is the answer.
fn probe(frame: &[u8]) -> Option<(Key, bool)> {
    let (ports, payload) = datagram(frame)?;
    let (layer, ports, payload) = if ports[1] == VXLAN {
        let (ports, payload) = datagram(payload.get(VXLAN_HEADER..)?)?;
        ("overlay", ports, payload)
    } else {
        ("underlay", ports, payload)
    };
    let number = |at: usize| payload.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    match ports {
        [REFLECTOR, port] => Some(((layer, port, number(SENDER_SEQUENCE)?), true)),
        [port, REFLECTOR] => Some(((layer, port, number(0)?), false)),
        _ => None,
    }
}

/// Both ports and the payload.
fn datagram(frame: &[u8]) -> Option<([u16; 2], &[u8])> {
    let udp = frame.get(ETHERNET + IPV4..)?;
    let port = |at: usize| udp.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    Some(([port(0)?, port(2)?], udp.get(UDP..)?))
}

/// The median of the last so many round trips on a layer.
pub(crate) fn median(rounds: &[Round], layer: &str, count: usize) -> Result<Duration> {
    let mut rounds: Vec<&Round> = rounds.iter().filter(|round| round.layer == layer).collect();
    ensure!(rounds.len() >= count, "{} round trips on {layer}", rounds.len());
    rounds.sort_by_key(|round| round.arrived);
    let mut last: Vec<Duration> = rounds.iter().rev().take(count).map(|round| round.rtt).collect();
    last.sort_unstable();
    last.get(count / 2).copied().context("no round trip")
}
