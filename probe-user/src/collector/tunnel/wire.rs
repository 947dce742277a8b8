//! What the uplinks show of tunnels, without a word of any daemon: how long the pings that tailscaled sends to its peers are
//! under way, whether an address still answers, and when ends of `WireGuard` greeted each other. Pure: packets with their
//! times in, changes out.
//!
//! A ping is paired with the pong by its addresses, and the newest one counts: with loss any other pairing is wrong from
//! the first lost packet on. Who an address belongs to tailscaled says while it sends there; the key of the other end is
//! remembered with it, so that its other addresses are known, too.

mod greeting;
mod memory;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::memory::Memory;
pub(super) use self::peer::Totals;
use crate::collector::vip::happening::Nanos;
use crate::event::Timestamp;
use crate::source::tailscale::{Peer, PeerPath, Reading};
use crate::wire::disco::{Disco, DiscoKey, Kind};
use crate::wire::tunnel::{Message, Observation};
use crate::wire::wireguard::Handshake;

/// Addresses that are remembered: several of each of the peers that have series.
const MOST_ENDPOINTS: usize = 1_024;
/// Peers that have series, as with those that tailscaled lists.
const MOST_PEERS: usize = super::state::MOST_PEERS;
/// Authors elsewhere that are remembered, before all of them are forgotten.
const MOST_STRANGERS: usize = 1_024;
/// So long an address is remembered that nothing was sent to.
const FORGOTTEN: Nanos = 600_000_000_000;
/// So long tailscaled has to say whose address it is.
const PATIENCE: Nanos = 30_000_000_000;

/// Where packets for a peer go: its address, or that of a relay with the number of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub address: SocketAddr,
    /// The session on a relay.
    pub session: Option<u32>,
}

/// A packet, and how it passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: Nanos,
    /// The same by the clock of this node.
    pub clock: Timestamp,
    /// Sent by this node, else received.
    pub transmitted: bool,
    /// The packet.
    pub seen: Observation,
}

/// An address that ceased to answer, or answers again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The value of the `peer` label; none as long as that is not known.
    pub peer: Option<Arc<str>>,
    /// The address.
    pub endpoint: Endpoint,
    /// When the first packet was sent that was not answered; none once one is.
    pub silent_since: Option<Nanos>,
    /// How long the address had been silent.
    pub lasted: Option<Nanos>,
    /// The last round trip before.
    pub rtt: Option<Nanos>,
}

/// A peer of which tailscaled does not speak, and whose data is lost from now on, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneWay {
    /// The value of the `peer` label; none as long as that is not known.
    pub peer: Option<Arc<str>>,
    /// The address.
    pub endpoint: Endpoint,
    /// Whether data is lost.
    pub is_one_way: bool,
}

/// What is known, shared between the task that reads packets and the collector.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Wire>>);

