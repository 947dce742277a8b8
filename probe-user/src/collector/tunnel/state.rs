//! From one answer to the next: what changed, and what of it is worth an event. Pure: readings with their times in, events
//! out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::events;
use super::memory::Memory;
use crate::event::{Kind, Occurrence, Timestamp};
use crate::source::tailscale::{Backend, Peer, Reading};

/// Peers that have series. Some tailnets list hundreds of exit nodes that nobody uses.
pub const MOST_PEERS: usize = 256;
/// Routes that have series.
pub const MOST_ROUTES: usize = 64;
/// So long before its end a key is about to expire.
const EXPIRING: Duration = Duration::from_hours(7 * 24);
/// So long a route may wait for its approval before that is told: some are approved at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// The subject of what is about this node, where its name is not known.
const NAMELESS: &str = "tailscale";

/// When something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the agent began to ask.
    pub now: Duration,
    /// By the clock of this node.
    pub time: Timestamp,
}

/// What the agent sees of Tailscale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is none; why.
    Absent(&'static str),
    /// There is one, but it cannot be read; why.
    Unreadable(&'static str),
    /// It is read at this socket.
    Read(PathBuf, Box<Reading>),
}

/// An offered route.
#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    /// Since when it waits for its approval.
    waits: Option<Duration>,
    is_told: bool,
}

/// What was told of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Key {
    expiry: Option<Timestamp>,
    is_expiring: bool,
    is_expired: bool,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct State {
    sight: Sight,
    peers: BTreeMap<String, Memory>,
    keys: BTreeMap<String, Key>,
    offers: BTreeMap<IpNet, Offer>,
    /// The name of this node, which it has no more when it is logged out.
    name: Option<String>,
    /// Whether the last thing to be said is that this node is part of its tailnet, or that it is not.
    is_up: Option<bool>,
    misses: u32,
    /// The daemon that answered last.
    process: Option<i32>,
    inner: Vec<IpNet>,
}

impl State {
    /// What is seen now.
    #[must_use]
    pub fn sight(&self) -> &Sight {
        &self.sight
    }

    /// The peers that have series, with what is remembered of them.
    pub(super) fn peers<'a>(
        &'a self,
        reading: &'a Reading,
    ) -> impl Iterator<Item = (&'a str, &'a Peer, &'a Memory)> {
        self.peers.iter().filter_map(|(name, memory)| Some((name.as_str(), reading.peers.get(name)?, memory)))
    }

    /// The networks of pods and overlays, on which no tunnel is to ride.
    pub(super) fn inner(&self) -> &[IpNet] {
        &self.inner
    }

    /// Says what the networks of pods and overlays are.
    pub fn set_inner(&mut self, inner: Vec<IpNet>) {
        self.inner = inner;
    }

    /// Takes an answer of that time.
    pub fn observe(&mut self, socket: PathBuf, reading: Reading, at: Moment) -> Vec<Occurrence> {
        self.misses = 0;
        self.name = reading.own.name.clone().or(self.name.take());
        let mut found = Vec::new();
        found.extend(self.follow_backend(reading.backend, at));
        found.extend(self.follow_keys(&reading, at));
        found.extend(self.follow_offers(&reading, at));
        self.choose(&reading);
        if std::mem::replace(&mut self.process, reading.process) != reading.process {
            self.peers.values_mut().for_each(Memory::restart);
        }
        for (name, memory) in &mut self.peers {
            if let Some(peer) = reading.peers.get(name) {
                found.extend(follow_peer(name, memory, peer, &self.inner, at));
            }
        }
        self.sight = Sight::Read(socket, Box::new(reading));
        found
    }

    /// Takes note that there is no answer. What was remembered stays: tailscaled may have been restarted. One that is not
    /// there a second time is news.
    pub fn miss(&mut self, sight: Sight, at: Moment) -> Option<Occurrence> {
        self.misses = self.misses.saturating_add(1);
        self.sight = sight;
        (self.misses >= 2).then(|| self.turn(false, "unreachable", at))?
    }

    fn subject(&self) -> &str {
        self.name.as_deref().unwrap_or(NAMELESS)
    }

    fn turn(&mut self, is_up: bool, state: &'static str, at: Moment) -> Option<Occurrence> {
        let was_up = self.is_up.replace(is_up)?;
        let kind = if is_up { Kind::TunnelUp } else { Kind::TunnelDown };
        (was_up != is_up).then(|| events::plain(kind, self.subject(), at).with("state", state))
    }

    /// A daemon that begins goes through states that mean nothing yet.
    fn follow_backend(&mut self, backend: Backend, at: Moment) -> Option<Occurrence> {
        match backend {
            Backend::Running => self.turn(true, backend.as_str(), at),
            Backend::NeedsLogin | Backend::NeedsMachineAuth | Backend::Stopped => {
                self.turn(false, backend.as_str(), at)
            }
            Backend::NoState | Backend::Starting | Backend::Other => None,
        }
    }

    fn follow_keys(&mut self, reading: &Reading, at: Moment) -> Vec<Occurrence> {
        let own = (self.subject().to_owned(), reading.own.key_expiry, false);
        let peers = reading.peers.iter().map(|(name, peer)| (name.clone(), peer.key_expiry, peer.is_expired));
        let mut before = std::mem::take(&mut self.keys);
        let mut found = Vec::new();
        for (name, expiry, is_expired) in std::iter::once(own).chain(peers) {
            let (key, kind) = follow_key(before.remove(&name), expiry, is_expired, at.time);
            found.extend(kind.map(|kind| events::of_key(kind, &name, expiry, at)));
            self.keys.insert(name, key);
        }
        found
    }

    fn follow_offers(&mut self, reading: &Reading, at: Moment) -> Vec<Occurrence> {
        // Without a login nobody approves anything.
        let (Some(offered), Backend::Running) = (&reading.advertised, reading.backend) else {
            return Vec::new();
        };
        self.offers.retain(|route, _| offered.contains(route));
        let mut found = Vec::new();
        for route in offered.iter().take(MOST_ROUTES) {
            let offer = self.offers.entry(*route).or_default();
            let event = |kind| events::plain(kind, &route.to_string(), at);
            if reading.own.allowed.contains(route) {
                found.extend(offer.is_told.then(|| event(Kind::TunnelRouteApproved)));
                *offer = Offer::default();
            } else {
                let since = *offer.waits.get_or_insert(at.now);
                if !offer.is_told && at.now.saturating_sub(since) >= PATIENCE {
                    offer.is_told = true;
                    found.push(event(Kind::TunnelRouteUnapproved));
                }
            }
        }
        found
    }

    /// Which peers have series: whoever has some keeps them while it is listed, those that were spoken to come first, and
    /// one that never was gives its place to one that is.
    fn choose(&mut self, reading: &Reading) {
        self.peers.retain(|name, _| reading.peers.contains_key(name));
        let is_used = |peer: &Peer| peer.transmitted > Some(0) || peer.received > Some(0);
        let new: Vec<&String> = reading.peers.keys().filter(|name| !self.peers.contains_key(*name)).collect();
        let (used, unused): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|name| reading.peers.get(*name).is_some_and(is_used));
        for name in used {
            if self.peers.len() >= MOST_PEERS {
                let spare =
                    self.peers.iter().find(|(_, memory)| !memory.was_used).map(|(name, _)| name.clone());
                let Some(spare) = spare else { break };
                self.peers.remove(&spare);
            }
            self.peers.insert(name.clone(), Memory::default());
        }
        let room = MOST_PEERS.saturating_sub(self.peers.len());
        self.peers.extend(unused.into_iter().take(room).map(|name| (name.clone(), Memory::default())));
    }
}

