//! Follows one resource: a list in pages, then a watch from there, and again from the last version that was seen.
//!
//! The loop is ours, since a page of metrics must say how fresh what is known is: every answer counts, also a bookmark
//! and a watch that was begun again without anything new.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::api::{Api, ListParams, ResourceExt as _, WatchEvent, WatchParams};
use kube::{Client, Error};
use tokio::time::{sleep, timeout};

use super::lease::{self, ClusterLease};
use super::object::Pruned;

/// Objects of one page of a list: a node may have 100 KiB.
const PAGE: u32 = 100;
/// A watch that says nothing for so long is begun again. Bookmarks come once a minute.
const SILENCE: Duration = Duration::from_secs(75);
/// How long an answer may take, but for what a watch still sends.
const ANSWER: Duration = Duration::from_secs(15);
/// The first pause after a failure, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];
/// The status of a version that the API has forgotten.
const GONE: u16 = 410;

/// A resource of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Pods of this node.
    Pods,
    /// Nodes of the cluster.
    Nodes,
    /// What Cilium says of the nodes.
    CiliumNodes,
    /// Leases of the control plane.
    Leases,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pods, Self::Nodes, Self::CiliumNodes, Self::Leases];

    /// The value of the `resource` label: the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::CiliumNodes => "ciliumnodes",
            Self::Leases => "leases",
        }
    }
}

/// What the API has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// All objects that there are.
    All(Vec<T>),
    /// A new or changed object.
    Set(T),
    /// An object that is gone, as it was.
    Gone(T),
    /// That nothing has changed.
    Same,
}

/// Why the API says nothing: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No way there, or no answer in time.
    Unreachable,
    /// It does not take the credentials.
    Unauthorized,
    /// RBAC does not allow it.
    Forbidden,
    /// Any other refusal, or an answer that cannot be read.
    Refused,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::Unauthorized, Self::Forbidden, Self::Refused];

    /// The value of the `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
        }
    }
}

/// A failure, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The client has failed, or the API has refused.
    #[error(transparent)]
    Api(#[from] Error),
    /// No answer in time.
    #[error("no answer within {} s", ANSWER.as_secs())]
    Late,
    /// A watch was ended by the API with this status and message.
    #[error("the watch was ended with {0}: {1}")]
    Ended(u16, String),
    /// An event that cannot be read.
    #[error("an event of the watch cannot be read: {0}")]
    Event(#[source] Error),
}

impl WatchError {
    /// The kind of failure.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self.status() {
            Some(401) => Failure::Unauthorized,
            Some(403) => Failure::Forbidden,
            Some(_) => Failure::Refused,
            None => match self {
                Self::Event(_)
                | Self::Api(Error::SerdeError(_) | Error::BuildRequest(_) | Error::Auth(_)) => {
                    Failure::Refused
                }
                _ => Failure::Unreachable,
            },
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Api(Error::Api(status)) => Some(status.code),
            Self::Ended(code, _) => Some(*code),
            _ => None,
        }
    }

    fn is_expired(&self) -> bool {
        // What cannot be read once cannot be read again: the list may do better.
        self.status() == Some(GONE) || matches!(self, Self::Event(_))
    }
}

/// Follows a resource.
pub struct Watch<T: Pruned> {
    api: Api<T::Object>,
    fields: Option<String>,
}

impl Watch<ClusterLease> {
    /// Of the control plane's namespace.
    #[must_use]
    pub fn leases(client: Client) -> Self {
        Self { api: Api::namespaced(client, lease::NAMESPACE), fields: None }
    }
}

impl<T: Pruned> Watch<T> {
    /// Of all namespaces, those objects that the field selector has.
    #[must_use]
    pub fn new(client: Client, fields: Option<String>) -> Self {
        Self { api: Api::all(client), fields }
    }

    /// Tells what the API says, and each failure, for ever.
    pub async fn run(self, mut tell: impl FnMut(Result<Seen<T>, WatchError>)) -> Infallible {
        let mut pause = Pause::new();
        loop {
            match self.list().await {
                Ok((objects, version)) => {
                    tell(Ok(Seen::All(objects)));
                    pause.reset();
                    self.follow(version, &mut pause, &mut tell).await;
                }
                Err(error) => tell(Err(error)),
            }
            pause.wait().await;
        }
    }

    async fn list(&self) -> Result<(Vec<T>, String), WatchError> {
        let mut params =
            ListParams { field_selector: self.fields.clone(), limit: Some(PAGE), ..ListParams::default() };
        let mut objects = Vec::new();
        loop {
            let page = in_time(self.api.list(&params)).await?;
            objects.extend(page.items.iter().filter_map(T::prune));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok((objects, page.metadata.resource_version.unwrap_or_default()));
            }
        }
    }

    /// Watches from a version on, until the API has forgotten the last one that was seen.
    async fn follow(
        &self,
        mut version: String,
        pause: &mut Pause,
        tell: &mut impl FnMut(Result<Seen<T>, WatchError>),
    ) {
        loop {
            let begun = Instant::now();
            let Err(error) = self.watch(&mut version, pause, tell).await else {
                // What ends watches at once is not the API.
                if begun.elapsed() < PAUSES[0] {
                    pause.wait().await;
                }
                continue;
            };
            let is_expired = error.is_expired();
            if !is_expired || error.status().is_none() {
                tell(Err(error));
            }
            if is_expired {
                return;
            }
            pause.wait().await;
        }
    }

    /// One watch, until the API ends it as it does every few minutes, or says nothing for long.
    async fn watch(
        &self,
        version: &mut String,
        pause: &mut Pause,
        tell: &mut impl FnMut(Result<Seen<T>, WatchError>),
    ) -> Result<(), WatchError> {
        let params = WatchParams { field_selector: self.fields.clone(), ..WatchParams::default() };
        let mut events = pin!(in_time(self.api.watch(&params, version)).await?);
        tell(Ok(Seen::Same));
        pause.reset();
        while let Ok(Some(event)) = timeout(SILENCE, events.next()).await {
            let event = event.map_err(|error| match error {
                Error::SerdeError(_) => WatchError::Event(error),
                error => WatchError::Api(error),
            })?;
            tell(Ok(take(event, version)?));
        }
        Ok(())
    }
}

