//! The one ordered timeline of what happened on this node.
//!
//! Whoever sees something happen records an [`Occurrence`]; the [`Timeline`] gives it the next
//! sequence number. Readers come with the last number they have seen. This module is a leaf: it knows neither where
//! events come from nor how they are served.

pub mod clock;
pub mod file;
pub mod timeline;

use std::time::Duration;
use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

pub use clock::{Clock, Timestamp};
pub use file::EventFile;
pub use timeline::{Page, Timeline};

/// More about an event, in the order of the keys.
///
/// The keys are words of this program, except in an event that was read back from a file.
pub type Details = BTreeMap<Cow<'static, str>, String>;

/// What happened. A closed set: dashboards and readers select on these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Another node does not answer probes on a layer any more.
    PathLost,
    /// It answers them again.
    PathBack,
    /// Packets to another node leave by another device, or are carried by another one.
    PathDeviceChanged,
    /// Packets to another node are encapsulated more often than their layer says.
    PathNested,
    /// They are so no more.
    PathUnnested,
    /// Packets of the size that the kernel promises vanish on the way to another node or back, and smaller ones pass.
    PathBlackHoleOpened,
    /// They pass again, or less is promised.
    PathBlackHoleClosed,
    /// A router on the way to another node has told of a smaller MTU than before.
    PathMtuTold,
    /// The first router that advertises a virtual address was heard.
    VipOwned,
    /// A virtual address moved.
    VipMoved,
    /// The new owner of a virtual address served its first packet past this node.
    VipConverged,
    /// Nobody announces a virtual address any more.
    VipLost,
    /// The last owner announces it again.
    VipReturned,
    /// Another station than the announcers says that it has a virtual address.
    VipDuplicated,
    /// A router uses the number of a virtual router for other addresses.
    VrrpForeignRouter,
    /// Two routers hold on to a virtual address.
    VipConflictOpened,
    /// One of them gave up.
    VipConflictClosed,
    /// Two programs listen on a port of a virtual address.
    VipPortShared,
    /// A service behind a virtual address does not answer this node any more.
    VipUnreachable,
    /// It answers again.
    VipReachable,
    /// This node has a virtual address behind which nothing serves.
    VipUnserved,
    /// It is served again.
    VipServed,
    /// HAProxy took a server for down.
    HaproxyServerDown,
    /// A server that was down takes traffic again.
    HaproxyServerUp,
    /// A backend of HAProxy has no server left.
    HaproxyBackendDown,
    /// It has one again.
    HaproxyBackendUp,
    /// Another member of etcd leads.
    EtcdLeaderChanged,
    /// A member of etcd does not answer any more.
    EtcdMemberLost,
    /// It answers again.
    EtcdMemberBack,
    /// A member joined etcd.
    EtcdMemberAdded,
    /// A member left the list of etcd.
    EtcdMemberRemoved,
    /// A learner of etcd votes now.
    EtcdMemberPromoted,
    /// Too few members of etcd are left to decide anything.
    EtcdQuorumLost,
    /// Enough of them are there again.
    EtcdQuorumBack,
    /// etcd has raised an alarm, which stands until somebody disarms it.
    EtcdAlarmRaised,
    /// The alarm of etcd was disarmed.
    EtcdAlarmCleared,
    /// A file has another certificate than before.
    CertificateRotated,
    /// A server still shows an older certificate than its file has.
    CertificateRenewedNotServed,
    /// It shows the renewed one.
    CertificateRenewedServed,
    /// A certificate is not good any more.
    CertificateExpired,
    /// A component of the control plane does not answer, or says itself that it is not well.
    ControlPlaneDown,
    /// It lives again.
    ControlPlaneUp,
    /// A component of the control plane lives and takes no requests.
    ControlPlaneUnready,
    /// It takes them again.
    ControlPlaneReady,
    /// This node sends to a peer of its tailnet another way: directly, through a peer, through a DERP relay.
    TunnelPathChanged,
    /// The path to a peer changes all the time; it is told again when it has been steady.
    TunnelPathFlapping,
    /// A peer of the tailnet is not connected to the coordination server any more.
    TunnelPeerLost,
    /// It is connected again.
    TunnelPeerBack,
    /// What is sent to a peer of a tunnel is not answered, by tailscaled's word or by handshakes (`source`).
    TunnelPeerSilent,
    /// It is answered again.
    TunnelPeerHeard,
    /// An address from which a peer of a tunnel has answered does so no more.
    TunnelEndpointSilent,
    /// It answers again.
    TunnelEndpointHeard,
    /// What is sent to a peer of the tailnet goes into another tunnel or overlay.
    TunnelPeerNested,
    /// It does so no more.
    TunnelPeerUnnested,
    /// The key of a node of the tailnet ends within a week.
    TunnelKeyExpiring,
    /// The key of a node of the tailnet has ended.
    TunnelKeyExpired,
    /// This node is no part of its tailnet any more.
    TunnelDown,
    /// It is again.
    TunnelUp,
    /// A route that this node offers to its tailnet is not approved.
    TunnelRouteUnapproved,
    /// It was approved after all.
    TunnelRouteApproved,
    /// The Kubernetes API does not say any more what there is of a resource; the last names stay.
    KubernetesLost,
    /// It does again.
    KubernetesRestored,
    /// A lease of the control plane has another holder.
    LeaseMoved,
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
    /// More about it.
    pub details: Details,
}

impl Occurrence {
    /// Something that happened now.
    pub fn now(kind: Kind, subject: impl Into<String>) -> Self {
        Self { time: Timestamp::now(), kind, subject: subject.into(), details: Details::new() }
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
        self.details.insert(Cow::Borrowed(key), value.into());
        self
    }
}

/// A time as the details of events have it: milliseconds with three digits after the point.
#[must_use]
pub fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

/// An entry of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the timeline, from 1. Without gaps in one run of the agent; a run that has an [`EventFile`] goes on
    /// after the last number of the file.
    pub sequence: u64,
    /// When it happened. Not necessarily ascending: a kernel record may be read late.
    pub time: Timestamp,
    /// What happened.
    pub kind: Kind,
    /// What it happened to.
    pub subject: String,
    /// More about it.
    pub details: Details,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            sequence: 7,
            time: Timestamp::from_unix_nanos(1_700_000_000_000_000_042),
            kind: Kind::OverlayDeviceAdded,
            subject: "flannel.1".to_owned(),
            details: Details::from([
                ("mtu".into(), "1450".to_owned()),
                ("backend".into(), "vxlan".to_owned()),
            ]),
        }
    }

    const JSON: &str = concat!(
        r#"{"sequence":7,"time":"2023-11-14T22:13:20.000000042Z","kind":"overlay_device_added","#,
        r#""subject":"flannel.1","details":{"backend":"vxlan","mtu":"1450"}}"#
    );

    #[test]
    fn json_of_an_event() {
        assert_eq!(serde_json::to_string(&event()).unwrap(), JSON);
        assert_eq!(serde_json::from_str::<Event>(JSON).unwrap(), event());
    }

    #[test]
    fn a_field_of_a_newer_version_is_passed_over_and_a_kind_is_not() {
        let more = JSON.replace("\"subject\"", "\"node\":\"a\",\"subject\"");
        assert_eq!(serde_json::from_str::<Event>(&more).unwrap(), event());
        assert!(serde_json::from_str::<Event>(&JSON.replace("device_added", "device_renamed")).is_err());
    }
}
