//! What the API has said, and since when it says nothing: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lease::Holders;
use crate::event::{Kind, Occurrence, Timestamp};
use crate::source::kubernetes::{
    ClusterCiliumNode, ClusterLease, ClusterNode, ClusterPod, Failure, Pruned, Resource, Seen,
};

/// When something was seen.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By a clock that nobody sets.
    pub now: Duration,
    /// By the node's clock.
    pub time: Timestamp,
}

/// Whether a resource is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// The API has not answered yet.
    #[default]
    Unknown,
    /// What is known is what there is.
    Live,
    /// What is known is old.
    Lost {
        /// Why.
        failure: Failure,
        /// Since when.
        since: Duration,
    },
}

/// A resource, whatever its objects are.
pub trait Watched {
    /// Whether it is followed.
    fn sight(&self) -> Sight;
    /// When the API last said what there is.
    fn confirmed(&self) -> Option<Timestamp>;
    /// How many objects are known.
    fn count(&self) -> u64;
    /// How many requests have failed so.
    fn failures(&self, failure: Failure) -> u64;
}

/// A resource with its objects.
#[derive(Debug)]
pub struct Objects<T> {
    resource: Resource,
    known: BTreeMap<String, T>,
    sight: Sight,
    confirmed: Option<Timestamp>,
    failures: BTreeMap<Failure, u64>,
}

/// Everything that is known.
#[derive(Debug)]
pub struct State {
    /// The pods of this node.
    pub pods: Objects<ClusterPod>,
    /// The nodes of the cluster.
    pub nodes: Objects<ClusterNode>,
    /// What Cilium says of the nodes, where it runs.
    pub cilium_nodes: Option<Objects<ClusterCiliumNode>>,
    /// The leases of the control plane, where they are followed.
    pub leases: Option<Objects<ClusterLease>>,
    /// Who held each last.
    pub holders: Holders,
}

impl Default for State {
    fn default() -> Self {
        Self {
            pods: Objects::new(Resource::Pods),
            nodes: Objects::new(Resource::Nodes),
            cilium_nodes: None,
            leases: None,
            holders: Holders::default(),
        }
    }
}

impl State {
    /// A resource by its name; none that is not followed.
    #[must_use]
    pub fn watched(&self, resource: Resource) -> Option<&dyn Watched> {
        match resource {
            Resource::Pods => Some(&self.pods),
            Resource::Nodes => Some(&self.nodes),
            Resource::CiliumNodes => self.cilium_nodes.as_ref().map(|nodes| nodes as &dyn Watched),
            Resource::Leases => self.leases.as_ref().map(|leases| leases as &dyn Watched),
        }
    }

    /// Those that are followed.
    pub fn followed(&self) -> impl Iterator<Item = (Resource, &dyn Watched)> {
        Resource::ALL.into_iter().filter_map(|resource| Some((resource, self.watched(resource)?)))
    }

    /// What Cilium says of the nodes, which is not asked for before this.
    pub fn cilium_nodes(&mut self) -> &mut Objects<ClusterCiliumNode> {
        self.cilium_nodes.get_or_insert_with(|| Objects::new(Resource::CiliumNodes))
    }

    /// The leases, which are not known before this.
    pub fn leases(&mut self) -> &mut Objects<ClusterLease> {
        self.leases.get_or_insert_with(|| Objects::new(Resource::Leases))
    }

    /// What is to be told of the holders of the leases, as they are now.
    pub fn holders(&mut self, at: Moment) -> Vec<Occurrence> {
        let leases = self.leases.iter().flat_map(Objects::objects);
        self.holders.observe(leases, at.time)
    }
}

impl<T: Pruned + PartialEq> Objects<T> {
    const fn new(resource: Resource) -> Self {
        Self {
            resource,
            known: BTreeMap::new(),
            sight: Sight::Unknown,
            confirmed: None,
            failures: BTreeMap::new(),
        }
    }

    /// The objects that are known.
    pub fn objects(&self) -> impl Iterator<Item = &T> {
        self.known.values()
    }

    /// Takes note of what the API says or does not say; whether the objects are others than before, and what is to be
    /// told.
    pub fn observe(&mut self, seen: Result<Seen<T>, Failure>, at: Moment) -> (bool, Option<Occurrence>) {
        match seen {
            Ok(seen) => {
                let is_changed = self.take(seen);
                self.confirmed = Some(at.time);
                (is_changed, self.live(at))
            }
            Err(failure) => {
                *self.failures.entry(failure).or_default() += 1;
                (false, self.lose(failure, at))
            }
        }
    }