impl Heard {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By what an end of a tunnel is known in its packets: the key of its daemon, or the number of its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Author {
    Daemon(DiscoKey),
    Session(u32),
}

impl Author {
    const fn of(message: &Message) -> Self {
        match message {
            Message::Disco(disco) => Self::Daemon(disco.key),
            Message::Handshake(Handshake::Initiation { sender } | Handshake::Response { sender, .. }) => {
                Self::Session(*sender)
            }
        }
    }
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Wire {
    endpoints: BTreeMap<Endpoint, Memory>,
    /// Whose key it is, by what tailscaled has said.
    names: BTreeMap<DiscoKey, Arc<str>>,
    peers: BTreeMap<Arc<str>, Totals>,
    /// Whose packets came from elsewhere: what leaves here and is by one of them is only passed on, as a peer relay does.
    strangers: BTreeSet<Author>,
    /// Packets that begin as those of tunnels do and are none.
    foreign: u64,
    /// Addresses that answer and have no series, since so many peers have.
    omitted: usize,
}

impl Wire {
    /// Takes a packet that passed an uplink; whether an address answers again by it.
    pub fn observe(&mut self, passage: &Passage) -> Option<Change> {
        let Passage { time, transmitted, seen, .. } = *passage;
        if self.is_passed_on(&seen.message, transmitted) {
            return None;
        }
        let address = if transmitted { seen.destination } else { seen.source };
        let endpoint = Endpoint { address, session: seen.session };
        // Only this node's own words make an address known: anybody can send anything here.
        if transmitted && is_question(&seen.message) && !self.endpoints.contains_key(&endpoint) {
            self.make_room();
            self.endpoints.insert(endpoint, Memory::new(time));
        }
        let memory = self.endpoints.get_mut(&endpoint)?;
        let was_silent = memory.silent_since();
        match (seen.message, transmitted) {
            (Message::Disco(Disco { kind: Kind::Ping, .. }), true) => memory.ping(time),
            (Message::Disco(Disco { kind: Kind::Pong, key }), false) => memory.pong(key, time),
            (Message::Disco(Disco { key, .. }), false) => memory.hear(key, time),
            (Message::Handshake(handshake), _) => memory.handshake(handshake, passage),
            (Message::Disco(_), true) => {}
        }
        let totals = memory.take_counts();
        let label = memory.label.clone();
        match label.as_ref().and_then(|label| self.peers.get_mut(label)) {
            Some(peer) => peer.add(&totals),
            None => memory.pending.add(&totals),
        }
        let since = was_silent.filter(|_| memory.silent_since().is_none())?;
        Some(memory.change(endpoint, None, Some(time.saturating_sub(since))))
    }

    /// Forgets the address that was of no use for longest where there are too many.
    fn make_room(&mut self) {
        if self.endpoints.len() < MOST_ENDPOINTS {
            return;
        }
        let oldest = self.endpoints.iter().min_by_key(|(_, memory)| memory.used());
        if let Some(oldest) = oldest.map(|(endpoint, _)| *endpoint) {
            self.endpoints.remove(&oldest);
        }
    }

    fn is_passed_on(&mut self, message: &Message, transmitted: bool) -> bool {
        let author = Author::of(message);
        if transmitted {
            return self.strangers.contains(&author);
        }
        if self.strangers.len() >= MOST_STRANGERS {
            self.strangers.clear();
        }
        self.strangers.insert(author);
        false
    }

    /// Counts a packet that is none of these.
    pub const fn count_foreign(&mut self) {
        self.foreign += 1;
    }

    /// Whether there is anything that silence could befall.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Takes note that time has passed: addresses that have ceased to answer by now.
    pub fn tick(&mut self, now: Nanos) -> Vec<Change> {
        let silent = |(endpoint, memory): (&Endpoint, &mut Memory)| {
            let since = memory.fall_silent(now)?;
            Some(memory.change(*endpoint, Some(since), None))
        };
        self.endpoints.iter_mut().filter_map(silent).collect()
    }

    /// Judges what handshakes say of data, once [`Wire::name`] has said whose addresses they are.
    pub fn judge(&mut self, now: Nanos) -> Vec<OneWay> {
        let changed = |(endpoint, memory): (&Endpoint, &mut Memory)| {
            let is_one_way = memory.greetings.judge(now)?;
            Some(OneWay { peer: memory.label.clone(), endpoint: *endpoint, is_one_way })
        };
        self.endpoints.iter_mut().filter_map(changed).collect()
    }

