//! What happened to the overlay between two moments, for the timeline: pure.

use std::fmt;
use std::sync::Arc;

use crate::peer::{Backend, Node, Overlay, Registry};
use crate::source::netlink::NetworkFacts;

/// One change of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlayEvent {
    /// An overlay device came.
    DeviceAdded {
        /// Its name.
        device: String,
        /// Its backend.
        backend: Backend,
    },
    /// An overlay device went, or carries no pods any more.
    DeviceRemoved {
        /// Its name.
        device: String,
        /// Its backend.
        backend: Backend,
        /// The device that it rode on, where that is gone as well: the kernel takes both away.
        gone_with: Option<String>,
    },
    /// A device of the same name with another index: somebody made it anew.
    DeviceReplaced {
        /// Its name.
        device: String,
    },
    /// A device went up or down.
    DeviceUp {
        /// Its name.
        device: String,
        /// Up now.
        up: bool,
    },
    /// A device's MTU changed.
    DeviceMtu {
        /// Its name.
        device: String,
        /// Before.
        from: Option<u32>,
        /// Now.
        to: Option<u32>,
    },
    /// A device carries pods in another way than before.
    DeviceBackend {
        /// Its name.
        device: String,
        /// Before.
        from: Backend,
        /// Now.
        to: Backend,
    },
    /// A node became known.
    PeerAdded {
        /// Its label.
        peer_node: Arc<str>,
    },
    /// Nothing speaks of a node any more.
    PeerRemoved {
        /// Its label.
        peer_node: Arc<str>,
    },
}

impl fmt::Display for OverlayEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceAdded { device, backend } => {
                write!(f, "overlay device {device} ({}) appeared", backend.as_str())
            }
            Self::DeviceRemoved { device, backend, gone_with: None } => {
                write!(f, "overlay device {device} ({}) disappeared", backend.as_str())
            }
            Self::DeviceRemoved { device, backend, gone_with: Some(carrier) } => {
                write!(
                    f,
                    "overlay device {device} ({}) disappeared with {carrier}, on which it rode",
                    backend.as_str()
                )
            }
            Self::DeviceReplaced { device } => write!(f, "overlay device {device} was made anew"),
            Self::DeviceUp { device, up: true } => write!(f, "overlay device {device} went up"),
            Self::DeviceUp { device, up: false } => write!(f, "overlay device {device} went down"),
            Self::DeviceMtu { device, from, to } => {
                write!(f, "MTU of overlay device {device} changed from {} to {}", Mtu(*from), Mtu(*to))
            }
            Self::DeviceBackend { device, from, to } => {
                write!(f, "overlay device {device} changed from {} to {}", from.as_str(), to.as_str())
            }
            Self::PeerAdded { peer_node } => write!(f, "peer node {peer_node} appeared"),
            Self::PeerRemoved { peer_node } => write!(f, "peer node {peer_node} disappeared"),
        }
    }
}

struct Mtu(Option<u32>);

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => bytes.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// What changed from one registry to the next: devices by name, then peers. A node that gets its name is the same
/// node; a node without a label is not spoken of. `facts` are those of `after`.
#[must_use]
pub fn diff_overlay(before: &Registry, after: &Registry, facts: &NetworkFacts) -> Vec<OverlayEvent> {
    let mut events = Vec::new();
    for old in before.overlays.iter().filter(|old| find(&after.overlays, old).is_none()) {
        let carrier = old.carrier.as_ref().filter(|carrier| facts.link(carrier.index).is_none());
        let gone_with = carrier.map(|carrier| carrier.name.clone());
        events.push(OverlayEvent::DeviceRemoved {
            device: old.device.clone(),
            backend: old.backend,
            gone_with,
        });
    }
    for new in &after.overlays {
        match find(&before.overlays, new) {
            None => {
                events.push(OverlayEvent::DeviceAdded { device: new.device.clone(), backend: new.backend });
            }
            Some(old) => events.extend(diff_device(old, new)),
        }
    }
    let gone = only_in(&before.nodes, &after.nodes).map(|peer_node| OverlayEvent::PeerRemoved { peer_node });
    let new = only_in(&after.nodes, &before.nodes).map(|peer_node| OverlayEvent::PeerAdded { peer_node });
    events.extend(gone.chain(new));
    events
}

