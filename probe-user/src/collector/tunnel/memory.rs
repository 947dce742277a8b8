//! What is remembered of one peer from answer to answer. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Timestamp;
use crate::source::tailscale::{Peer, PeerPath};

/// So long nothing comes back before a tunnel is one-way: who has received data answers within 10 s, if only with a
/// keepalive.
const SILENCE: Duration = Duration::from_secs(15);
/// So many handshakes within [`HANDSHAKES_WITHIN`] mean that data is lost: one in two minutes is usual, two in a row happen on
/// relays, and who hears nothing of its data makes a new one every 15 s.
const HANDSHAKES: usize = 3;
/// See [`HANDSHAKES`].
const HANDSHAKES_WITHIN: Duration = Duration::from_mins(1);
/// So many changes of the path within [`FLAPPING_WITHIN`] are flapping.
const FLAPPING: usize = 6;
/// See [`FLAPPING`].
const FLAPPING_WITHIN: Duration = Duration::from_mins(10);

/// A count that starts again from 0 whenever tailscaled forgets a peer that was idle, as a total that never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    sum: u64,
    last: u64,
}

impl Total {
    /// Takes what is counted now; whether it has grown.
    fn observe(&mut self, counted: u64) -> bool {
        let grown = counted.checked_sub(self.last).unwrap_or(counted);
        self.sum = self.sum.saturating_add(grown);
        self.last = counted;
        grown > 0
    }
}

/// Moments that are not long ago.
#[derive(Clone, Debug, Default)]
struct Recent(VecDeque<Duration>);

impl Recent {
    /// Adds a moment; those before `within` are forgotten, and never more than `most` are kept.
    fn add(&mut self, now: Duration, most: usize) {
        self.0.push_back(now);
        if self.0.len() > most {
            self.0.pop_front();
        }
    }

    fn count(&mut self, now: Duration, within: Duration) -> usize {
        self.0.retain(|at| now.saturating_sub(*at) < within);
        self.0.len()
    }
}

/// How a change of the path is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathChange {
    /// As it is; with the path before.
    From(PeerPath),
    /// It has changed so often that this is the last one that is told, until it has been steady for a while.
    Flapping(PeerPath),
}

/// Everything that is remembered of a peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    received: Option<Total>,
    transmitted: Option<Total>,
    /// The last path that was one.
    path: Option<PeerPath>,
    changes: u64,
    recent_changes: Recent,
    /// Since when something goes out and nothing comes in.
    unanswered: Option<Duration>,
    /// When something went out last.
    sent: Option<Duration>,
    handshake: Option<Timestamp>,
    handshakes: Recent,
    is_one_way: bool,
    /// Whether it has ever been spoken to.
    pub(super) was_used: bool,
    /// What the coordination server said of it.
    pub(super) was_online: Option<bool>,
    /// Whether it was last seen inside another tunnel.
    pub(super) is_nested: bool,
}

impl Memory {
    /// Bytes that came since the daemon began to speak with the peer, or the agent to watch.
    pub(super) fn received(&self) -> Option<u64> {
        self.received.map(|total| total.sum)
    }

    /// The same for what went out.
    pub(super) fn transmitted(&self) -> Option<u64> {
        self.transmitted.map(|total| total.sum)
    }

    /// How often the path has changed from one to another.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether what goes out is not answered.
    pub(super) const fn is_one_way(&self) -> bool {
        self.is_one_way
    }

    /// A new daemon counts from 0, which its counts need not show by the time it is asked.
    pub(super) fn restart(&mut self) {
        for total in [&mut self.received, &mut self.transmitted].into_iter().flatten() {
            total.last = 0;
        }
    }

    /// Takes the bytes and handshakes of an answer; whether the tunnel has become one-way or has ceased to be so.
    pub(super) fn observe_bytes(&mut self, peer: &Peer, now: Duration) -> Option<bool> {
        let observe = |total: &mut Option<Total>, counted: Option<u64>| {
            counted.is_some_and(|counted| total.get_or_insert_default().observe(counted))
        };
        // What had been counted before the agent came says nothing of now.
        let is_first = self.transmitted.is_none();
        let came = observe(&mut self.received, peer.received);
        let went = observe(&mut self.transmitted, peer.transmitted) && !is_first;
        self.was_used |= peer.transmitted > Some(0) || peer.received > Some(0);
        if went {
            self.sent = Some(now);
        }
        if came {
            self.unanswered = None;
        } else if went {
            self.unanswered.get_or_insert(now);
        }
        self.observe_handshake(peer, now);
        let is_one_way = self.judge(peer, now);
        let is_news = is_one_way != self.is_one_way;
        self.is_one_way = is_one_way;
        is_news.then_some(is_one_way)
    }

    fn observe_handshake(&mut self, peer: &Peer, now: Duration) {
        let Some(handshake) = peer.handshake else { return };
        if self.handshake.replace(handshake).is_some_and(|before| before != handshake) {
            self.handshakes.add(now, HANDSHAKES);
        }
    }

    fn judge(&mut self, peer: &Peer, now: Duration) -> bool {
        if matches!(peer.path, None | Some(PeerPath::Idle)) {
            self.unanswered = None;
            return false;
        }
        let is_within = |moment: Option<Duration>| moment.is_some_and(|at| now.saturating_sub(at) < SILENCE);
        let is_silent = self.unanswered.is_some() && !is_within(self.unanswered) && is_within(self.sent);
        is_silent || self.handshakes.count(now, HANDSHAKES_WITHIN) >= HANDSHAKES
    }

