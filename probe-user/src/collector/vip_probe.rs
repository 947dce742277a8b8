//! Probes of virtual addresses: whether what is behind them answers, how fast, and until when its certificate is good.
//!
//! A virtual address that is held is not yet one that serves. Eight nodes probe it, which is enough to tell a service
//! from a path, and always the one that holds it, which alone can say that it does so in vain.

mod descriptor;
pub mod plan;
pub mod state;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::state::{PHASE_BOUNDS, Probed, State};
use super::vip::held;
use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Buckets, Descriptor, Value};
use crate::source::netlink::{NetworkFacts, NetworkState};
use crate::source::vip_probe::Verdict;

pub use self::descriptor::DESCRIPTORS;

/// The `reason` where there is nothing to probe.
const NO_TARGET: &str = "no virtual address to probe";
/// The `reason` where the others do it.
const OTHERS: &str = "other nodes probe the virtual addresses";
/// The `reason` where no service was found.
const NO_SERVICE: &str = "no probed port of a virtual address has answered";
/// The `reason` where nothing is known of addresses.
const NETWORK_UNREAD: &str = "network state cannot be read: who holds an address is not known";

/// What was probed, shared between the task that probes and the collector.
#[derive(Clone, Debug, Default)]
pub struct Probes(Arc<Mutex<State>>);

impl Probes {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which addresses this node has, as of now.
#[derive(Clone)]
pub struct Holding {
    facts: watch::Receiver<Arc<NetworkFacts>>,
    /// Whether the facts are those of now.
    current: watch::Receiver<bool>,
}

impl Holding {
    /// As the network's state says.
    #[must_use]
    pub fn new(network: &NetworkState) -> Self {
        Self { facts: network.facts(), current: network.current() }
    }

    /// Whether this node has the address; none while that is not known.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> Option<bool> {
        self.is_current().then(|| held(&self.facts.borrow()).contains(&address))
    }

    /// Whether an address is one of a network that this node is on.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.facts.borrow().is_on_link(address)
    }

    fn is_current(&self) -> bool {
        *self.current.borrow()
    }
}

/// The collector.
pub struct VipProbe {
    probes: Probes,
    holding: Holding,
}

impl VipProbe {
    /// A collector of what was probed.
    #[must_use]
    pub fn new(probes: Probes, network: &NetworkState) -> Self {
        Self { probes, holding: Holding::new(network) }
    }
}

impl Collector for VipProbe {
    fn name(&self) -> &'static str {
        "vip_probe"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        let state = self.probes.lock();
        match state.counts() {
            (0, _, _) => Support::No(NO_TARGET),
            (_, 0, _) => Support::No(OTHERS),
            _ if state.known().next().is_none() => Support::No(NO_SERVICE),
            _ if !self.holding.is_current() => Support::Degraded(NETWORK_UNREAD),
            _ => Support::Yes,
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let state = self.probes.lock();
        let known: Vec<([String; 2], &Probed, &SocketAddr)> = state
            .known()
            .map(|(place, probed)| ([place.ip().to_string(), place.port().to_string()], probed, place))
            .collect();
        let mut family = sink.family(&descriptor::REACHABLE);
        for ([vip, port], probed, _) in &known {
            if let Some(is_reachable) = probed.is_reachable {
                family.value(&[vip, port], Value::Integer(is_reachable.into()));
            }
        }
        let mut family = sink.family(&descriptor::PROBES);
        for ([vip, port], probed, _) in &known {
            for (verdict, count) in Verdict::ALL.iter().zip(probed.counts) {
                family.value(&[vip, port, verdict.as_str()], Value::Integer(count));
            }
        }
        let mut family = sink.family(&descriptor::SECONDS);
        for ([vip, port], probed, _) in &known {
            for (name, phase) in probed.phases() {
                let buckets = Buckets { bounds: &PHASE_BOUNDS, counts: &phase.buckets, sum: phase.sum };
                family.histogram(&[vip, port, name], &buckets);
            }
        }
        let mut family = sink.family(&descriptor::NOT_AFTER);
        for ([vip, port], probed, _) in &known {
            if let Some(not_after) = probed.not_after {
                family.value(&[vip, port], Value::Integer(not_after));
            }
        }
        let mut family = sink.family(&descriptor::UNSERVED);
        for ([vip, port], probed, place) in &known {
            // The address may have gone since that probe.
            let is_held = self.holding.has(place.ip()) == Some(true);
            if let Some(is_unserved) = probed.is_unserved.filter(|_| is_held) {
                family.value(&[vip, port], Value::Integer(is_unserved.into()));
            }
        }
        let (planned, _, ignored) = state.counts();
        if planned > 0 {
            let ignored = Value::Integer(u64::try_from(ignored).unwrap_or(u64::MAX));
            sink.family(&descriptor::IGNORED).value(&[], ignored);
        }
        Ok(())
    }
}
