//! HAProxy's own account of itself: the statistics of its frontends, backends and servers, read from the stats socket
//! (`show stat`) or from the page of its exporter.
//!
//! `find` knows where HAProxy may be asked, `ask` does the I/O, bounded in bytes and time; `stat` and `page` are pure
//! parsers of the two answers, which give the same facts. What an answer does not say is `None`.

mod ask;
mod fault;
mod find;
mod page;
mod stat;
mod word;

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{MetricsUrl, StatsSocket};

pub use ask::read;
pub use fault::{AskError, Cause, ParseError};
pub use find::{Candidates, ConfigFile, candidates};
pub use word::{CheckResult, ServerState};

/// Servers, and as many backends and frontends, that are told apart.
pub const MOST: usize = 256;

/// Where HAProxy can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The stats socket.
    Socket(StatsSocket),
    /// The page of its exporter.
    Page(MetricsUrl),
}

impl Address {
    /// The value of the `through` label.
    #[must_use]
    pub const fn through(&self) -> &'static str {
        match self {
            Self::Socket(_) => "stats_socket",
            Self::Page(_) => "metrics_page",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Page(url) => url.fmt(f),
        }
    }
}

/// A server within its backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerName {
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
}

/// What one answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// By name; at most [`MOST`].
    pub frontends: BTreeMap<String, Frontend>,
    /// By name; at most [`MOST`].
    pub backends: BTreeMap<String, Backend>,
    /// By name; at most [`MOST`].
    pub servers: BTreeMap<ServerName, Server>,
    /// What the answer has beyond that.
    pub omitted: Omitted,
}

/// How many of each kind are not in a [`Reading`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Frontends.
    pub frontends: u64,
    /// Backends.
    pub backends: u64,
    /// Servers.
    pub servers: u64,
}

impl Omitted {
    /// Whether nothing was left out.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What clients connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    /// Whether it takes connections; one at its limit does.
    pub is_up: Option<bool>,
    /// Sessions now.
    pub current_sessions: Option<u64>,
    /// Sessions so far.
    pub sessions: Option<u64>,
}

/// A group of servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Whether it has a server left, or never had one.
    pub is_up: Option<bool>,
    /// Servers that get new connections, backup servers not counted.
    pub active_servers: Option<u64>,
    /// Sessions now.
    pub current_sessions: Option<u64>,
    /// Sessions so far.
    pub sessions: Option<u64>,
    /// Whole seconds since its status changed.
    pub changed_ago: Option<u64>,
}

/// A server of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// What HAProxy takes it for.
    pub state: ServerState,
    /// Whether this interface tells a server that is not checked from one that is up.
    pub tells_no_check: bool,
    /// The last health check, where it is checked.
    pub check: Option<CheckResult>,
    /// The code of that check: the status of HTTP, or the exit code of a program.
    pub check_code: Option<u64>,
    /// How often it went from up to down.
    pub downs: Option<u64>,
    /// Whole seconds since its state changed.
    pub changed_ago: Option<u64>,
}

/// What a row is about.
enum Subject {
    Frontend(String),
    Backend(String),
    Server(ServerName),
}

impl Reading {
    fn frontend(&mut self, name: String) -> Option<&mut Frontend> {
        entry(&mut self.frontends, name)
    }

    fn backend(&mut self, name: String) -> Option<&mut Backend> {
        entry(&mut self.backends, name)
    }

    fn server(&mut self, name: ServerName) -> Option<&mut Server> {
        entry(&mut self.servers, name)
    }
}

/// The entry of a name, unless there are too many; who parses knows how often that is to be counted.
fn entry<K: Ord, V: Default>(map: &mut BTreeMap<K, V>, name: K) -> Option<&mut V> {
    if map.len() >= MOST && !map.contains_key(&name) {
        return None;
    }
    Some(map.entry(name).or_default())
}