    /// Gives addresses their peers: by what tailscaled says, else by the nodes' addresses, else by the address itself.
    /// `node` finds the node that has an address.
    pub fn name(&mut self, reading: Option<&Reading>, node: impl Fn(IpAddr) -> Option<Arc<str>>, now: Nanos) {
        self.endpoints.retain(|_, memory| now.saturating_sub(memory.used()) < FORGOTTEN);
        for (endpoint, name) in reading.into_iter().flat_map(named) {
            if let Some(key) = self.endpoints.get(&endpoint).and_then(|memory| memory.key) {
                self.names.insert(key, name);
            }
        }
        let keys: Vec<DiscoKey> = self.endpoints.values().filter_map(|memory| memory.key).collect();
        self.names.retain(|key, _| keys.contains(key));
        self.omitted = 0;
        for (endpoint, memory) in &mut self.endpoints {
            let named = memory.key.and_then(|key| self.names.get(&key).cloned());
            let is_late = reading.is_none() || now.saturating_sub(memory.since) >= PATIENCE;
            // By bytes it knows sooner, and says it itself.
            let is_listed = |label: &Arc<str>| reading.is_some_and(|said| said.peers.contains_key(&**label));
            if named.as_ref().or(memory.label.as_ref()).is_some_and(is_listed) {
                memory.greetings.forget();
            }
            let fallback = || (is_late && memory.has_answered()).then(|| fallback(endpoint, &node));
            let label = match (named, &memory.label) {
                (Some(name), _) => name,
                (None, Some(_)) => continue,
                (None, None) => match fallback() {
                    Some(label) => label,
                    None => continue,
                },
            };
            if self.peers.len() >= MOST_PEERS && !self.peers.contains_key(&label) {
                self.omitted += 1;
                continue;
            }
            let peer = self.peers.entry(Arc::clone(&label)).or_default();
            peer.add(&std::mem::take(&mut memory.pending));
            memory.label = Some(label);
        }
    }

    /// The peers that were heard of, each with whether one of its addresses answers; none where nothing is asked.
    pub(super) fn peers(&self, now: Nanos) -> impl Iterator<Item = (&str, &Totals, Option<bool>)> {
        let mut answers = BTreeMap::<&str, bool>::new();
        for memory in self.endpoints.values() {
            if let (Some(label), Some(does)) = (memory.label.as_deref(), memory.answers(now)) {
                *answers.entry(label).or_default() |= does;
            }
        }
        self.peers.iter().map(move |(label, totals)| (&**label, totals, answers.get(&**label).copied()))
    }

    /// Whether data of each peer is lost, by the handshakes with its addresses; none where tailscaled says it.
    pub(super) fn one_way(&self) -> BTreeMap<&str, bool> {
        let mut found = BTreeMap::<&str, bool>::new();
        for memory in self.endpoints.values() {
            if let (Some(label), Some(is_one_way)) = (memory.label.as_deref(), memory.greetings.is_one_way())
            {
                *found.entry(label).or_default() |= is_one_way;
            }
        }
        found
    }

    /// The last round trip of a ping to the address that tailscaled names.
    #[must_use]
    pub fn rtt(&self, peer: &Peer) -> Option<Nanos> {
        self.endpoints.get(&endpoint(peer)?)?.rtt()
    }

    /// Whether there is anybody to tell of.
    pub(super) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    pub(super) const fn foreign(&self) -> u64 {
        self.foreign
    }

    pub(super) const fn omitted(&self) -> usize {
        self.omitted
    }
}

/// Whether it is this node that wants to know something, or that has let a peer in.
const fn is_question(message: &Message) -> bool {
    matches!(message, Message::Disco(Disco { kind: Kind::Ping, .. }) | Message::Handshake(_))
}

/// The addresses that tailscaled sends to, with the names of the peers.
fn named(reading: &Reading) -> impl Iterator<Item = (Endpoint, Arc<str>)> {
    reading.peers.iter().filter_map(|(name, peer)| Some((endpoint(peer)?, name.as_str().into())))
}

/// Where packets for a peer go, by tailscaled's word.
fn endpoint(peer: &Peer) -> Option<Endpoint> {
    let session = match peer.path? {
        PeerPath::Direct => None,
        PeerPath::PeerRelay => Some(peer.session?),
        PeerPath::Derp | PeerPath::Idle => return None,
    };
    Some(Endpoint { address: peer.endpoint?, session })
}

fn fallback(endpoint: &Endpoint, node: &impl Fn(IpAddr) -> Option<Arc<str>>) -> Arc<str> {
    match endpoint.session {
        // The address is that of the relay.
        Some(session) => format!("{} session {session}", endpoint.address).into(),
        None => node(endpoint.address.ip()).unwrap_or_else(|| endpoint.address.to_string().into()),
    }
}
