//! The events of HAProxy, in the words of the timeline.

use std::collections::BTreeMap;

use crate::event::{Kind, Occurrence, Timestamp};
use crate::source::haproxy::{Backend, Server, ServerName};

/// Nanoseconds of a second.
pub(super) const SECOND: u64 = 1_000_000_000;

/// A change that is news.
pub(super) struct Change {
    pub(super) kind: Kind,
    /// The state before.
    pub(super) was: &'static str,
    /// When it happened as HAProxy says, in seconds since 1970.
    pub(super) since: Option<u64>,
    /// When it was noticed.
    pub(super) noticed: Timestamp,
}

impl Change {
    /// At HAProxy's own time, which is to the second, where it is known.
    fn event(&self, subject: String) -> Occurrence {
        let since = self.since.map(|seconds| Timestamp::from_unix_nanos(seconds.saturating_mul(SECOND)));
        let time = since.unwrap_or(self.noticed);
        let event = Occurrence { time, kind: self.kind, subject, details: BTreeMap::new() };
        let event = event.with("was", self.was);
        match since {
            Some(since) => event.with("since", since.to_string()),
            None => event,
        }
    }

    /// The event of a server, with the check that was the cause.
    pub(super) fn of_server(&self, name: &ServerName, server: &Server) -> Occurrence {
        let mut event = self.event(format!("{}/{}", name.backend, name.server));
        if let Some(check) = server.check {
            event = event.with("check", check.as_str());
        }
        if let Some(code) = server.check_code {
            event = event.with("code", code.to_string());
        }
        event
    }

    /// The event of a backend, with how many of its servers are left.
    pub(super) fn of_backend(&self, name: &str, backend: &Backend, servers: usize) -> Occurrence {
        let event = self.event(name.to_owned());
        match backend.active_servers {
            Some(active) => event.with("servers", format!("{active} of {servers}")),
            None => event,
        }
    }
}
