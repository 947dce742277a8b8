//! Virtual addresses from the wire: who advertises them, who holds them, when they moved and why.

pub mod contest;
mod descriptor;
pub mod router;
pub mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::contest::{Cause, Contest, Nanos};
use self::router::{GAP_BOUNDS, Router};
use self::state::{History, PHASE_BOUNDS, Phase, State, VirtualRouter};
use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Buckets, Descriptor, Value};
use crate::source::netlink::{LinkKind, NetworkFacts, NetworkState};

pub use self::descriptor::DESCRIPTORS;

/// The `reason` where nothing can be heard.
const NO_UPLINK: &str = "no uplink is tapped";
/// The `reason` where something may not be heard; the log has the kernel's words.
const UPLINK_MISSED: &str = "an uplink could not be tapped";
/// The `reason` where nothing was heard.
const NO_VIP: &str = "no virtual IP on this node's links";
/// The `reason` where nothing is known of addresses.
const NETWORK_UNREAD: &str = "network state cannot be read: who holds an address is not known";
const VRRP: &str = "vrrp";

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
        if state.contests().is_empty() {
            return Support::No(NO_VIP);
        }
        if uplinks.values().any(|is_tapped| !*is_tapped) {
            return Support::Degraded(UPLINK_MISSED);
        }
        if *self.current.borrow() { Support::Yes } else { Support::Degraded(NETWORK_UNREAD) }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let held = self.current.borrow().then(|| held(&self.facts.borrow()));
        let now = (self.now)();
        let state = self.heard.lock();
        write_routers(sink, state.contests());
        write_vips(sink, state.contests(), held.as_ref(), now);
        write_histories(sink, state.histories());
        Ok(())
    }
}

/// A family, and which part of a `T` it shows.
type Column<T> = (&'static Descriptor, fn(&T) -> Option<Value>);

/// The labels of a router as texts.
fn labels(virtual_router: &VirtualRouter, source: IpAddr) -> [String; 4] {
    let family = virtual_router.family.as_str().to_owned();
    [virtual_router.interface.to_string(), virtual_router.vrid.to_string(), family, source.to_string()]
}

fn write_routers(sink: &mut Sink<'_>, contests: &BTreeMap<VirtualRouter, Contest>) {
    let routers: Vec<([String; 4], &Router)> = contests
        .iter()
        .flat_map(|(virtual_router, contest)| {
            contest.routers().iter().map(|(source, router)| (labels(virtual_router, *source), router))
        })
        .collect();
    let values: [Column<Router>; 3] = [
        (&descriptor::ADVERTISEMENTS, |router| Some(Value::Integer(router.advertisements()))),
        (&descriptor::PRIORITY, |router| router.priority().map(|priority| Value::Integer(priority.into()))),
        (&descriptor::INTERVAL, |router| Some(Value::Float(router.interval().as_secs_f64()))),
    ];
    for (descriptor, read) in values {
        let mut family = sink.family(descriptor);
        for (labels, router) in &routers {
            if let Some(value) = read(router) {
                family.value(&labels.each_ref().map(String::as_str), value);
            }
        }
    }
    let mut family = sink.family(&descriptor::GAP);
    for (labels, router) in &routers {
        let gaps = router.gaps();
        let buckets = Buckets { bounds: &GAP_BOUNDS, counts: &gaps.buckets, sum: gaps.sum };
        family.histogram(&labels.each_ref().map(String::as_str), &buckets);
    }
}

fn write_vips(
    sink: &mut Sink<'_>,
    contests: &BTreeMap<VirtualRouter, Contest>,
    held: Option<&BTreeSet<IpAddr>>,
    now: Nanos,
) {
    let mut vips: BTreeMap<IpAddr, Vec<(&VirtualRouter, &Contest)>> = BTreeMap::new();
    for (virtual_router, contest) in contests {
        for address in contest.addresses() {
            vips.entry(address).or_default().push((virtual_router, contest));
        }
    }
    let mut family = sink.family(&descriptor::INFO);
    for (vip, places) in &vips {
        for (place, _) in places {
            let labels =
                [vip.to_string(), VRRP.to_owned(), place.interface.to_string(), place.vrid.to_string()];
            family.value(&labels.each_ref().map(String::as_str), Value::Integer(1));
        }
    }
    let mut family = sink.family(&descriptor::HELD);
    for (vip, held) in vips.keys().filter_map(|vip| Some((vip, held?.contains(vip)))) {
        family.value(&[&vip.to_string()], Value::Integer(held.into()));
    }
    let mut family = sink.family(&descriptor::ANNOUNCER);
    for (vip, places) in &vips {
        let mut announcers: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for (source, router) in places.iter().flat_map(|(_, contest)| contest.routers()) {
            let announces = router.is_announcing(now) && router.addresses().contains(vip);
            *announcers.entry(*source).or_default() |= announces;
        }
        for (source, announces) in announcers {
            family.value(&[&vip.to_string(), &source.to_string(), VRRP], Value::Integer(announces.into()));
        }
    }
    let mut family = sink.family(&descriptor::CONFLICT);
    for (vip, places) in &vips {
        let conflict = places.iter().any(|(_, contest)| contest.in_conflict());
        family.value(&[&vip.to_string()], Value::Integer(conflict.into()));
    }
}

fn write_histories(sink: &mut Sink<'_>, histories: &BTreeMap<IpAddr, History>) {
    let values: [Column<History>; 3] = [
        (&descriptor::CONFLICTS, |history| Some(Value::Integer(history.conflicts))),
        (&descriptor::CONFLICT_SECONDS, |history| Some(Value::Float(history.conflict_seconds))),
        (&descriptor::BRIEF, |history| Some(Value::Integer(history.brief))),
    ];
    for (descriptor, read) in values {
        let mut family = sink.family(descriptor);
        for (vip, history) in histories {
            if let Some(value) = read(history) {
                family.value(&[&vip.to_string()], value);
            }
        }
    }
    let mut family = sink.family(&descriptor::FAILOVERS);
    for (vip, history) in histories {
        for (cause, count) in Cause::ALL.iter().zip(history.failovers) {
            family.value(&[&vip.to_string(), cause.as_str()], Value::Integer(count));
        }
    }
    let mut family = sink.family(&descriptor::FAILOVER);
    for (vip, history) in histories {
        for (name, phase) in phases(history) {
            let buckets = Buckets { bounds: &PHASE_BOUNDS, counts: &phase.buckets, sum: phase.sum };
            family.histogram(&[&vip.to_string(), name], &buckets);
        }
    }
    let mut family = sink.family(&descriptor::LAST);
    for (vip, history) in histories {
        for (name, phase) in phases(history) {
            if let Some(last) = phase.last {
                family.value(&[&vip.to_string(), name], Value::Float(last));
            }
        }
    }
}

fn phases(history: &History) -> [(&'static str, &Phase); 2] {
    [("announce", &history.announce), ("detect", &history.detect)]
}
