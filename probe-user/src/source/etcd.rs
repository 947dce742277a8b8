//! etcd as it tells about itself: the plain page of metrics of this node's member, and, with a client certificate,
//! what each member answers over gRPC.
//!
//! `find` knows where to ask and with what, `page` reads the page, `client` asks a member, `fault` says what went
//! wrong. Nothing here writes to etcd: alarms are read from the errors of Status, since listing them goes through raft.
//! What an answer does not say is `None`.

mod client;
mod credential;
mod fault;
pub(super) mod find;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

pub use client::{Asker, Consistency};
pub use credential::{CredentialError, Credentials, Material};
pub use fault::{AskError, Cause};
pub use find::{Absence, ElectionTimeout, Found, Origin, find};
pub use page::{BACKEND_COMMIT_BOUNDS, WAL_FSYNC_BOUNDS, parse_page, read_health, read_page};

/// Members that are told apart; etcd itself is slow with more than seven.
pub const MOST_MEMBERS: usize = 32;

/// The identity of a member. etcd and its metrics write it in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for MemberId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// An entry of a member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: MemberId,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
    /// Whether it only learns, and does not vote.
    pub is_learner: bool,
}

/// What is wrong with a member's store for as long as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The quota is used up: nothing can be written.
    NoSpace,
    /// The data of a member is not that of the others.
    Corrupt,
}

impl Alarm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NoSpace, Self::Corrupt];

    /// The value of the `alarm` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSpace => "nospace",
            Self::Corrupt => "corrupt",
        }
    }
}

/// What a member answers about itself (Maintenance.Status), from its own state and without a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who answered.
    pub member: MemberId,
    /// The identity of the cluster.
    pub cluster: u64,
    /// Version of the server.
    pub version: String,
    /// Whom it takes for the leader.
    pub leader: Option<MemberId>,
    /// The raft term it is in.
    pub term: u64,
    /// The last index of its log that is known to be committed.
    pub index: u64,
    /// The last index that it has applied.
    pub applied: u64,
    /// Bytes of the database file.
    pub database: Option<u64>,
    /// Bytes of it that are in use.
    pub in_use: Option<u64>,
    /// Bytes that the file may have; since 3.6.
    pub quota: Option<u64>,
    /// Whether it only learns.
    pub is_learner: bool,
    /// Alarms that stand, of any member.
    pub alarms: BTreeSet<(MemberId, Alarm)>,
}

/// A histogram of somebody else, as read: counts of each bucket, the last for +Inf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Not cumulative; one more than there are bounds.
    pub counts: Vec<u64>,
    /// Sum of all observations, in seconds.
    pub sum: f64,
}

/// A peer, as the member of this node sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    /// Whether a stream from or to it is open.
    pub is_active: Option<bool>,
    /// Messages that could not be sent to it.
    pub send_failures: Option<u64>,
    /// Number of round trips in etcd's histogram, and their sum in seconds. Each is smoothed; one comes in 30 seconds.
    pub round_trips: Option<(u64, f64)>,
}

/// What the page of metrics of a member says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Whose page it is.
    pub member: Option<MemberId>,
    /// Version of the server.
    pub version: Option<String>,
    /// Whether it knows a leader.
    pub has_leader: Option<bool>,
    /// Whether it is the leader.
    pub is_leader: Option<bool>,
    /// Whether it only learns.
    pub is_learner: Option<bool>,
    /// Changes of leader that it has seen since it started.
    pub leader_changes: Option<u64>,
    /// Heartbeats that it was too slow to send.
    pub heartbeat_failures: Option<u64>,
    /// Proposals that wait to be committed.
    pub proposals_pending: Option<u64>,
    /// Proposals that failed.
    pub proposals_failed: Option<u64>,
    /// Bytes of the database file.
    pub database: Option<u64>,
    /// Bytes of it that are in use.
    pub in_use: Option<u64>,
    /// Bytes that the file may have.
    pub quota: Option<u64>,
    /// Time of fsync of the write-ahead log, in the buckets of [`WAL_FSYNC_BOUNDS`].
    pub wal_fsync: Option<Histogram>,
    /// Time of a commit of the database, in the buckets of [`BACKEND_COMMIT_BOUNDS`].
    pub backend_commit: Option<Histogram>,
    /// Its peers.
    pub peers: BTreeMap<MemberId, Peer>,
}

/// What a member said of itself and of the others.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: Result<Status, AskError>,
    /// Its own member list; learners do not tell it.
    pub list: Result<Vec<Member>, AskError>,
}

/// A read of one key, which need not exist.
#[derive(Debug)]
pub struct Read {
    /// How long it took, or why there was no answer.
    pub outcome: Result<Duration, AskError>,
}
