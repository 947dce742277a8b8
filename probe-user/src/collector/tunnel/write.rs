//! From the last answer to series.

use std::path::Path;

use ipnet::IpNet;

use super::descriptor;
use super::memory::Memory;
use super::state::{State, is_nested, routes};
use crate::event::Timestamp;
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};
use crate::source::tailscale::{Backend, Peer, PeerPath, Reading};

/// A family of peers, and which part of what is known it shows.
type Column = (&'static Descriptor, fn(&Peer, &Memory) -> Option<Value>);

const COLUMNS: [Column; 8] = [
    (&descriptor::CHANGES, |_, memory| Some(Value::Integer(memory.changes()))),
    (&descriptor::HANDSHAKE, |peer, _| peer.handshake.map(seconds)),
    (&descriptor::RECEIVED, |_, memory| memory.received().map(Value::Integer)),
    (&descriptor::TRANSMITTED, |_, memory| memory.transmitted().map(Value::Integer)),
    (&descriptor::PEER_ONLINE, |peer, _| peer.is_online.map(flag)),
    (&descriptor::PEER_KEY_EXPIRY, |peer, _| peer.key_expiry.map(seconds)),
    (&descriptor::PEER_EXPIRED, |peer, _| Some(flag(peer.is_expired))),
    (&descriptor::ONE_WAY, |peer, memory| peer.path.map(|_| flag(memory.is_one_way()))),
];

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
    let offered = reading.advertised.as_ref().map_or(0, Vec::len);
    let mut family = sink.family(&descriptor::OMITTED);
    family.value(&["peer"], count(reading.peers.len().saturating_sub(peers.len())));
    family.value(&["route"], count(offered.saturating_sub(routes.len())));
}

fn write_own(sink: &mut Sink<'_>, socket: &Path, reading: &Reading) {
    let labels = [reading.version.as_deref().unwrap_or("unknown"), &socket.to_string_lossy()];
    sink.family(&descriptor::INFO).value(&labels, Value::Integer(1));
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
