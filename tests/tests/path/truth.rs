//! Round trips of probes by tcpdump's times at the devices of both nodes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use lab::witness::tcpdump::{Capture, Frame};
use lab::{Node, cilium};

pub(crate) const PROBES: &str = "udp port 9862 or udp port 8472";
pub(crate) const REFLECTOR: u16 = 9862;
const VXLAN: u16 = 8472;
/// Bytes of the headers of Ethernet, IPv4 without options, UDP and VXLAN.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const VXLAN_HEADER: usize = 8;
/// Where an answer repeats the number of the probe (RFC 8762, 4.3.1).
pub(crate) const SENDER_SEQUENCE: usize = 24;

/// How far from the truth a median may be in seconds.
pub(crate) const MEDIAN_ERROR: f64 = 20e-6;

/// More bytes than a probe has in either mode; one that looks for the MTU has more.
const PLAIN: usize = 200;

/// Frames come in blocks of a second.
const LIMIT: Duration = Duration::from_secs(10);

/// Where probes are watched.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// The device of the underlay, which carries those of the underlay and of the overlay.
    Underlay,
    /// The device of the tunnel, whose packets have no Ethernet header.
    Tunnel,
    /// The device at which Cilium's programs take what they encapsulate, and give what came so.
    Cilium,
}

impl Place {
    const fn device(self) -> &'static str {
        match self {
            Self::Underlay => "eth0",
            Self::Tunnel => "tailscale0",
            Self::Cilium => cilium::HOST,
        }
    }

    /// How far from the truth a mean may be in seconds. At a device of a program a round trip now and then takes some
    /// milliseconds, and the first and the last ones are not the same for both.
    pub(crate) const fn mean_error(self) -> f64 {
        match self {
            Self::Underlay | Self::Cilium => MEDIAN_ERROR,
            Self::Tunnel => 50e-6,
        }
    }

    /// The layers whose probes are seen there.
    pub(crate) const fn layers(self) -> &'static [&'static str] {
        match self {
            Self::Underlay => &["underlay", "overlay"],
            Self::Tunnel => &["tunnel"],
            Self::Cilium => &["overlay"],
        }
    }

    /// The probe of a frame, and whether it is the answer.
    fn probe(self, frame: &[u8]) -> Option<(Key, bool)> {
        match self {
            Self::Underlay => probe(frame.get(ETHERNET..)?, "underlay"),
            Self::Tunnel => probe(frame, "tunnel"),
            Self::Cilium => probe(frame.get(ETHERNET..)?, "overlay"),
        }
    }
}