/// What an event says, and the version that it leads to.
fn take<T: Pruned>(event: WatchEvent<T::Object>, version: &mut String) -> Result<Seen<T>, WatchError> {
    let mut pruned = |object: T::Object, seen: fn(T) -> Seen<T>| {
        if let Some(newer) = object.resource_version() {
            *version = newer;
        }
        T::prune(&object).map_or(Seen::Same, seen)
    };
    Ok(match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => pruned(object, Seen::Set),
        WatchEvent::Deleted(object) => pruned(object, Seen::Gone),
        WatchEvent::Bookmark(bookmark) => {
            *version = bookmark.metadata.resource_version;
            Seen::Same
        }
        WatchEvent::Error(status) => return Err(WatchError::Ended(status.code, status.message)),
    })
}

async fn in_time<A>(answer: impl Future<Output = Result<A, Error>>) -> Result<A, WatchError> {
    Ok(timeout(ANSWER, answer).await.map_err(|_elapsed| WatchError::Late)??)
}

/// Pauses that become longer, each of some random part, so that the agents of a cluster do not all ask at once when
/// their API is back.
struct Pause {
    next: Duration,
    random: RandomState,
    made: u64,
}

impl Pause {
    fn new() -> Self {
        Self { next: PAUSES[0], random: RandomState::new(), made: 0 }
    }

    fn reset(&mut self) {
        self.next = PAUSES[0];
    }

    /// The next pause, between its half and all of it.
    fn take(&mut self) -> Duration {
        self.made = self.made.wrapping_add(1);
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.made);
        let share = u32::from(hasher.finish().to_le_bytes()[0]);
        let pause = self.next / 2 + self.next / 2 * share / 255;
        self.next = (self.next * 2).min(PAUSES[1]);
        pause
    }

    async fn wait(&mut self) {
        sleep(self.take()).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::kubernetes::ClusterNode;

    fn event(kind: &str, object: &serde_json::Value) -> WatchEvent<<ClusterNode as Pruned>::Object> {
        serde_json::from_value(json!({"type": kind, "object": object})).unwrap()
    }

    fn node(version: &str) -> serde_json::Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node2", "resourceVersion": version}})
    }

    #[test]
    fn every_event_moves_the_version_on() {
        let mut version = "1".to_owned();
        let known = |seen: &Seen<ClusterNode>| match seen {
            Seen::Set(node) => format!("set {}", node.name),
            Seen::Gone(node) => format!("gone {}", node.name),
            other => format!("{other:?}"),
        };
        for (kind, next, expected) in [
            ("ADDED", "2", "set node2"),
            ("MODIFIED", "3", "set node2"),
            ("BOOKMARK", "4", "Same"),
            ("DELETED", "5", "gone node2"),
        ] {
            let seen = take::<ClusterNode>(event(kind, &node(next)), &mut version).unwrap();
            assert_eq!((known(&seen).as_str(), version.as_str()), (expected, next));
        }
    }

    #[test]
    fn a_forgotten_version_is_followed_by_a_new_list() {
        let status = json!({"kind": "Status", "code": 410, "message": "too old resource version", "reason": "Expired"});
        let error = take::<ClusterNode>(event("ERROR", &status), &mut String::new()).unwrap_err();
        assert!(error.is_expired());
        assert!(error.to_string().contains("410: too old resource version"), "{error}");
    }

    #[test]
    fn refusals_are_told_apart() {
        for (code, expected) in
            [(401, Failure::Unauthorized), (403, Failure::Forbidden), (500, Failure::Refused)]
        {
            let status = json!({"kind": "Status", "code": code, "message": "no"});
            let error = take::<ClusterNode>(event("ERROR", &status), &mut String::new()).unwrap_err();
            assert_eq!((error.failure(), error.is_expired()), (expected, false));
        }
        assert_eq!(WatchError::Late.failure(), Failure::Unreachable);
    }

    #[test]
    fn pauses_become_longer_up_to_a_bound_and_begin_again() {
        let mut pause = Pause::new();
        let mut whole = PAUSES[0];
        for _ in 0..8 {
            let taken = pause.take();
            assert!(taken >= whole / 2 && taken <= whole, "{taken:?} of {whole:?}");
            whole = (whole * 2).min(PAUSES[1]);
        }
        pause.reset();
        assert!(pause.take() <= PAUSES[0]);
    }
}
