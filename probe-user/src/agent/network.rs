//! From the network's state to the kernel side: prefixes to classes, overlay devices to count on, and the timeline.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;

use crate::collector::agent_self::SelfMetrics;
use crate::collector::overlay::{OverlayEvent, diff_overlay};
use crate::config::Config;
use crate::event::{Kind, Occurrence, Timeline};
use crate::http::Latch;
use crate::kernel::{KernelHandle, OverlayTarget};
use crate::peer::{NamedNode, PeerConfig, Registry, decide_classes, with_flannel};
use crate::source::netlink::{NetworkFacts, NetworkState};

/// Bytes of an Ethernet header before the network header.
const ETHERNET_HEADER: u32 = 14;
/// The `reason` label of what goes by classes of peers while the network's state cannot be read.
pub(super) const OLD_CLASSES: &str = "network state cannot be read: classes of peers are the last known ones";

/// The part of the configuration that says what cannot be seen.
pub(super) fn peer_config(config: &Config) -> PeerConfig {
    let node = |node: &crate::config::NodeAddresses| NamedNode {
        name: Some(node.name.as_str().into()),
        addresses: node.addresses.clone(),
    };
    PeerConfig {
        pod_cidrs: config.peers.pod_cidrs.clone(),
        service_cidrs: config.peers.service_cidrs.clone(),
        nodes: config.peers.nodes.iter().map(node).collect(),
        flannel: None,
    }
}

/// Follows the network's state and the registry.
pub(super) struct Wiring {
    pub(super) network: NetworkState,
    pub(super) registry: watch::Receiver<Arc<Registry>>,
    pub(super) config: PeerConfig,
    pub(super) kernel: Option<Arc<KernelHandle>>,
    pub(super) timeline: Arc<Timeline>,
    pub(super) metrics: SelfMetrics,
    pub(super) read: Option<Latch>,
}

impl Wiring {
    pub(super) async fn run(mut self) -> Result<()> {
        let (mut facts, mut current) = (self.network.facts(), self.network.current());
        let (mut before, mut was_current) = (Arc::new(Registry::default()), true);
        loop {
            let snapshot = Arc::clone(&facts.borrow_and_update());
            let registry = Arc::clone(&self.registry.borrow_and_update());
            let is_current = *current.borrow_and_update();
            self.instruct_kernel(&snapshot, &registry);
            self.count();
            if is_current != was_current {
                let kind = if is_current { Kind::NetlinkRestored } else { Kind::NetlinkLost };
                self.timeline.record(Occurrence::now(kind, "netlink"));
            }
            for event in diff_overlay(&before, &registry, &snapshot) {
                self.timeline.record(occurrence(&event));
            }
            (before, was_current) = (registry, is_current);
            if let Some(latch) = self.read.take() {
                latch.set();
            }
            tokio::select! {
                changed = facts.changed() => changed?,
                changed = current.changed() => changed?,
                changed = self.registry.changed() => changed?,
            }
        }
    }

    fn instruct_kernel(&self, facts: &NetworkFacts, registry: &Registry) {
        let Some(kernel) = &self.kernel else { return };
        let config = with_flannel(&self.config, Path::new("/"));
        kernel.set_prefixes(decide_classes(facts, registry, &config));
        kernel.set_overlays(overlay_targets(facts, registry));
    }

    /// Takes over the totals that the network's state keeps.
    fn count(&self) {
        let failures = self.metrics.netlink_failures();
        failures.inc_by(self.network.failures().saturating_sub(failures.get()));
        let resyncs = self.metrics.netlink_resyncs();
        let new = self.network.resyncs().saturating_sub(resyncs.get());
        if new > 0 {
            resyncs.inc_by(new);
            self.timeline.record(Occurrence::now(Kind::NetlinkResynced, "netlink"));
        }
    }
}

/// Overlay devices that have packets of their own to count.
fn overlay_targets(facts: &NetworkFacts, registry: &Registry) -> Vec<OverlayTarget> {
    let with_device = registry.overlays.iter().filter(|overlay| overlay.backend.has_device());
    with_device
        .filter_map(|overlay| facts.link(overlay.index))
        .map(|link| OverlayTarget {
            index: link.index,
            name: link.name.clone(),
            link_header: if link.ethernet { ETHERNET_HEADER } else { 0 },
        })
        .collect()
}

/// An overlay event as the timeline keeps it.
fn occurrence(event: &OverlayEvent) -> Occurrence {
    let changed = |device: &String| Occurrence::now(Kind::OverlayDeviceChanged, device.as_str());
    let bytes = |mtu: &Option<u32>| mtu.map_or_else(|| "unknown".to_owned(), |mtu| mtu.to_string());
    match event {
        OverlayEvent::DeviceAdded { device, backend } => {
            Occurrence::now(Kind::OverlayDeviceAdded, device.as_str()).with("backend", backend.as_str())
        }
        OverlayEvent::DeviceRemoved { device, backend, gone_with } => {
            let event = Occurrence::now(Kind::OverlayDeviceRemoved, device.as_str())
                .with("backend", backend.as_str());
            match gone_with {
                Some(carrier) => event.with("gone_with", carrier.as_str()),
                None => event,
            }
        }
        OverlayEvent::DeviceReplaced { device } => changed(device).with("change", "made anew"),
        OverlayEvent::DeviceUp { device, up } => changed(device).with("up", up.to_string()),
        OverlayEvent::DeviceMtu { device, from, to } => {
            changed(device).with("mtu_from", bytes(from)).with("mtu_to", bytes(to))
        }
        OverlayEvent::DeviceBackend { device, from, to } => {
            changed(device).with("backend_from", from.as_str()).with("backend_to", to.as_str())
        }
        OverlayEvent::PeerAdded { peer_node } => Occurrence::now(Kind::PeerNodeAdded, &**peer_node),
        OverlayEvent::PeerRemoved { peer_node } => Occurrence::now(Kind::PeerNodeRemoved, &**peer_node),
    }
}
