//! Whom this node answers, and with what: a stateful reflector of STAMP. Pure.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::collector::vip::happening::Nanos;
use crate::source::path::Received;
use crate::wire::stamp::{Authenticator, End, ErrorEstimate, FollowUp, Reply, Request, Timestamp};

/// Answers to one address in a second, and at once after a silence: more than the fastest pace on all layers.
const RATE: u64 = 1_500;
/// Nanoseconds between two of them.
const PRICE: Nanos = 1_000_000_000 / RATE;
/// Addresses and sessions that are remembered.
const SESSIONS_MAX: usize = 1_024;
/// Answers that wait for the kernel to say when they left.
const LEAVING_MAX: usize = 1_024;
/// A hop limit that the kernel did not tell (RFC 8762, 4.3.1).
const HOP_LIMIT_UNKNOWN: u8 = 255;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered.
    Answered,
    /// Its sender is no other node of the cluster.
    UnknownSender,
    /// Its code is missing or wrong.
    Unauthenticated,
    /// It is no packet of STAMP, or one that would come back from another reflector.
    Malformed,
    /// Its sender asks too much.
    RateLimited,
    /// The kernel did not send the answer.
    Failed,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 6] = [
        Self::Answered,
        Self::UnknownSender,
        Self::Unauthenticated,
        Self::Malformed,
        Self::RateLimited,
        Self::Failed,
    ];

    /// The value of the label `result`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::UnknownSender => "unknown_sender",
            Self::Unauthenticated => "unauthenticated",
            Self::Malformed => "malformed",
            Self::RateLimited => "rate_limited",
            Self::Failed => "failed",
        }
    }
}

/// A session of a sender (RFC 8972, 3): both ends, and its own number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SessionKey {
    from: SocketAddr,
    to: Option<IpAddr>,
    ssid: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Session {
    /// The number of the next answer.
    next: u32,
    /// Of the last answer of which the kernel said when it left.
    follow_up: Option<FollowUp>,
    used: Nanos,
}

impl Session {
    /// What is said of an earlier answer. Where the kernel never says when one left, the number alone still shows that
    /// this reflector counts.
    fn follow_up(&self) -> FollowUp {
        let last = FollowUp { sequence: self.next.wrapping_sub(1), timestamp: Timestamp::default() };
        let first = FollowUp::default();
        self.follow_up.unwrap_or(if self.next == 0 { first } else { last })
    }
}

/// An answer that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The packet, as long as the request.
    pub packet: Vec<u8>,
    key: SessionKey,
    sequence: u32,
}

/// Who asks, what was answered, what was refused.
#[derive(Debug)]
pub struct Reflector {
    /// The port of reflectors: what comes from there is an answer.
    port: u16,
    authenticator: Authenticator,
    sessions: HashMap<SessionKey, Session>,
    /// Until when what an address has asked is paid for.
    paid: HashMap<IpAddr, Nanos>,
    leaving: VecDeque<(u32, SessionKey, u32)>,
    counts: [u64; Verdict::ALL.len()],
}

impl Reflector {
    /// A reflector on that port.
    #[must_use]
    pub fn new(port: u16, authenticator: Authenticator) -> Self {
        Self {
            port,
            authenticator,
            sessions: HashMap::new(),
            paid: HashMap::new(),
            leaving: VecDeque::new(),
            counts: Default::default(),
        }
    }

    /// The answer to a request that came at `now`, if its sender is another node; `clock` is the wall clock of this
    /// moment.
    ///
    /// # Errors
    /// Why there is none.
    pub fn answer(
        &mut self,
        packet: &[u8],
        received: &Received,
        is_node: impl Fn(IpAddr) -> bool,
        now: Nanos,
        clock: u64,
    ) -> Result<Answer, Verdict> {
        let address = received.from.ip();
        if !is_node(address) {
            return Err(Verdict::UnknownSender);
        }
        // Before it is paid for: what others forge must not use up what a node may ask.
        if !self.authenticator.accepts(packet, End::Sender) {
            return Err(Verdict::Unauthenticated);
        }
        if !self.pay(address, now) {
            return Err(Verdict::RateLimited);
        }
        // Two reflectors would go on answering each other.
        let mode = self.authenticator.mode();
        let request = Request::parse(packet, mode).ok().filter(|_| received.from.port() != self.port);
        let request = request.ok_or(Verdict::Malformed)?;
        let key = SessionKey {
            from: received.from,
            to: received.local.map(|local| local.address),
            ssid: request.ssid,
        };
        let session = self.session(key, now);
        let (sequence, follow_up) = (session.next, session.follow_up());
        session.next = sequence.wrapping_add(1);
        let reply = Reply {
            sequence,
            timestamp: Timestamp::from_unix_nanos(clock),
            error: ErrorEstimate::UNSYNCHRONIZED,
            ssid: request.ssid,
            received: Timestamp::from_unix_nanos(received.at.unwrap_or(clock)),
            sender_sequence: request.sequence,
            sender_timestamp: request.timestamp,
            sender_error: request.error,
            sender_ttl: received.hop_limit.unwrap_or(HOP_LIMIT_UNKNOWN),
        };
        let mut packet = reply.encode(packet, mode, follow_up);
        self.authenticator.seal(&mut packet);
        Ok(Answer { packet, key, sequence })
    }

    /// The kernel took an answer under that number.
    pub fn leaves(&mut self, answer: &Answer, id: u32) {
        self.leaving.push_back((id, answer.key, answer.sequence));
        if self.leaving.len() > LEAVING_MAX {
            self.leaving.pop_front();
        }
    }

    /// The kernel says when an answer left.
    pub fn transmitted(&mut self, id: u32, at: u64) {
        let Some(place) = self.leaving.iter().position(|(leaving, ..)| *leaving == id) else { return };
        let Some((_, key, sequence)) = self.leaving.remove(place) else { return };
        if let Some(session) = self.sessions.get_mut(&key) {
            session.follow_up = Some(FollowUp { sequence, timestamp: Timestamp::from_unix_nanos(at) });
        }
    }

    /// The kernel's numbers begin anew.
    pub fn forget_leaving(&mut self) {
        self.leaving.clear();
    }

    /// Counts what became of a request.
    pub fn count(&mut self, verdict: Verdict) {
        for (known, count) in Verdict::ALL.iter().zip(&mut self.counts) {
            *count += u64::from(*known == verdict);
        }
    }

    /// What became of requests, in the order of [`Verdict::ALL`].
    pub(super) const fn counts(&self) -> [u64; Verdict::ALL.len()] {
        self.counts
    }

    fn session(&mut self, key: SessionKey, now: Nanos) -> &mut Session {
        if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&key) {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.sessions.remove(&oldest));
        }
        let session = self.sessions.entry(key).or_default();
        session.used = now;
        session
    }

    /// Whether an address has not asked too much; it may ask for a second at once.
    fn pay(&mut self, address: IpAddr, now: Nanos) -> bool {
        if self.paid.len() >= SESSIONS_MAX {
            self.paid.retain(|_, until| *until > now);
        }
        let until = self.paid.entry(address).or_insert(now);
        let after = (*until).max(now) + PRICE;
        let is_paid = after <= now + PRICE * RATE;
        if is_paid {
            *until = after;
        }
        is_paid
    }
}
