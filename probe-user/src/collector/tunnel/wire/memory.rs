//! What is remembered of one address.

use std::sync::Arc;

use super::greeting::Greetings;
use super::{Change, Endpoint, Passage, Totals};
use crate::collector::vip::happening::Nanos;
use crate::wire::disco::DiscoKey;
use crate::wire::wireguard::Handshake;

const SECOND: Nanos = 1_000_000_000;
/// So long tailscaled itself waits for a pong.
const LATEST: Nanos = 5 * SECOND;
/// Two pings within this time may both be under way, so that their pongs cannot be told apart.
const CLOSE: Nanos = SECOND;
/// So long a ping may be under way before its answer is missed.
const MISSED: Nanos = SECOND;
/// Both ends ping every three seconds while they speak with each other: so long nothing comes from an address only when
/// there is nothing to come.
const SILENT: Nanos = 3_500_000_000;
/// `WireGuard` tries a handshake again after five seconds, and a little.
const RETRIED: Nanos = 4 * SECOND;
/// Who pauses for longer than this between two pings had nothing to ask: on a relay of the provider an address is tried
/// every five seconds.
const PAUSED: Nanos = 10 * SECOND;
/// So long after the last question it is not known whether an address answers.
const UNKNOWN: Nanos = 60 * SECOND;

/// Everything that is remembered of an address.
#[derive(Debug)]
pub(super) struct Memory {
    /// Since when it is known.
    pub(super) since: Nanos,
    /// The key of who answers there.
    pub(super) key: Option<DiscoKey>,
    /// The value of the `peer` label.
    pub(super) label: Option<Arc<str>>,
    /// What was counted before that was known.
    pub(super) pending: Totals,
    /// What was counted since it was taken.
    counts: Totals,
    /// The newest ping that was not answered.
    asked: Option<Nanos>,
    /// The first one in a row.
    first_asked: Option<Nanos>,
    /// Whether pings are too close for their pongs to be told apart.
    is_ambiguous: bool,
    /// The last question of any kind.
    questioned: Nanos,
    /// When something came from there.
    heard: Option<Nanos>,
    has_answered: bool,
    rtt: Option<Nanos>,
    /// The newest initiation of this node that was not answered: its number, and when it was sent.
    initiation: Option<(u32, Nanos)>,
    silent_since: Option<Nanos>,
    /// What handshakes say of data.
    pub(super) greetings: Greetings,
}

impl Memory {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            since: now,
            key: None,
            label: None,
            pending: Totals::default(),
            counts: Totals::default(),
            asked: None,
            first_asked: None,
            is_ambiguous: false,
            questioned: now,
            heard: None,
            has_answered: false,
            rtt: None,
            initiation: None,
            silent_since: None,
            greetings: Greetings::default(),
        }
    }

    /// This node sends a ping.
    pub(super) fn ping(&mut self, now: Nanos) {
        match self.asked.replace(now) {
            Some(before) if now.saturating_sub(before) < CLOSE => self.is_ambiguous = true,
            Some(_) => {
                self.is_ambiguous = false;
                self.counts.unanswered += u64::from(self.has_answered);
            }
            None => self.is_ambiguous = false,
        }
        if now.saturating_sub(self.questioned) >= PAUSED {
            self.first_asked = None;
        }
        self.first_asked.get_or_insert(now);
        self.questioned = now;
    }

    /// A pong comes.
    pub(super) fn pong(&mut self, key: DiscoKey, now: Nanos) {
        self.hear(key, now);
        let Some(asked) = self.asked.take() else { return };
        self.first_asked = None;
        let rtt = now.saturating_sub(asked);
        if rtt > LATEST {
            self.counts.unanswered += u64::from(self.has_answered);
            return;
        }
        self.counts.answered += 1;
        if !self.is_ambiguous {
            self.counts.rtt.observe(seconds(rtt));
            self.rtt = Some(rtt);
        }
        self.answer();
    }

    /// Something of the other end comes.
    pub(super) fn hear(&mut self, key: DiscoKey, now: Nanos) {
        // Another daemon than before: it may be another peer.
        if self.key.replace(key).is_some_and(|before| before != key) {
            self.label = None;
        }
        self.heard = Some(now);
    }

    fn answer(&mut self) {
        self.has_answered = true;
        self.silent_since = None;
    }

    /// A message of a handshake passes.
    pub(super) fn handshake(&mut self, message: Handshake, passage: &Passage) {
        let Passage { time: now, clock, transmitted, seen } = *passage;
        match (message, transmitted) {
            (Handshake::Initiation { sender }, true) => {
                let before = self.initiation.replace((sender, now));
                self.questioned = now;
                // One that is sent again was not answered.
                if let Some((_, at)) = before.filter(|(_, at)| now.saturating_sub(*at) >= RETRIED) {
                    self.first_asked.get_or_insert(at);
                }
            }
            (Handshake::Response { receiver, .. }, false) => {
                let asked = self.initiation.take_if(|(sender, _)| *sender == receiver);
                let Some((_, asked)) = asked else { return };
                self.heard = Some(now);
                self.counts.handshake_rtt = Some(now.saturating_sub(asked));
                self.counts.handshake = Some(clock);
                self.greetings.answered(seen.destination, now);
                self.answer();
                // Where there are pings as well they have their own say.
                self.first_asked = self.asked;
            }
            // Whom this node answers it has let in.
            (Handshake::Response { .. }, true) => {
                self.counts.handshake = Some(clock);
                self.greetings.answered(seen.source, now);
                self.has_answered = true;
            }
            (Handshake::Initiation { .. }, false) => self.heard = Some(now),
        }
    }

    /// What was counted since the last time.
    pub(super) fn take_counts(&mut self) -> Totals {
        std::mem::take(&mut self.counts)
    }

    /// Since when nothing comes, if that has become so by now.
    pub(super) fn fall_silent(&mut self, now: Nanos) -> Option<Nanos> {
        let first = self.first_asked?;
        let newest = self.asked.or(self.initiation.map(|(_, at)| at))?;
        let is_missed = |at: Nanos, after: Nanos| now.saturating_sub(at) >= after;
        let is_silent = self.has_answered
            && self.silent_since.is_none()
            && is_missed(newest, MISSED)
            && !is_missed(newest, UNKNOWN)
            && self.heard.is_none_or(|heard| is_missed(heard, SILENT));
        if is_silent {
            self.silent_since = Some(first);
        }
        is_silent.then_some(first)
    }

    /// Since when it does not answer.
    pub(super) const fn silent_since(&self) -> Option<Nanos> {
        self.silent_since
    }

    /// Whether it has ever answered.
    pub(super) const fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether it answers; none where it never did or is not asked.
    pub(super) fn answers(&self, now: Nanos) -> Option<bool> {
        let is_asked = now.saturating_sub(self.questioned) < UNKNOWN;
        (self.has_answered && is_asked).then_some(self.silent_since.is_none())
    }

    /// The last round trip of a ping.
    pub(super) const fn rtt(&self) -> Option<Nanos> {
        self.rtt
    }

    /// When it was last of use.
    pub(super) fn used(&self) -> Nanos {
        self.heard.map_or(self.questioned, |heard| heard.max(self.questioned))
    }

    pub(super) fn change(
        &self,
        endpoint: Endpoint,
        silent_since: Option<Nanos>,
        lasted: Option<Nanos>,
    ) -> Change {
        Change { peer: self.label.clone(), endpoint, silent_since, lasted, rtt: self.rtt }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a round trip has few bits")]
fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}