/// A probe: its layer, its sender's port, its number.
type Key = (&'static str, u16, u32);

/// The captures at both ends.
pub(crate) struct Watch {
    place: Place,
    sender: Capture,
    reflector: Capture,
}

/// A probe's round trip.
pub(crate) struct Round {
    layer: &'static str,
    arrived: Duration,
    rtt: Duration,
    /// The time at the reflector.
    stay: Duration,
    /// The time there and the time back in seconds.
    transits: [f64; 2],
}

/// What both captures have of the sender's probes.
pub(crate) struct Truth {
    /// In the order of the answers.
    rounds: Vec<Round>,
    /// When each probe left, by its layer.
    sent: Vec<(&'static str, Duration)>,
}

impl Watch {
    /// From now on, at the devices of both.
    pub(crate) fn start(place: Place, sender: &Node, reflector: &Node) -> Result<Self> {
        let capture = |node| Capture::start_in_blocks(node, place.device(), PROBES);
        Ok(Self { place, sender: capture(sender)?, reflector: capture(reflector)? })
    }

    /// The sender's probes, and the round trips that were seen whole until now, without their time at the reflector.
    pub(crate) fn stop(self) -> Result<Truth> {
        let now = now()?;
        let ends = |capture| Ok::<Ends, anyhow::Error>(Ends::of(self.place, &until_now(capture)?));
        let (sender, reflector) = (ends(self.sender)?, ends(self.reflector)?);
        let rounds = sender.answers.iter().filter_map(|(key, arrived)| {
            let (left, sent) = (sender.requests.get(key)?, reflector.answers.get(key)?);
            let received = reflector.requests.get(key)?;
            // A probe of the other node was longer there than here: it is none.
            let stay = sent.checked_sub(*received)?;
            let rtt = arrived.checked_sub(*left)?.checked_sub(stay)?;
            let transits =
                [(received, left), (arrived, sent)].map(|(to, from)| seconds(*to) - seconds(*from));
            Some(Round { layer: key.0, arrived: *arrived, rtt, stay, transits })
        });
        let mut rounds: Vec<Round> = rounds.filter(|round| round.arrived <= now).collect();
        rounds.sort_by_key(|round| round.arrived);
        // Those of the other node leave there.
        let own = sender
            .requests
            .iter()
            .filter(|(key, left)| reflector.requests.get(*key).is_none_or(|received| received >= *left));
        Ok(Truth { rounds, sent: own.map(|(key, left)| (key.0, *left)).collect() })
    }
}

impl Truth {
    /// The round trips on a layer, in the order of the answers.
    fn on(&self, layer: &str) -> Vec<&Round> {
        self.rounds.iter().filter(|round| round.layer == layer).collect()
    }

    /// Probes that left on a layer between two moments.
    pub(crate) fn sent(&self, layer: &str, between: [Duration; 2]) -> usize {
        let [from, to] = between;
        self.sent.iter().filter(|(of, left)| *of == layer && (from..to).contains(left)).count()
    }

    /// Round trips in seconds on a layer whose answers came between two moments.
    pub(crate) fn arrived(&self, layer: &str, between: [Duration; 2]) -> Vec<f64> {
        self.between(layer, between, |round| round.rtt)
    }

    /// All round trips in seconds on a layer.
    pub(crate) fn all(&self, layer: &str) -> Vec<f64> {
        self.on(layer).into_iter().map(|round| round.rtt.as_secs_f64()).collect()
    }

    /// Times at the reflector in seconds, of the same in their order.
    pub(crate) fn stays(&self, layer: &str, between: [Duration; 2]) -> Vec<f64> {
        let mut stays = self.between(layer, between, |round| round.stay);
        stays.sort_by(f64::total_cmp);
        stays
    }

    fn between(&self, layer: &str, [from, to]: [Duration; 2], time: fn(&Round) -> Duration) -> Vec<f64> {
        let rounds = self.on(layer).into_iter().filter(|round| (from..to).contains(&round.arrived));
        rounds.map(|round| time(round).as_secs_f64()).collect()
    }

    /// The median of so many round trips on a layer in seconds, after each of the last answers.
    pub(crate) fn medians(&self, layer: &str, count: usize, answers: usize) -> Result<Vec<f64>> {
        let rounds = self.on(layer);
        ensure!(rounds.len() >= count + answers, "{} round trips on {layer}", rounds.len());
        let medians = rounds.windows(count).rev().take(answers).map(|window| {
            let mut sorted: Vec<f64> = window.iter().map(|round| round.rtt.as_secs_f64()).collect();
            sorted.sort_by(f64::total_cmp);
            sorted[count / 2]
        });
        Ok(medians.collect())
    }

    /// The jitter there and back (RFC 3550, 6.4.1) in seconds, after each of the last so many round trips on a layer.
    pub(crate) fn jitter(&self, layer: &str, count: usize) -> Vec<[f64; 2]> {
        let (rounds, mut jitter) = (self.on(layer), [0.0; 2]);
        let all = rounds.windows(2).map(|pair| {
            for way in [0, 1] {
                let change = (pair[1].transits[way] - pair[0].transits[way]).abs();
                jitter[way] += (change - jitter[way]) / 16.0;
            }
            jitter
        });
        let all: Vec<[f64; 2]> = all.collect();
        all[all.len().saturating_sub(count)..].to_vec()
    }
}

/// Ends a capture, whose frames come in blocks, when it has all until now.
pub(crate) fn until_now(mut capture: Capture) -> Result<Vec<Frame>> {
    let now = now()?;
    capture
        .wait_until("a later frame", LIMIT, |frames| frames.last().is_some_and(|frame| frame.time > now))?;
    capture.stop()
}

/// Answers on a layer from a moment on that came after that to a later probe, and further answers to one probe.
pub(crate) fn disorder(answers: &[Frame], layer: &str, from: Duration) -> [u64; 2] {
    let (mut seen, mut latest, mut counts) = (HashSet::new(), None, [0; 2]);
    for frame in answers {
        let Some(((of, _, number), true)) = Place::Underlay.probe(&frame.bytes) else { continue };
        if of != layer {
            continue;
        }
        let is_late = latest.is_some_and(|latest| number < latest);
        let is_double = !seen.insert(number);
        latest = latest.max(Some(number));
        if frame.time >= from {
            counts[0] += u64::from(is_late && !is_double);
            counts[1] += u64::from(is_double);
        }
    }
    counts
}

/// The time since 1970.
pub(crate) fn now() -> Result<Duration> {
    SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")
}

/// So many per cent of the sorted values are not above it.
pub(crate) fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).checked_sub(1)?).copied()
}

/// Within a day, since a float of the time since 1970 would not have its nanoseconds.
fn seconds(time: Duration) -> f64 {
    Duration::new(time.as_secs() % 86_400, time.subsec_nanos()).as_secs_f64()
}

/// When requests and answers passed.
#[derive(Default)]
struct Ends {
    requests: HashMap<Key, Duration>,
    answers: HashMap<Key, Duration>,
}

impl Ends {
    fn of(place: Place, frames: &[Frame]) -> Self {
        let mut ends = Self::default();
        for frame in frames {
            match place.probe(&frame.bytes) {
                Some((key, true)) => ends.answers.insert(key, frame.time),
                Some((key, false)) => ends.requests.insert(key, frame.time),
                None => None,
            };
        }
        ends
    }
}

/// The probe of a packet on a layer, or of the packet of the overlay within it, and whether it is the answer.
fn probe(packet: &[u8], layer: &'static str) -> Option<(Key, bool)> {
    let (layer, ports, payload) = innermost(packet, layer)?;
    if payload.len() > PLAIN {
        return None;
    }
    let number = |at: usize| payload.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    match ports {
        [REFLECTOR, port] => Some(((layer, port, number(SENDER_SEQUENCE)?), true)),
        [port, REFLECTOR] => Some(((layer, port, number(0)?), false)),
        _ => None,
    }
}

/// The layer, both ports and the payload of the datagram in a frame of the underlay.
pub(crate) fn packet(frame: &[u8]) -> Option<(&'static str, [u16; 2], &[u8])> {
    innermost(frame.get(ETHERNET..)?, "underlay")
}

/// The same of a packet on a layer, which may have one of the overlay within it.
fn innermost<'a>(packet: &'a [u8], layer: &'static str) -> Option<(&'static str, [u16; 2], &'a [u8])> {
    let (ports, payload) = datagram(packet)?;
    if ports[1] == VXLAN {
        let (ports, payload) = datagram(payload.get(VXLAN_HEADER + ETHERNET..)?)?;
        return Some(("overlay", ports, payload));
    }
    Some((layer, ports, payload))
}

/// Both ports and the payload.
fn datagram(packet: &[u8]) -> Option<([u16; 2], &[u8])> {
    let udp = packet.get(IPV4..)?;
    let port = |at: usize| udp.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    Some(([port(0)?, port(2)?], udp.get(UDP..)?))
}
