//! From the tap's frames to virtual addresses: keeps the uplinks tapped, and tells the timeline what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::collector::agent_self::{EventSource, SelfMetrics};
use crate::collector::vip::Heard;
use crate::collector::vip::contest::{Conflict, Happening, Nanos};
use crate::collector::vip::state::{Notice, Passage};
use crate::event::{Clock, Kind, Occurrence, Timeline};
use crate::host::uplinks;
use crate::kernel::{Frame, KernelHandle, Uplink};
use crate::peer::{PeerConfig, with_flannel};
use crate::source::multicast::Memberships;
use crate::source::netlink::{LinkKind, NetworkFacts};
use crate::wire::{self, Capture, Medium};

/// How often silence is looked for: a tenth of the usual interval of one second, and the shortest one in use.
const TICK: Duration = Duration::from_millis(100);
/// Frames can be on their way to us for this long; after a pause of the whole process they are, for longer.
const LATENESS: Nanos = 100_000_000;
/// Frames taken at once.
const BATCH: usize = 256;

/// The monotonic clock, as the programs read it.
pub(super) fn monotonic() -> Nanos {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Listens to the tap.
pub(super) struct Listener {
    pub(super) frames: mpsc::Receiver<Frame>,
    pub(super) facts: watch::Receiver<Arc<NetworkFacts>>,
    pub(super) kernel: Arc<KernelHandle>,
    pub(super) heard: Heard,
    pub(super) timeline: Arc<Timeline>,
    pub(super) metrics: SelfMetrics,
    pub(super) config: PeerConfig,
    /// Whether to join the groups of VRRP.
    pub(super) join: bool,
}

/// The tapped devices by index.
#[derive(Default)]
struct Devices {
    names: BTreeMap<u32, Arc<str>>,
    /// Devices under a VLAN device that is tapped itself: tagged frames are seen there again.
    trunks: BTreeSet<u32>,
}

impl Listener {
    pub(super) async fn run(mut self) -> Result<()> {
        let mut memberships = self.memberships();
        let mut devices = self.follow(memberships.as_mut());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_tick = monotonic();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                count = self.frames.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        bail!("the kernel thread has ended");
                    }
                    self.observe(&devices, batch.drain(..));
                }
                changed = self.facts.changed() => {
                    changed?;
                    devices = self.follow(memberships.as_mut());
                }
                _ = ticks.tick() => {
                    let now = monotonic();
                    // After a pause the frames of that time are still to come: silence would be ours.
                    if now - last_tick < 10 * LATENESS {
                        let notices = self.heard.lock().tick(now - LATENESS);
                        self.record(&notices);
                    }
                    last_tick = now;
                    self.count_losses();
                }
            }
        }
    }

    fn memberships(&self) -> Option<Memberships> {
        if !self.join {
            return None;
        }
        Memberships::new()
            .inspect_err(|error| tracing::warn!(%error, "only unicast and own VRRP advertisements are heard"))
            .ok()
    }

    /// Has the devices tapped that are uplinks now, and notes which links are down.
    fn follow(&mut self, memberships: Option<&mut Memberships>) -> Devices {
        let facts = Arc::clone(&self.facts.borrow_and_update());
        let config = with_flannel(&self.config, Path::new("/"));
        let pod_networks: Vec<_> = config.pod_networks().collect();
        let links = uplinks(&facts, &pod_networks);
        let taps = links.iter().map(|link| Uplink { index: link.index, name: link.name.clone() });
        self.kernel.set_taps(taps.collect());
        if let Some(memberships) = memberships {
            let up = links.iter().filter(|link| link.up).map(|link| link.index).collect();
            for error in memberships.keep(&up) {
                tracing::warn!(%error, "VRRP advertisements may not be heard");
            }
        }
        let now = monotonic();
        for link in links.iter().filter(|link| !link.up || !link.carrier) {
            self.heard.lock().link_lost(&link.name, now);
        }
        Devices {
            names: links.iter().map(|link| (link.index, Arc::from(link.name.as_str()))).collect(),
            trunks: links
                .iter()
                .filter(|link| link.kind == LinkKind::Vlan)
                .filter_map(|link| link.lower)
                .collect(),
        }
    }

    fn observe(&self, devices: &Devices, frames: impl Iterator<Item = Frame>) {
        for frame in frames {
            // A device that has just gone: its last frames say nothing about now.
            let Some(interface) = devices.names.get(&frame.device) else { continue };
            let passage = Passage {
                time: frame.time,
                interface: Arc::clone(interface),
                transmitted: frame.transmitted,
            };
            let seen = wire::observe(&Capture {
                bytes: &frame.bytes,
                original_length: frame.length,
                medium: Medium::Ethernet,
                vlan: frame.vlan,
            });
            let is_tagged = frame.vlan.is_some()
                || matches!(&seen, Ok(Some(observation)) if observation.link.vlan.is_some());
            if is_tagged && devices.trunks.contains(&frame.device) {
                continue;
            }
            let notices = self.heard.lock().observe(&passage, seen);
            self.record(&notices);
        }
    }

    fn record(&self, notices: &[Notice]) {
        if notices.is_empty() {
            return;
        }
        let clock = Clock::sample();
        for notice in notices {
            for address in &notice.addresses {
                if let Some(event) = occurrence(notice, *address, &clock) {
                    let vrid = notice.router.vrid.to_string();
                    self.timeline
                        .record(event.with("interface", &*notice.router.interface).with("vrid", vrid));
                }
            }
        }
    }

    fn count_losses(&self) {
        let lost = self.kernel.slots().control().frames_lost + self.kernel.status().frames_lost;
        self.metrics.raise_events_lost(EventSource::Tap, lost);
    }
}

fn milliseconds(from: Nanos, to: Nanos) -> String {
    format!("{:.3}", Duration::from_nanos(to.saturating_sub(from)).as_secs_f64() * 1e3)
}

/// What the timeline keeps; a router that gave way at once is only counted.
fn occurrence(notice: &Notice, address: IpAddr, clock: &Clock) -> Option<Occurrence> {
    let event = |kind| Occurrence::now(kind, address.to_string());
    let event = match notice.happening {
        Happening::Owned { source } => event(Kind::VipOwned).with("source", source.to_string()),
        Happening::Moved(failover) => {
            let event = event(Kind::VipMoved).at(clock.to_utc(failover.first));
            let event = event.with("from", failover.from.to_string()).with("to", failover.to.to_string());
            let event = event.with("cause", failover.cause.as_str());
            let event = event.with("detect_ms", milliseconds(failover.last, failover.first));
            match failover.announced {
                Some(announced) => event.with("announce_ms", milliseconds(failover.first, announced)),
                None => event,
            }
        }
        Happening::ConflictOpened(conflict) => {
            disputed(event(Kind::VipConflictOpened), &conflict).at(clock.to_utc(conflict.since))
        }
        Happening::ConflictClosed(conflict, until) => disputed(event(Kind::VipConflictClosed), &conflict)
            .at(clock.to_utc(until))
            .with("lasted_ms", milliseconds(conflict.since, until)),
        Happening::BriefDouble { .. } => return None,
    };
    Some(event)
}

fn disputed(event: Occurrence, conflict: &Conflict) -> Occurrence {
    event.with("owner", conflict.owner.to_string()).with("rival", conflict.rival.to_string())
}