    /// Takes the path of an answer. To be idle is no path and changes none.
    pub(super) fn observe_path(&mut self, peer: &Peer, now: Duration) -> Option<PathChange> {
        let path = peer.path.filter(|path| *path != PeerPath::Idle)?;
        self.was_used = true;
        let before = self.path.replace(path).filter(|before| *before != path)?;
        self.changes += 1;
        // One more than is needed: while it goes on there are always more than that.
        self.recent_changes.add(now, FLAPPING + 1);
        match self.recent_changes.count(now, FLAPPING_WITHIN) {
            ..FLAPPING => Some(PathChange::From(before)),
            FLAPPING => Some(PathChange::Flapping(before)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn peer(received: u64, transmitted: u64, handshake: u64) -> Peer {
        Peer {
            path: Some(PeerPath::Direct),
            received: Some(received),
            transmitted: Some(transmitted),
            handshake: Some(Timestamp::from_unix_nanos(handshake)),
            ..Peer::default()
        }
    }

    #[test]
    fn totals_never_fall_where_the_daemon_counts_from_zero_again() {
        let mut memory = Memory::default();
        assert_eq!(memory.received(), None);
        let counted = [(100, 50), (150, 60), (0, 0), (10, 20), (10, 20), (4, 2)];
        let totals = counted.map(|(received, transmitted)| {
            memory.observe_bytes(&peer(received, transmitted, 1), at(1));
            (memory.received().unwrap(), memory.transmitted().unwrap())
        });
        assert_eq!(totals, [(100, 50), (150, 60), (150, 60), (160, 80), (160, 80), (164, 82)]);
    }

    #[test]
    fn what_is_sent_for_fifteen_seconds_without_anything_coming_back_is_one_way() {
        let mut memory = Memory::default();
        memory.observe_bytes(&peer(1_000, 9_000, 1), at(0));
        let mut news = Vec::new();
        for second in 1..40_u64 {
            // Traffic in one direction that is heard: a keepalive every ten seconds.
            let received = if second < 20 { 1_000 + second / 10 * 32 } else { 1_032 };
            let received = if second < 38 { received } else { 2_000 };
            let change = memory.observe_bytes(&peer(received, 9_000 + second * 100, 1), at(second));
            news.extend(change.map(|change| (second, change)));
        }
        // The last came at 10 s; what went out afterwards is unanswered since 11 s.
        assert_eq!(news, [(26, true), (38, false)]);
    }

    #[test]
    fn who_has_nothing_to_say_is_not_one_way() {
        let mut memory = Memory::default();
        memory.observe_bytes(&peer(0, 0, 1), at(0));
        memory.observe_bytes(&peer(0, 128, 1), at(1));
        for second in 2..60 {
            assert_eq!(memory.observe_bytes(&peer(0, 128, 1), at(second)), None);
        }
        let idle = Peer { path: Some(PeerPath::Idle), ..peer(0, 256, 1) };
        assert_eq!(memory.observe_bytes(&idle, at(61)), None);
    }

    #[test]
    fn handshakes_that_follow_each_other_are_one_way_although_something_comes_back() {
        // As recorded: data of one direction lost, a handshake every 15 s that brings 92 bytes.
        let mut memory = Memory::default();
        let news: Vec<_> = (0..120_u64)
            .filter_map(|second| {
                let handshakes = if second < 90 { second / 15 } else { 6 };
                let peer = peer(1_000 + handshakes * 92, 9_000 + second * 290, 1 + handshakes);
                memory.observe_bytes(&peer, at(second)).map(|change| (second, change))
            })
            .collect();
        // The third new one, and then fewer than three within a minute.
        assert_eq!(news.first(), Some(&(45, true)));
        let usual: Vec<_> = (0..600_u64)
            .filter_map(|second| {
                memory.observe_bytes(
                    &peer(9_000 + second, 99_000 + second, 100 + second / 120),
                    at(1_000 + second),
                )
            })
            .collect();
        assert_eq!(usual, [false]);
    }

    #[test]
    fn a_path_changes_between_paths_and_not_by_being_idle() {
        let mut memory = Memory::default();
        let of = |path| Peer { path: Some(path), ..Peer::default() };
        let seen = [
            PeerPath::Idle,
            PeerPath::Derp,
            PeerPath::Direct,
            PeerPath::Idle,
            PeerPath::Direct,
            PeerPath::PeerRelay,
        ];
        let changes = seen.map(|path| memory.observe_path(&of(path), at(1)));
        let expected = [
            None,
            None,
            Some(PathChange::From(PeerPath::Derp)),
            None,
            None,
            Some(PathChange::From(PeerPath::Direct)),
        ];
        assert_eq!((changes, memory.changes()), (expected, 2));
        assert_eq!(memory.observe_path(&Peer::default(), at(2)), None);
    }

    #[test]
    fn what_flaps_is_told_six_times_and_again_when_it_was_steady() {
        let mut memory = Memory::default();
        let mut toggle = |second: u64, direct: bool| {
            let path = if direct { PeerPath::Direct } else { PeerPath::Derp };
            memory.observe_path(&Peer { path: Some(path), ..Peer::default() }, at(second))
        };
        toggle(0, true);
        let told: Vec<_> = (1..40).filter_map(|n| toggle(n * 10, n % 2 == 0)).collect();
        assert_eq!(told.len(), 6);
        assert_eq!(told.last(), Some(&PathChange::Flapping(PeerPath::Derp)));
        assert_eq!(toggle(2_000, true), Some(PathChange::From(PeerPath::Derp)));
        assert_eq!(memory.changes(), 40);
    }
}
