//! Follows the Kubernetes API: the pods of this node get their names from it, the nodes of the cluster become peers, with
//! what Cilium says of them where that runs, and the control plane says who leads it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::Agent;
use super::serve::{Chosen, supervise};
use crate::collector::kubernetes::state::{Moment, Objects, State};
use crate::collector::kubernetes::{Known, Kubernetes, NONE, UNUSABLE};
use crate::collector::unavailable::Unavailable;
use crate::config::Mode;
use crate::event::{Timeline, Timestamp};
use crate::peer::{CILIUM_HOST, Node, Peers};
use crate::source::kubernetes::{
    Access, ClusterCiliumNode, ClusterLease, ClusterNode, ClusterPod, Pruned, Resource, Seen, Watch,
    WatchError, connect,
};
use crate::source::netlink::NetworkState;
use crate::telemetry::with_causes;

/// Follows the API where there is one. What it says of pods is a source of names, also where it says nothing.
pub(super) async fn observe(
    agent: &Agent<'_>,
    network: &NetworkState,
    peers: &Arc<Peers>,
    chosen: &mut Chosen,
) -> Result<Known> {
    let (mode, known) = (agent.config.collector.kubernetes, Known::default());
    let config = &agent.config.kubernetes;
    if mode == Mode::Off {
        tracing::info!(collector = "kubernetes", "collector is off");
        return Ok(known);
    }
    let access = match connect(config.kubeconfig.as_deref()).await {
        Ok(Some(access)) => access,
        Ok(None) => return chosen.add(mode, Arc::new(Unavailable::new("kubernetes", NONE))).map(|()| known),
        Err(error) if mode == Mode::On => {
            return Err(error).context("collector kubernetes must run but cannot");
        }
        Err(error) => {
            tracing::warn!(collector = "kubernetes", cause = with_causes(&error), "the API is not asked");
            return chosen.add(mode, Arc::new(Unavailable::new("kubernetes", UNUSABLE))).map(|()| known);
        }
    };
    let node = config.node.clone().map_or_else(host_name, Ok)?;
    tracing::info!(collector = "kubernetes", server = access.server, node, "the API is followed");
    chosen.add(mode, Arc::new(Kubernetes::new(known.clone())))?;
    let follower = Follower {
        known: known.clone(),
        peers: Arc::clone(peers),
        timeline: Arc::clone(&agent.timeline),
        begun: Instant::now(),
    };
    follower.start(agent, network, &access, &node);
    Ok(known)
}

/// What the kubelet calls its node unless it is told otherwise.
fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("the name of this host cannot be read")?;
    Ok(name.to_string_lossy().to_lowercase())
}

#[derive(Clone)]
struct Follower {
    known: Known,
    peers: Arc<Peers>,
    timeline: Arc<Timeline>,
    begun: Instant,
}

impl Follower {
    fn start(self, agent: &Agent<'_>, network: &NetworkState, access: &Access, node: &str) {
        let selector = format!("spec.nodeName={node}");
        let pods: Watch<ClusterPod> = Watch::new(access.client.clone(), Some(selector));
        let nodes: Watch<ClusterNode> = Watch::new(access.client.clone(), None);
        if agent.config.kubernetes.leases {
            self.clone().follow_leases(agent, Watch::leases(access.client.clone()));
        }
        self.clone().follow_cilium(agent, network, Watch::new(access.client.clone(), None));
        let of_pods = self.clone();
        supervise("kubernetes pods", agent.ended.clone(), async move {
            let mut told = Told::new(Resource::Pods);
            // Whoever names pods reads the state itself.
            let tell = |seen: Result<Seen<ClusterPod>, WatchError>| {
                let _is_changed = of_pods.take(seen, &mut told, |state| &mut state.pods);
            };
            match pods.run(tell).await {}
        });
        supervise("kubernetes nodes", agent.ended.clone(), async move {
            let mut told = Told::new(Resource::Nodes);
            let tell = |seen: Result<Seen<ClusterNode>, WatchError>| {
                if self.take(seen, &mut told, |state| &mut state.nodes) {
                    self.fill_peers();
                }
            };
            match nodes.run(tell).await {}
        });
    }