    fn take(&mut self, seen: Seen<T>) -> bool {
        match seen {
            Seen::All(objects) => {
                let new = objects.into_iter().map(|object| (object.key().to_owned(), object)).collect();
                let is_changed = self.known != new;
                self.known = new;
                is_changed
            }
            Seen::Set(object) => {
                let is_changed = self.known.get(object.key()) != Some(&object);
                self.known.insert(object.key().to_owned(), object);
                is_changed
            }
            Seen::Gone(object) => self.known.remove(object.key()).is_some(),
            Seen::Same => false,
        }
    }

    fn live(&mut self, at: Moment) -> Option<Occurrence> {
        let Sight::Lost { since, .. } = std::mem::replace(&mut self.sight, Sight::Live) else { return None };
        let away = at.now.saturating_sub(since);
        let event = Occurrence::now(Kind::KubernetesRestored, self.resource.as_str()).at(at.time);
        Some(event.with("away_ms", away.as_millis().to_string()))
    }

    /// An API that has never answered is no news: the collector says it.
    fn lose(&mut self, failure: Failure, at: Moment) -> Option<Occurrence> {
        let before = self.sight;
        let since = if let Sight::Lost { since, .. } = before { since } else { at.now };
        self.sight = Sight::Lost { failure, since };
        let event = Occurrence::now(Kind::KubernetesLost, self.resource.as_str()).at(at.time);
        (before == Sight::Live).then(|| event.with("reason", failure.as_str()))
    }
}

impl<T> Watched for Objects<T> {
    fn sight(&self) -> Sight {
        self.sight
    }

    fn confirmed(&self) -> Option<Timestamp> {
        self.confirmed
    }

    fn count(&self) -> u64 {
        self.known.len() as u64
    }

    fn failures(&self, failure: Failure) -> u64 {
        self.failures.get(&failure).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { now: Duration::from_secs(seconds), time: Timestamp::from_unix_nanos(1_000_000_000) }
    }

    fn node(name: &str, address: &str) -> ClusterNode {
        ClusterNode { name: name.into(), addresses: vec![address.parse().unwrap()], pod_cidrs: Vec::new() }
    }

    fn names(nodes: &Objects<ClusterNode>) -> Vec<&str> {
        nodes.objects().map(|node| &*node.name).collect()
    }

    fn two() -> Objects<ClusterNode> {
        let mut nodes = Objects::new(Resource::Nodes);
        let all = Seen::All(vec![node("node1", "192.0.2.1"), node("node2", "192.0.2.2")]);
        assert_eq!(nodes.observe(Ok(all), at(0)), (true, None));
        nodes
    }

    #[test]
    fn objects_follow_the_events() {
        let mut nodes = two();
        assert!(nodes.observe(Ok(Seen::Set(node("node3", "192.0.2.3"))), at(1)).0);
        assert!(
            !nodes.observe(Ok(Seen::Set(node("node3", "192.0.2.3"))), at(2)).0,
            "a heartbeat changes nothing"
        );
        assert!(nodes.observe(Ok(Seen::Gone(node("node1", "192.0.2.1"))), at(3)).0);
        assert!(!nodes.observe(Ok(Seen::Same), at(4)).0);
        assert_eq!(names(&nodes), ["node2", "node3"]);
    }

    #[test]
    fn a_list_replaces_what_was_known() {
        let mut nodes = two();
        assert!(nodes.observe(Ok(Seen::All(vec![node("node2", "192.0.2.2")])), at(1)).0);
        assert_eq!(names(&nodes), ["node2"]);
    }

    #[test]
    fn what_is_known_stays_while_the_api_is_away_and_both_ends_are_told() {
        let mut nodes = two();
        let (_, lost) = nodes.observe(Err(Failure::Unreachable), at(10));
        let lost = lost.unwrap();
        assert_eq!((lost.kind, &*lost.subject), (Kind::KubernetesLost, "nodes"));
        assert_eq!(lost.details.get("reason").map(String::as_str), Some("unreachable"));
        assert_eq!(nodes.observe(Err(Failure::Refused), at(12)), (false, None));
        assert_eq!(names(&nodes), ["node1", "node2"]);
        let (_, back) = nodes.observe(Ok(Seen::Same), at(70));
        let back = back.unwrap();
        assert_eq!(back.kind, Kind::KubernetesRestored);
        assert_eq!(back.details.get("away_ms").map(String::as_str), Some("60000"));
        assert_eq!(nodes.failures(Failure::Unreachable), 1);
    }

    #[test]
    fn an_api_that_never_answered_is_no_event() {
        let mut nodes: Objects<ClusterNode> = Objects::new(Resource::Nodes);
        assert_eq!(nodes.observe(Err(Failure::Forbidden), at(0)), (false, None));
        assert_eq!(nodes.sight(), Sight::Lost { failure: Failure::Forbidden, since: Duration::ZERO });
    }
}