fn find<'a>(overlays: &'a [Overlay], wanted: &Overlay) -> Option<&'a Overlay> {
    overlays.iter().find(|overlay| overlay.device == wanted.device)
}

fn only_in(here: &[Node], there: &[Node]) -> impl Iterator<Item = Arc<str>> {
    here.iter().filter(|node| !there.iter().any(|other| other.is_same(node))).filter_map(Node::label)
}

fn diff_device(old: &Overlay, new: &Overlay) -> Vec<OverlayEvent> {
    let device = || new.device.clone();
    let mut events = Vec::new();
    if old.index != new.index {
        events.push(OverlayEvent::DeviceReplaced { device: device() });
    }
    if old.backend != new.backend {
        events.push(OverlayEvent::DeviceBackend { device: device(), from: old.backend, to: new.backend });
    }
    if old.mtu != new.mtu {
        events.push(OverlayEvent::DeviceMtu { device: device(), from: old.mtu, to: new.mtu });
    }
    if old.up != new.up {
        events.push(OverlayEvent::DeviceUp { device: device(), up: new.up });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::decide_peers;
    use crate::peer::fixture::{Network, bare_node, flannel_config, ip, vxlan_node};
    use crate::source::netlink::LinkKind;

    fn registry(network: &Network) -> Registry {
        decide_peers(&network.facts(), &flannel_config())
    }

    fn told(before: &Registry, after: &Registry) -> Vec<String> {
        diff_overlay(before, after, &bare_node().facts()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_overlay_that_comes_and_goes_is_told_with_its_peers() {
        let (bare, whole) = (registry(&bare_node()), registry(&vxlan_node()));
        assert_eq!(
            told(&bare, &whole),
            [
                "overlay device flannel.1 (vxlan) appeared",
                "peer node 192.168.56.12 appeared",
                "peer node 192.168.56.13 appeared"
            ]
        );
        assert_eq!(
            told(&whole, &bare),
            [
                "overlay device flannel.1 (vxlan) disappeared",
                "peer node 192.168.56.12 disappeared",
                "peer node 192.168.56.13 disappeared"
            ]
        );
        assert_eq!(told(&whole, &whole), [""; 0]);
    }

    #[test]
    fn a_device_that_goes_with_the_one_below_is_told_with_it() {
        let mut network = vxlan_node();
        network.link(9, "tailscale0", LinkKind::Tun, 1280);
        for link in &mut network.links {
            if let LinkKind::Vxlan(vxlan) = &mut link.kind {
                vxlan.lower = Some(9);
            }
        }
        let events = told(&registry(&network), &registry(&bare_node()));
        assert_eq!(
            events[0],
            "overlay device flannel.1 (vxlan) disappeared with tailscale0, on which it rode"
        );
    }

    #[test]
    fn changes_of_a_device_are_told_one_by_one() {
        let before = registry(&vxlan_node());
        let mut after = before.clone();
        after.overlays[0].mtu = Some(1400);
        after.overlays[0].up = false;
        after.overlays[0].index = 9;
        assert_eq!(
            told(&before, &after),
            [
                "overlay device flannel.1 was made anew",
                "MTU of overlay device flannel.1 changed from 1450 to 1400",
                "overlay device flannel.1 went down"
            ]
        );
        after.overlays[0].mtu = None;
        assert!(
            told(&before, &after)
                .contains(&"MTU of overlay device flannel.1 changed from 1450 to unknown".into())
        );
    }

    #[test]
    fn a_node_that_gets_its_name_is_no_news() {
        let before = registry(&vxlan_node());
        let mut after = before.clone();
        after.merge(Node {
            name: Some("node2".into()),
            underlay: vec![ip("192.168.56.12")],
            ..Node::default()
        });
        assert_eq!(told(&before, &after), [""; 0]);
    }
}
