//! Where all sources of knowledge about nodes meet and readers follow the result.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::tunnel::{Tunnel, is_end, join_tunnel};
use super::{Node, PeerConfig, Registry, decide_peers};
use crate::source::flannel::read_flannel;
use crate::source::netlink::NetworkFacts;

/// How often `subnet.env` is looked at without any change of the network.
const FLANNEL_PERIOD: Duration = Duration::from_secs(30);

/// The registry that everyone reads and every source fills.
#[derive(Debug, Default)]
pub struct Peers {
    registry: watch::Sender<Arc<Registry>>,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    network: Registry,
    kubernetes: Vec<Node>,
    tunnel: Tunnel,
    /// Whether this node has been an end of it: one whose device is gone has lost its peers, and not its tunnel.
    is_end: bool,
}

impl Peers {
    /// The registry, now and whenever it changes.
    #[must_use]
    pub fn receiver(&self) -> watch::Receiver<Arc<Registry>> {
        self.registry.subscribe()
    }

    /// Replaces what the network's state says. What the one before knew of a node that is still there fills gaps.
    pub fn fill_network(&self, network: Registry) {
        self.update(|parts| {
            parts.network = network.completed_from(&parts.network);
            true
        });
    }

    /// Replaces what the Kubernetes API says, whose names win.
    pub fn fill_kubernetes(&self, nodes: Vec<Node>) {
        self.update(|parts| replace(&mut parts.kubernetes, nodes));
    }

    /// Replaces what the daemon of a tunnel says.
    pub fn fill_tunnel(&self, tunnel: Tunnel) {
        self.update(|parts| replace(&mut parts.tunnel, tunnel));
    }

    /// Joins all parts again, if the change says that there is one.
    fn update(&self, change: impl FnOnce(&mut Parts) -> bool) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut parts) {
            return;
        }
        let mut merged = parts.network.clone();
        merged.members = (!parts.kubernetes.is_empty()).then(|| parts.kubernetes.as_slice().into());
        for node in &parts.kubernetes {
            merged.merge(node.clone());
        }
        // Of what the others know, since it says of nobody that he is a node.
        parts.is_end |= is_end(&merged, &parts.tunnel);
        if parts.is_end {
            join_tunnel(&mut merged, &parts.tunnel);
        }
        // Under the lock, so that two updates are published in the order in which they were made.
        self.registry.send_if_modified(|current| {
            let changed = **current != merged;
            if changed {
                *current = Arc::new(merged);
            }
            changed
        });
    }
}

/// Whether the new value is another one: a daemon that is asked every second mostly says the same.
fn replace<T: PartialEq>(value: &mut T, new: T) -> bool {
    let is_new = *value != new;
    *value = new;
    is_new
}

/// Follows the network's state and keeps the registry's network part current; ends when the feed does. `root` is
/// where `/run/flannel/subnet.env` is looked for: flanneld writes it before its routes, so every change that matters
/// is followed by a fresh look.
pub async fn keep_peers(
    mut facts: watch::Receiver<Arc<NetworkFacts>>,
    peers: Arc<Peers>,
    config: PeerConfig,
    root: PathBuf,
) {
    loop {
        let config = with_flannel(&config, &root);
        let snapshot = Arc::clone(&facts.borrow_and_update());
        peers.fill_network(decide_peers(&snapshot, &config));
        if let Ok(Err(_closed)) = tokio::time::timeout(FLANNEL_PERIOD, facts.changed()).await {
            return;
        }
    }
}

/// The configuration with what flanneld says at this moment; a file that cannot be used is left aside with a warning.
#[must_use]
pub fn with_flannel(config: &PeerConfig, root: &std::path::Path) -> PeerConfig {
    let flannel = read_flannel(root).unwrap_or_else(|error| {
        tracing::warn!(err = &error as &dyn std::error::Error, "flannel's subnet file not used");
        None
    });
    PeerConfig { flannel: flannel.or_else(|| config.flannel.clone()), ..config.clone() }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::peer::TunnelEnd;

    fn node(name: Option<&str>, underlay: &str) -> Node {
        Node { name: name.map(Into::into), underlay: vec![underlay.parse().unwrap()], ..Node::default() }
    }

    fn labels(receiver: &watch::Receiver<Arc<Registry>>) -> Vec<String> {
        receiver.borrow().nodes.iter().filter_map(Node::label).map(|label| label.to_string()).collect()
    }

    #[test]
    fn sources_join_and_leave_again() {
        let peers = Peers::default();
        let mut receiver = peers.receiver();
        let mut network = Registry::default();
        network.merge(node(None, "192.168.56.12"));
        peers.fill_network(network);
        assert_eq!(labels(&receiver), ["192.168.56.12"]);
        peers.fill_kubernetes(vec![node(Some("node2"), "192.168.56.12")]);
        assert_eq!(labels(&receiver), ["node2"]);
        peers.fill_kubernetes(Vec::new());
        assert_eq!(labels(&receiver), ["192.168.56.12"]);
        receiver.mark_unchanged();
        peers.fill_kubernetes(Vec::new());
        assert!(!receiver.has_changed().unwrap());
    }

    #[test]
    fn a_tunnel_is_joined_with_what_the_others_know() {
        let (peers, address) = (Peers::default(), |text: &str| text.parse::<IpAddr>().unwrap());
        let tunnel = |receiver: &watch::Receiver<Arc<Registry>>| receiver.borrow().nodes[0].tunnel.clone();
        let receiver = peers.receiver();
        let end = TunnelEnd {
            name: "node2".into(),
            addresses: vec![address("100.64.0.2")],
            endpoint: None,
            prefixes: Vec::new(),
        };
        peers.fill_tunnel(Tunnel { own: vec![address("100.64.0.1")], ends: vec![end] });
        assert_eq!(receiver.borrow().nodes, []);
        let local = node(Some("node1"), "100.64.0.1");
        peers.fill_network(Registry { local, ..Registry::default() });
        peers.fill_kubernetes(vec![node(Some("node2"), "192.168.56.12")]);
        assert_eq!(tunnel(&receiver), [address("100.64.0.2")]);
        // Its device is gone, and with it its address.
        peers.fill_network(Registry::default());
        assert_eq!(tunnel(&receiver), [address("100.64.0.2")]);
    }
}
