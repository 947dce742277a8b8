//! Virtual addresses from the wire: who advertises them, who holds them, when they moved and why.

pub mod claim;
pub mod contest;
mod descriptor;
pub mod happening;
pub mod history;
mod page;
pub mod place;
pub mod router;
pub mod state;
pub mod stopwatch;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::happening::Nanos;
use self::state::State;
use super::{CollectError, Collector, Support};
use crate::metric::Descriptor;
use crate::metric::sink::Sink;
use crate::source::netlink::{LinkKind, NetworkFacts, NetworkState};

pub use self::descriptor::DESCRIPTORS;

/// The `reason` where nothing can be heard.
const NO_UPLINK: &str = "no uplink is tapped";
/// The `reason` where something may not be heard; the log has the kernel's words.
const UPLINK_MISSED: &str = "an uplink could not be tapped";
/// The `reason` where the group of VRRP could not be joined; the log has the kernel's words.
const UNJOINED: &str = "a group of VRRP could not be joined: advertisements may not be heard";
/// The `reason` where nothing was heard.
const NO_VIP: &str = "no virtual IP on this node's links";
/// The `reason` where nothing is known of addresses.
const NETWORK_UNREAD: &str = "network state cannot be read: who holds an address is not known";

/// What was heard, shared between the task that listens and the collector.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<State>>);

impl Heard {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The collector.
pub struct Vip {
    heard: Heard,
    facts: watch::Receiver<Arc<NetworkFacts>>,
    /// Whether the facts are those of now.
    current: watch::Receiver<bool>,
    now: fn() -> Nanos,
}

impl Vip {
    /// A collector of what was heard, with the network's state for who holds what and a clock like the tap's.
    #[must_use]
    pub fn new(heard: Heard, network: &NetworkState, now: fn() -> Nanos) -> Self {
        Self { heard, facts: network.facts(), current: network.current(), now }
    }
}

/// Addresses of this node that make it answer for them. IPVS and anycast set-ups keep addresses on devices that nobody
/// asks on.
pub(crate) fn held(facts: &NetworkFacts) -> BTreeSet<IpAddr> {
    let is_holding = |device: u32| {
        facts.link(device).is_some_and(|link| match &link.kind {
            LinkKind::Loopback => false,
            LinkKind::Other(kind) => kind != "dummy",
            _ => link.name != "kube-ipvs0",
        })
    };
    let addresses = facts.addresses.iter().filter(|address| is_holding(address.device));
    addresses.map(|address| address.address).collect()
}

impl Collector for Vip {
    fn name(&self) -> &'static str {
        "vip"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        let state = self.heard.lock();
        let uplinks = state.uplinks();
        if !uplinks.values().any(|is_tapped| *is_tapped) {
            return Support::No(NO_UPLINK);
        }
        if state.histories().is_empty() {
            return Support::No(NO_VIP);
        }
        if uplinks.values().any(|is_tapped| !*is_tapped) {
            return Support::Degraded(UPLINK_MISSED);
        }
        if state.is_unjoined() {
            return Support::Degraded(UNJOINED);
        }
        if *self.current.borrow() { Support::Yes } else { Support::Degraded(NETWORK_UNREAD) }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let facts = self.current.borrow().then(|| Arc::clone(&self.facts.borrow()));
        let network = facts.as_ref().map(|facts| (&**facts, held(facts)));
        let now = (self.now)();
        let state = self.heard.lock();
        page::write_routers(sink, &state, now);
        page::write_vips(sink, &state, network.as_ref().map(|(facts, held)| (*facts, held)), now);
        page::write_histories(sink, state.histories(), now);
        Ok(())
    }
}
