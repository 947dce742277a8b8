//! The one ordered timeline of what happened on this node.
//!
//! Whoever sees something happen records an [`Occurrence`]; the [`Timeline`](timeline::Timeline) gives it the next
//! sequence number. Readers come with the last number they have seen. This module is a leaf: it knows neither where
//! events come from nor how they are served.

pub mod clock;
pub mod timeline;

use std::collections::BTreeMap;

use serde::Serialize;

pub use clock::{Clock, Timestamp};
pub use timeline::{Page, Timeline};

/// What happened. A closed set: dashboards and readers select on these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The agent began to observe; events before it are unknown.
    AgentStarted,
    /// The agent was asked to stop.
    AgentStopped,
    /// The first cgroup of a pod appeared.
    PodStarted,
    /// The last cgroup of a pod is gone.
    PodStopped,
    /// An overlay device appeared.
    OverlayDeviceAdded,
    /// An overlay device is gone.
    OverlayDeviceRemoved,
    /// An overlay device changed its state, MTU or backend.
    OverlayDeviceChanged,
    /// Another node appeared in the peer registry.
    PeerNodeAdded,
    /// Another node is gone from the peer registry.
    PeerNodeRemoved,
    /// The first router that advertises a virtual address was heard.
    VipOwned,
    /// A virtual address moved.
    VipMoved,
    /// Two routers hold on to a virtual address.
    VipConflictOpened,
    /// One of them gave up.
    VipConflictClosed,
    /// HAProxy took a server for down.
    HaproxyServerDown,
    /// A server that was down takes traffic again.
    HaproxyServerUp,
    /// A backend of HAProxy has no server left.
    HaproxyBackendDown,
    /// It has one again.
    HaproxyBackendUp,
    /// A netlink socket overran and the state was read again.
    NetlinkResynced,
    /// Links, addresses, routes and neighbours can no longer be followed.
    NetlinkLost,
    /// They are followed again.
    NetlinkRestored,
    /// A collector began to fail.
    CollectorFailed,
    /// A collector works again.
    CollectorRecovered,
}

/// Something that happened, before it has its place in the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// When it happened, by this node's clock.
    pub time: Timestamp,
    /// What happened.
    pub kind: Kind,
    /// What it happened to: `namespace/pod`, a device, a node.
    pub subject: String,
    /// More about it, in the order of the keys.
    pub details: BTreeMap<&'static str, String>,
}

impl Occurrence {
    /// Something that happened now.
    pub fn now(kind: Kind, subject: impl Into<String>) -> Self {
        Self { time: Timestamp::now(), kind, subject: subject.into(), details: BTreeMap::new() }
    }

    /// The same at another time.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.details.insert(key, value.into());
        self
    }
}

/// An entry of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Position in the timeline of this run of the agent, from 1, without gaps.
    pub sequence: u64,
    /// When it happened. Not necessarily ascending: a kernel record may be read late.
    pub time: Timestamp,
    /// What happened.
    pub kind: Kind,
    /// What it happened to.
    pub subject: String,
    /// More about it.
    pub details: BTreeMap<&'static str, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_an_event() {
        let event = Event {
            sequence: 7,
            time: Timestamp::from_unix_nanos(1_700_000_000_000_000_042),
            kind: Kind::OverlayDeviceAdded,
            subject: "flannel.1".to_owned(),
            details: BTreeMap::from([("mtu", "1450".to_owned()), ("backend", "vxlan".to_owned())]),
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            concat!(
                r#"{"sequence":7,"time":"2023-11-14T22:13:20.000000042Z","kind":"overlay_device_added","#,
                r#""subject":"flannel.1","details":{"backend":"vxlan","mtu":"1450"}}"#
            )
        );
    }
}