    /// Where Cilium is not, its resource is not asked for: the API would not know it.
    fn follow_cilium(self, agent: &Agent<'_>, network: &NetworkState, nodes: Watch<ClusterCiliumNode>) {
        let mut facts = network.facts();
        supervise("kubernetes ciliumnodes", agent.ended.clone(), async move {
            let is_here = facts.wait_for(|facts| facts.link_named(CILIUM_HOST).is_some()).await;
            drop(is_here.context("the state of the network is gone")?);
            // From now on the page says that it is followed.
            self.known.lock().cilium_nodes();
            let mut told = Told::new(Resource::CiliumNodes);
            let tell = |seen: Result<Seen<ClusterCiliumNode>, WatchError>| {
                if self.take(seen, &mut told, State::cilium_nodes) {
                    self.fill_peers();
                }
            };
            match nodes.run(tell).await {}
        });
    }

    fn fill_peers(&self) {
        // Under the lock, so that of two changes the later one is the one that stays.
        let known = self.known.lock();
        let of_cilium = known.cilium_nodes.iter().flat_map(Objects::objects).map(cilium_peer);
        self.peers.fill_kubernetes(known.nodes.objects().map(peer).chain(of_cilium).collect());
    }

    fn follow_leases(self, agent: &Agent<'_>, leases: Watch<ClusterLease>) {
        // From now on the page says that they are followed.
        self.known.lock().leases();
        supervise("kubernetes leases", agent.ended.clone(), async move {
            let mut told = Told::new(Resource::Leases);
            let tell = |seen: Result<Seen<ClusterLease>, WatchError>| {
                if self.take(seen, &mut told, State::leases) {
                    let events = self.known.lock().holders(self.moment());
                    for event in events {
                        self.timeline.record(event);
                    }
                }
            };
            match leases.run(tell).await {}
        });
    }

    fn moment(&self) -> Moment {
        Moment { now: self.begun.elapsed(), time: Timestamp::now() }
    }

    /// Takes note of what the API says; whether the objects are others than before.
    fn take<T: Pruned + PartialEq>(
        &self,
        seen: Result<Seen<T>, WatchError>,
        told: &mut Told,
        of: impl FnOnce(&mut State) -> &mut Objects<T>,
    ) -> bool {
        told.log(seen.as_ref().err());
        let at = self.moment();
        let seen = seen.map_err(|error| error.failure());
        let (is_changed, event) = of(&mut self.known.lock()).observe(seen, at);
        if let Some(event) = event {
            self.timeline.record(event);
        }
        is_changed
    }
}

/// What the log knows of a resource: each trouble is told once.
struct Told {
    resource: Resource,
    trouble: Option<String>,
    is_followed: bool,
}

impl Told {
    const fn new(resource: Resource) -> Self {
        Self { resource, trouble: None, is_followed: false }
    }

    fn log(&mut self, error: Option<&WatchError>) {
        let resource = self.resource.as_str();
        let trouble = error.map(|error| with_causes(error));
        match &trouble {
            Some(cause) if self.trouble != trouble => {
                tracing::warn!(
                    collector = "kubernetes",
                    resource,
                    cause,
                    "the API does not say what there is"
                );
            }
            None if self.trouble.is_some() || !self.is_followed => {
                tracing::info!(collector = "kubernetes", resource, "the API says what there is");
            }
            _ => {}
        }
        self.is_followed |= trouble.is_none();
        self.trouble = trouble;
    }
}

/// What Cilium says of a node as a peer.
fn cilium_peer(node: &ClusterCiliumNode) -> Node {
    Node {
        name: Some(Arc::clone(&node.name)),
        overlay: node.overlay.clone(),
        overlay_endpoint: node.endpoint,
        pods: node.pod_cidrs.clone(),
        ..Node::default()
    }
}

/// A node of the cluster as a peer.
fn peer(node: &ClusterNode) -> Node {
    Node {
        name: Some(Arc::clone(&node.name)),
        underlay: node.addresses.clone(),
        pods: node.pod_cidrs.clone(),
        ..Node::default()
    }
}
