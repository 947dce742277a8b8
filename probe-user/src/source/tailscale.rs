//! Tailscale's own account of itself: what tailscaled says of this node and of each of its peers, read from the
//! `LocalAPI` on its unix socket.
//!
//! `find` knows where the socket may be, `ask` does the I/O, bounded in bytes and time, with GET requests only;
//! `status` is a pure parser of the answers. The types of the answers are declared unstable, so a field that is missing
//! or of another type is `None`, and one that is not known is passed over.

mod ask;
mod fault;
mod find;
mod status;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::event::Timestamp;

pub use ask::read;
pub use fault::{AskError, Cause};
pub use find::{Candidates, candidates};

/// What one round of questions has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The process that listens, by the kernel's word: another one counts from 0 again.
    pub process: Option<i32>,
    /// The version of the daemon.
    pub version: Option<String>,
    /// What the daemon is doing.
    pub backend: Backend,
    /// How many complaints its health check has; an expired key is none of them.
    pub health: Option<u64>,
    /// This node.
    pub own: Own,
    /// The routes that this node offers to others, approved or not. None where that cannot be read.
    pub advertised: Option<Vec<IpNet>>,
    /// The others, by the name that `tailscale status` shows.
    pub peers: BTreeMap<String, Peer>,
}

/// What tailscaled says of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its name in the tailnet.
    pub name: Option<String>,
    /// Whether it is connected to the coordination server.
    pub is_online: Option<bool>,
    /// The DERP relay where it can be reached, the nearest one by the daemon's own measurements; none where it has none.
    pub home_relay: Option<String>,
    /// When its key expires; none where it never does.
    pub key_expiry: Option<Timestamp>,
    /// Its addresses in the tailnet.
    pub addresses: Vec<IpAddr>,
    /// Addresses and routes that others may send to it: an offered route that is here was approved.
    pub allowed: Vec<IpNet>,
}

/// What tailscaled says of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its addresses in the tailnet.
    pub addresses: Vec<IpAddr>,
    /// Its addresses and the routes behind it that are approved.
    pub allowed: Vec<IpNet>,
    /// The way by which this end sends.
    pub path: Option<PeerPath>,
    /// Where this end sends to: the peer, or the relay of another peer.
    pub endpoint: Option<SocketAddr>,
    /// The number of the session on that relay.
    pub session: Option<u32>,
    /// Whether it is connected to the coordination server. That says nothing of the tunnel.
    pub is_online: Option<bool>,
    /// Whether its key has expired, by tailscaled's word.
    pub is_expired: bool,
    /// When its key expires; none where it never does.
    pub key_expiry: Option<Timestamp>,
    /// Bytes of `WireGuard` that came from it since the daemon began to speak with it; 0 again after it was idle.
    pub received: Option<u64>,
    /// The same to it.
    pub transmitted: Option<u64>,
    /// The last handshake; none where there was none since the peer was idle.
    pub handshake: Option<Timestamp>,
}

/// The way by which this end sends to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerPath {
    /// To the peer itself.
    Direct,
    /// Through another node of the tailnet, over UDP.
    PeerRelay,
    /// Through a DERP relay, over TCP.
    Derp,
    /// Nothing was sent for 45 s: there is no way.
    Idle,
}

impl PeerPath {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Direct, Self::PeerRelay, Self::Derp, Self::Idle];

    /// The value of the `path` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PeerRelay => "peer_relay",
            Self::Derp => "derp",
            Self::Idle => "idle",
        }
    }
}

/// What the daemon is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// It has just begun.
    NoState,
    /// Nobody is logged in, or the key has expired.
    NeedsLogin,
    /// An administrator of the tailnet has not let it in yet.
    NeedsMachineAuth,
    /// It was told to stop.
    Stopped,
    /// It is about to run.
    Starting,
    /// It is part of the tailnet.
    Running,
    /// A word that is not known.
    #[default]
    Other,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoState,
        Self::NeedsLogin,
        Self::NeedsMachineAuth,
        Self::Stopped,
        Self::Starting,
        Self::Running,
        Self::Other,
    ];

    /// The value of the `state` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoState => "no_state",
            Self::NeedsLogin => "needs_login",
            Self::NeedsMachineAuth => "needs_machine_auth",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Other => "other",
        }
    }
}
