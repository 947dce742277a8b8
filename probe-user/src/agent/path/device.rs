//! Looks up which devices the probed paths leave by, and tells the timeline when that changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::collector::path::Paths;
use crate::collector::path::plan::{PathKey, Plan};
use crate::collector::path::ride::{Ride, RideChange, decide_ride, fitting_mtu, outer_address};
use crate::event::{Kind, Occurrence, Timeline};
use crate::source::netlink::{NetlinkError, NetworkFacts, RouteLookup};
use crate::telemetry::with_causes;

/// Rules of routing change without a word of what is followed.
const ROUND: Duration = Duration::from_secs(10);
/// At least between two rounds: a table that is filled changes at every entry.
const PAUSE: Duration = Duration::from_millis(250);
/// What the timeline says where there is no device.
const NONE: &str = "none";

/// Looks up devices.
pub(super) struct Devices {
    pub(super) paths: Paths,
    pub(super) plan: watch::Receiver<Arc<Plan>>,
    pub(super) facts: watch::Receiver<Arc<NetworkFacts>>,
    pub(super) timeline: Arc<Timeline>,
}

impl Devices {
    pub(super) async fn run(mut self) -> Result<()> {
        let (mut lookup, mut is_told) = (None, false);
        loop {
            match self.round(&mut lookup).await {
                Ok(rides) => {
                    is_told = false;
                    self.follow(rides);
                }
                // What was looked up last may not be so any more.
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        let cause = with_causes(&error);
                        tracing::warn!(collector = "path", cause, "devices are not looked up");
                    }
                    lookup = None;
                    self.paths.rides().follow(BTreeMap::new());
                }
            }
            sleep(PAUSE).await;
            self.change().await?;
        }
    }

    /// Waits until something may be different.
    async fn change(&mut self) -> Result<()> {
        let changed = async {
            tokio::select! {
                changed = self.plan.changed() => changed.context("nobody decides any more which paths are probed"),
                changed = self.facts.changed() => changed.context("the state of the network is gone"),
            }
        };
        timeout(ROUND, changed).await.unwrap_or(Ok(()))
    }

    async fn round(
        &mut self,
        lookup: &mut Option<RouteLookup>,
    ) -> Result<BTreeMap<PathKey, Ride>, NetlinkError> {
        let plan = Arc::clone(&self.plan.borrow_and_update());
        let facts = Arc::clone(&self.facts.borrow_and_update());
        let mut rides = BTreeMap::new();
        if plan.paths.is_empty() {
            return Ok(rides);
        }
        let lookup = match lookup {
            Some(lookup) => lookup,
            None => lookup.insert(RouteLookup::open()?),
        };
        for (key, address) in &plan.paths {
            let output = lookup.route(*address).await?;
            let device = output.and_then(|output| facts.link(output.device));
            let node = plan.registry.node_of(*address);
            let outer = device.zip(node).and_then(|(device, node)| outer_address(device, node, &facts));
            let carried = match outer {
                Some(outer) => lookup.route(outer).await?,
                None => None,
            };
            let carrier = carried.and_then(|output| facts.link(output.device));
            let ride = decide_ride(key.layer, device, carrier);
            let mtu = output.and_then(|output| output.mtu).or(ride.mtu);
            let carrier_mtu =
                carried.and_then(|output| output.mtu).or(carrier.and_then(|carrier| carrier.mtu));
            let fitting_mtu = device
                .zip(carrier_mtu)
                .zip(outer)
                .and_then(|((device, mtu), outer)| fitting_mtu(device, mtu, outer));
            rides.insert(key.clone(), Ride { mtu, fitting_mtu, ..ride });
        }
        Ok(rides)
    }

    fn follow(&self, rides: BTreeMap<PathKey, Ride>) {
        let changes = self.paths.rides().follow(rides);
        for event in changes.iter().flat_map(occurrences) {
            self.timeline.record(event);
        }
    }
}

/// What of a change is told: other devices than before, and whether the path is nested, also when it is new.
fn occurrences(change: &RideChange) -> Vec<Occurrence> {
    let RideChange { path, before, now } = change;
    let is_told = |is: &Option<bool>| *is == Some(true);
    let was_nested = before.as_ref().is_some_and(|before| is_told(&before.is_nested));
    let devices = |ride: &Ride| [&ride.device, &ride.carrier].map(|name| name.clone().unwrap_or(NONE.into()));
    let [device, carrier] = devices(now);
    let event = |kind| {
        Occurrence::now(kind, &*path.peer)
            .with("layer", path.layer.as_str())
            .with("device", device.clone())
            .with("carrier", carrier.clone())
    };
    let mut told = Vec::new();
    if let Some([was_device, was_carrier]) = before.as_ref().map(devices)
        && [&was_device, &was_carrier] != [&device, &carrier]
    {
        told.push(
            event(Kind::PathDeviceChanged)
                .with("device_before", was_device)
                .with("carrier_before", was_carrier),
        );
    }
    match (was_nested, now.is_nested) {
        (false, Some(true)) => {
            let event = event(Kind::PathNested);
            told.push(match now.fitting_mtu {
                Some(mtu) => event.with("fitting_mtu_bytes", mtu.to_string()),
                None => event,
            });
        }
        (true, Some(false)) => told.push(event(Kind::PathUnnested)),
        _ => {}
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::path::plan::Layer;

    fn ride(device: &str, carrier: &str, is_nested: Option<bool>) -> Ride {
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Ride { device: name(device), carrier: name(carrier), is_nested, ..Ride::default() }
    }

    fn told(before: Option<Ride>, now: Ride) -> Vec<String> {
        let path = PathKey { peer: "node2".into(), layer: Layer::Overlay };
        let events = occurrences(&RideChange { path, before, now });
        let detail = |event: &Occurrence, key: &str| event.details.get(key).cloned().unwrap_or_default();
        let shown = events.iter().map(|event| {
            let details =
                ["device_before", "carrier_before", "device", "carrier"].map(|key| detail(event, key));
            format!("{:?} {}", event.kind, details.join(" "))
        });
        shown.collect()
    }

    #[test]
    fn a_new_path_is_told_only_where_it_is_nested() {
        assert_eq!(told(None, ride("flannel.1", "eth0", Some(false))), [] as [&str; 0]);
        let nested = told(None, ride("flannel.1", "tailscale0", Some(true)));
        assert_eq!(nested, ["PathNested   flannel.1 tailscale0"]);
    }

    #[test]
    fn a_path_that_comes_to_ride_on_another_is_told_of_and_so_is_its_return() {
        let (plain, nested) =
            (ride("flannel.1", "eth0", Some(false)), ride("flannel.1", "tailscale0", Some(true)));
        let there = told(Some(plain.clone()), nested.clone());
        let changed = "PathDeviceChanged flannel.1 eth0 flannel.1 tailscale0";
        assert_eq!(there, [changed, "PathNested   flannel.1 tailscale0"]);
        let back = told(Some(nested), plain);
        let changed = "PathDeviceChanged flannel.1 tailscale0 flannel.1 eth0";
        assert_eq!(back, [changed, "PathUnnested   flannel.1 eth0"]);
    }

    #[test]
    fn a_device_that_is_gone_is_told_of_and_does_not_end_the_nesting() {
        let gone = told(Some(ride("flannel.1", "tailscale0", Some(true))), Ride::default());
        assert_eq!(gone, ["PathDeviceChanged flannel.1 tailscale0 none none"]);
    }
}
