//! The events of the tunnel, in the words of the timeline.

use super::memory::PathChange;
use super::state::Moment;
use crate::event::{Kind, Occurrence, Timestamp};
use crate::source::tailscale::{Peer, PeerPath};

/// An event without details.
pub(super) fn plain(kind: Kind, subject: &str, at: Moment) -> Occurrence {
    Occurrence::now(kind, subject).at(at.time)
}

/// This end sends to a peer another way.
pub(super) fn of_path(name: &str, peer: &Peer, change: PathChange, at: Moment) -> Occurrence {
    let (kind, was) = match change {
        PathChange::From(was) => (Kind::TunnelPathChanged, was),
        PathChange::Flapping(was) => (Kind::TunnelPathFlapping, was),
    };
    let event = plain(kind, name, at).with("was", was.as_str());
    with_path(event, peer)
}

/// Something about the way to a peer.
pub(super) fn of_peer(kind: Kind, name: &str, peer: &Peer, at: Moment) -> Occurrence {
    with_path(plain(kind, name, at), peer)
}

fn with_path(event: Occurrence, peer: &Peer) -> Occurrence {
    let event = match peer.path {
        Some(path) => event.with("path", PeerPath::as_str(path)),
        None => event,
    };
    match peer.endpoint {
        Some(endpoint) => event.with("endpoint", endpoint.to_string()),
        None => event,
    }
}

/// A key is about to expire, or has.
pub(super) fn of_key(kind: Kind, name: &str, expiry: Option<Timestamp>, at: Moment) -> Occurrence {
    let event = plain(kind, name, at);
    match expiry {
        Some(expiry) => event.with("expires", expiry.to_string()),
        None => event,
    }
}