fn follow_peer(name: &str, memory: &mut Memory, peer: &Peer, inner: &[IpNet], at: Moment) -> Vec<Occurrence> {
    let mut found = Vec::new();
    let way = memory.observe_path(peer, at.now);
    found.extend(way.map(|change| events::of_path(name, peer, change, at)));
    let silence = memory.observe_bytes(peer, at.now);
    found.extend(silence.map(|is_silent| {
        let kind = if is_silent { Kind::TunnelPeerSilent } else { Kind::TunnelPeerHeard };
        events::of_peer(kind, name, peer, at)
    }));
    if let Some(is_online) = peer.is_online
        && memory.was_online.replace(is_online).is_some_and(|was| was != is_online)
    {
        let kind = if is_online { Kind::TunnelPeerBack } else { Kind::TunnelPeerLost };
        found.push(events::of_peer(kind, name, peer, at));
    }
    if let Some(is_nested) = is_nested(peer, inner)
        && is_nested != memory.is_nested
    {
        memory.is_nested = is_nested;
        let kind = if is_nested { Kind::TunnelPeerNested } else { Kind::TunnelPeerUnnested };
        found.push(events::of_peer(kind, name, peer, at));
    }
    found
}

/// Whether what goes to a peer goes into another tunnel or overlay; none where no address is sent to.
pub(super) fn is_nested(peer: &Peer, inner: &[IpNet]) -> Option<bool> {
    let address = peer.endpoint?.ip();
    Some(inner.iter().any(|network| network.contains(&address)))
}

/// The clock counts as well as the word of tailscaled, which is silent where its own clock or that of the server is off.
/// What had ended before the agent came is on the page and no news.
fn follow_key(
    known: Option<Key>,
    expiry: Option<Timestamp>,
    word: bool,
    now: Timestamp,
) -> (Key, Option<Kind>) {
    let left =
        expiry.map(|expiry| Duration::from_nanos(expiry.unix_nanos().saturating_sub(now.unix_nanos())));
    let is_expired = word || left == Some(Duration::ZERO);
    let is_expiring = left.is_some_and(|left| left <= EXPIRING);
    let kind = match known {
        None if is_expired => None,
        Some(before) if is_expired => (!before.is_expired).then_some(Kind::TunnelKeyExpired),
        Some(before) if before.is_expiring && before.expiry == expiry => None,
        _ => is_expiring.then_some(Kind::TunnelKeyExpiring),
    };
    (Key { expiry, is_expiring, is_expired }, kind)
}

/// Offered routes that have series, and whether each was approved.
pub(super) fn routes(reading: &Reading) -> BTreeMap<IpNet, bool> {
    let offered: BTreeSet<IpNet> = reading.advertised.iter().flatten().copied().collect();
    offered.into_iter().take(MOST_ROUTES).map(|route| (route, reading.own.allowed.contains(&route))).collect()
}

#[cfg(test)]
mod tests;
