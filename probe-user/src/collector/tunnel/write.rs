//! From the last answer to series.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::descriptor;
use super::memory::Memory;
use super::state::{State, is_nested, routes};
use super::wire::Wire;
use crate::collector::vip::happening::Nanos;
use crate::event::Timestamp;
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};
use crate::source::tailscale::{Backend, Peer, PeerPath, Reading};

/// A family of peers, and which part of what is known it shows.
type Column = (&'static Descriptor, fn(&Peer, &Memory) -> Option<Value>);

const COLUMNS: [Column; 6] = [
    (&descriptor::CHANGES, |_, memory| Some(Value::Integer(memory.changes()))),
    (&descriptor::RECEIVED, |_, memory| memory.received().map(Value::Integer)),
    (&descriptor::TRANSMITTED, |_, memory| memory.transmitted().map(Value::Integer)),
    (&descriptor::PEER_ONLINE, |peer, _| peer.is_online.map(flag)),
    (&descriptor::PEER_KEY_EXPIRY, |peer, _| peer.key_expiry.map(seconds)),
    (&descriptor::PEER_EXPIRED, |peer, _| Some(flag(peer.is_expired))),
];

/// What tailscaled says.
pub(super) fn write(sink: &mut Sink<'_>, state: &State, socket: &Path, reading: &Reading) {
    write_own(sink, socket, reading);
    let routes = routes(reading);
    if reading.backend == Backend::Running {
        let mut family = sink.family(&descriptor::ROUTE);
        for (route, is_approved) in &routes {
            family.value(&[&route.to_string()], flag(*is_approved));
        }
    }
    let peers: Vec<_> = state.peers(reading).collect();
    write_paths(sink, &peers, state.inner());
    for (descriptor, read) in COLUMNS {
        let mut family = sink.family(descriptor);
        for (name, peer, memory) in &peers {
            if let Some(value) = read(peer, memory) {
                family.value(&[name], value);
            }
        }
    }
}

/// What the uplinks show, and handshakes of either source.
pub(super) fn write_wire(
    sink: &mut Sink<'_>,
    state: &State,
    reading: Option<&Reading>,
    wire: &Wire,
    now: Nanos,
) {
    let peers: Vec<_> = wire.peers(now).collect();
    let listed: Vec<_> = reading.into_iter().flat_map(|reading| state.peers(reading)).collect();
    let mut family = sink.family(&descriptor::HANDSHAKE);
    for (name, handshake) in listed.iter().filter_map(|(name, peer, _)| Some((name, peer.handshake?))) {
        family.value(&[name], seconds(handshake));
    }
    let is_listed = |label: &str| listed.iter().any(|(name, ..)| *name == label);
    for (label, totals, _) in peers.iter().filter(|(label, ..)| !is_listed(label)) {
        if let Some(handshake) = totals.handshake {
            family.value(&[label], seconds(handshake));
        }
    }
    let mut family = sink.family(&descriptor::ONE_WAY);
    for (name, _, memory) in listed.iter().filter(|(_, peer, _)| peer.path.is_some()) {
        family.value(&[name], flag(memory.is_one_way()));
    }
    for (label, is_one_way) in wire.one_way().into_iter().filter(|(label, _)| !is_listed(label)) {
        family.value(&[label], flag(is_one_way));
    }
    let mut family = sink.family(&descriptor::RTT);
    for (label, totals, _) in peers.iter().filter(|(_, totals, _)| totals.rtt.count() > 0) {
        family.histogram(&[label], &totals.rtt.buckets());
    }
    let mut family = sink.family(&descriptor::PINGS);
    for (label, totals, _) in peers.iter().filter(|(_, totals, _)| totals.answered > 0) {
        family.value(&[label, "answered"], Value::Integer(totals.answered));
        family.value(&[label, "unanswered"], Value::Integer(totals.unanswered));
    }
    let mut family = sink.family(&descriptor::REACHABLE);
    for (label, is_reachable) in peers.iter().filter_map(|(label, _, answers)| Some((label, (*answers)?))) {
        family.value(&[label], flag(is_reachable));
    }
    let mut family = sink.family(&descriptor::HANDSHAKE_RTT);
    for (label, rtt) in peers.iter().filter_map(|(label, totals, _)| Some((label, totals.handshake_rtt?))) {
        family.value(&[label], Value::Float(Duration::from_nanos(rtt).as_secs_f64()));
    }
    sink.family(&descriptor::FOREIGN).value(&[], Value::Integer(wire.foreign()));
    write_omitted(sink, listed.len(), reading, wire);
}

fn write_omitted(sink: &mut Sink<'_>, listed: usize, reading: Option<&Reading>, wire: &Wire) {
    let offered = reading.and_then(|reading| reading.advertised.as_ref()).map_or(0, Vec::len);
    let shown = reading.map_or(0, |reading| routes(reading).len());
    let peers = reading.map_or(0, |reading| reading.peers.len());
    let mut family = sink.family(&descriptor::OMITTED);
    family.value(&["peer"], count(peers.saturating_sub(listed)));
    family.value(&["route"], count(offered.saturating_sub(shown)));
    family.value(&["endpoint"], count(wire.omitted()));
}

fn write_own(sink: &mut Sink<'_>, socket: &Path, reading: &Reading) {
    let labels = [reading.version.as_deref().unwrap_or("unknown"), &socket.to_string_lossy()];
    sink.family(&descriptor::INFO).value(&labels, Value::Integer(1));
    if let Some(relay) = &reading.own.home_relay {
        sink.family(&descriptor::HOME_RELAY).value(&[relay], Value::Integer(1));
    }
    let mut family = sink.family(&descriptor::STATE);
    for of in Backend::ALL {
        family.value(&[of.as_str()], flag(reading.backend == of));
    }
    for (descriptor, value) in [
        (&descriptor::ONLINE, reading.own.is_online.map(flag)),
        (&descriptor::KEY_EXPIRY, reading.own.key_expiry.map(seconds)),
        (&descriptor::HEALTH, reading.health.map(Value::Integer)),
    ] {
        if let Some(value) = value {
            sink.family(descriptor).value(&[], value);
        }
    }
}

fn write_paths(sink: &mut Sink<'_>, peers: &[(&str, &Peer, &Memory)], inner: &[IpNet]) {
    let mut family = sink.family(&descriptor::PATH);
    for (name, path) in peers.iter().filter_map(|(name, peer, _)| Some((name, peer.path?))) {
        for of in PeerPath::ALL {
            family.value(&[name, of.as_str()], flag(path == of));
        }
    }
    let mut family = sink.family(&descriptor::ENDPOINT);
    for (name, endpoint) in peers.iter().filter_map(|(name, peer, _)| Some((name, peer.endpoint?))) {
        family.value(&[name, &endpoint.to_string()], Value::Integer(1));
    }
    let mut family = sink.family(&descriptor::ADDRESS);
    for (name, address) in
        peers.iter().flat_map(|(name, peer, _)| peer.addresses.iter().map(move |of| (name, of)))
    {
        family.value(&[name, &address.to_string()], Value::Integer(1));
    }
    let mut family = sink.family(&descriptor::NESTED);
    for (name, is_nested) in peers.iter().filter_map(|(name, peer, _)| Some((name, is_nested(peer, inner)?)))
    {
        family.value(&[name], flag(is_nested));
    }
}

fn flag(is: bool) -> Value {
    Value::Integer(is.into())
}

fn count(of: usize) -> Value {
    Value::Integer(u64::try_from(of).unwrap_or(u64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "half a microsecond of a time since 1970")]
fn seconds(time: Timestamp) -> Value {
    Value::Float(time.unix_nanos() as f64 / 1e9)
}
