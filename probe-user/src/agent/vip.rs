//! From the tap's frames to virtual addresses: keeps the uplinks tapped, tells the timeline what happened, and has a
//! failover asked after.

mod burst;
mod occurrence;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

pub(super) use self::burst::Bursts;
use self::occurrence::occurrence;
use super::kernel_side::Tapped;
use crate::collector::agent_self::{EventSource, SelfMetrics};
use crate::collector::vip::happening::{Happening, Nanos};
use crate::collector::vip::place::{Notice, Passage};
use crate::collector::vip::stopwatch::Packet;
use crate::collector::vip::{Heard, held};
use crate::event::{Clock, Timeline};
use crate::host::uplinks;
use crate::kernel::{Frame, KernelHandle, Served, Uplink};
use crate::peer::{PeerConfig, with_flannel};
use crate::source::multicast::Memberships;
use crate::source::netlink::{Link, LinkKind, NetworkFacts};
use crate::wire::{self, Capture, MacAddress, Medium};

/// How often silence is looked for: a tenth of the usual interval of one second, and the shortest one in use.
const TICK: Duration = Duration::from_millis(100);
/// How often the tap itself is looked after where there is nothing else to do.
const ROUND: Duration = Duration::from_secs(1);
/// Frames can be on their way to us for this long; after a pause of the whole process they are, for longer.
const LATENESS: Nanos = 100_000_000;
/// A tick that comes this late tells of a pause.
const PAUSE: Nanos = 250_000_000;
/// Frames taken at once.
const BATCH: usize = 256;

/// The monotonic clock, as the programs read it.
pub(super) fn monotonic() -> Nanos {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Listens to the tap.
pub(super) struct Listener {
    pub(super) tapped: Tapped,
    pub(super) facts: watch::Receiver<Arc<NetworkFacts>>,
    pub(super) kernel: Arc<KernelHandle>,
    pub(super) heard: Heard,
    pub(super) timeline: Arc<Timeline>,
    pub(super) metrics: SelfMetrics,
    pub(super) config: PeerConfig,
    /// Whether to join the groups of VRRP.
    pub(super) join: bool,
    /// Frames that were lost so far.
    pub(super) lost: u64,
    /// How often nothing was heard until somebody's removal of the tap was put right.
    pub(super) interruptions: u64,
    /// Addresses whose service the tap notes.
    pub(super) watched: BTreeSet<IpAddr>,
    pub(super) bursts: Bursts,
}

/// The uplinks by index.
#[derive(Default)]
struct Devices {
    names: BTreeMap<u32, Arc<str>>,
    /// Those that are up.
    up: BTreeSet<u32>,
    /// Devices under a VLAN device that is an uplink or a port of one: tagged frames are seen there again.
    trunks: BTreeSet<u32>,
}

impl Devices {
    fn of(facts: &NetworkFacts, pod_networks: &[IpNet]) -> Self {
        let links = uplinks(facts, pod_networks);
        let names: BTreeMap<u32, Arc<str>> =
            links.iter().map(|link| (link.index, Arc::from(link.name.as_str()))).collect();
        let is_seen_again = |link: &&Link| {
            link.kind == LinkKind::Vlan
                && (names.contains_key(&link.index)
                    || link.master.is_some_and(|master| names.contains_key(&master)))
        };
        let trunks = facts.links.iter().filter(is_seen_again).filter_map(|link| link.lower).collect();
        Self { up: links.iter().filter(|link| link.up).map(|link| link.index).collect(), trunks, names }
    }
}

impl Listener {
    pub(super) async fn run(mut self) -> Result<()> {
        let mut memberships = self.memberships();
        let mut devices = Devices::default();
        self.facts.mark_changed();
        let (mut ticks, mut rounds) = (interval(TICK), interval(ROUND));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_tick = monotonic();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Most nodes have nobody whose silence could be news.
            let is_contested = !self.heard.lock().is_quiet();
            tokio::select! {
                biased;
                changed = self.facts.changed() => {
                    changed?;
                    devices = self.follow(&devices, memberships.as_mut());
                }
                _ = ticks.tick(), if is_contested => {
                    let now = monotonic();
                    // With frames still to come, as after a pause, the silence would be ours.
                    if now - last_tick < PAUSE && self.tapped.frames.is_empty() {
                        let notices = self.heard.lock().tick(now - LATENESS);
                        self.record(&notices);
                    }
                    last_tick = now;
                    self.look_after(&devices, now);
                }
                _ = rounds.tick(), if !is_contested => self.look_after(&devices, monotonic()),
                served = self.tapped.served.recv() => match served {
                    Some(served) => self.serve(&devices, &served),
                    None => bail!("the kernel thread has ended"),
                },
                count = self.tapped.frames.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        bail!("the kernel thread has ended");
                    }
                    self.observe(&devices, batch.drain(..));
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

    /// Has the devices tapped that are uplinks now, and notes where nothing is heard at the moment.
    fn follow(&mut self, before: &Devices, memberships: Option<&mut Memberships>) -> Devices {
        let facts = Arc::clone(&self.facts.borrow_and_update());
        let pod_networks: Vec<_> = with_flannel(&self.config, Path::new("/")).pod_networks().collect();
        let devices = Devices::of(&facts, &pod_networks);
        if devices.names != before.names {
            let taps = devices.names.iter();
            self.kernel.set_taps(
                taps.map(|(index, name)| Uplink { index: *index, name: name.to_string() }).collect(),
            );
        }
        if devices.up != before.up
            && let Some(memberships) = memberships
        {
            let errors = memberships.keep(&devices.up);
            for error in &errors {
                tracing::warn!(%error, "VRRP advertisements may not be heard");
            }
            self.heard.lock().set_unjoined(!errors.is_empty());
        }
        self.heard.lock().set_held(&held(&facts));
        let stations =
            facts.neighbours.iter().filter(|neighbour| devices.names.contains_key(&neighbour.device));
        let stations = stations.filter_map(|known| Some((known.address, MacAddress(known.mac?.0))));
        self.heard.lock().set_neighbours(stations.collect());
        let hears = |name: &str| facts.link_named(name).is_some_and(|link| link.up && link.carrier);
        let is_old = |name: &str| before.names.values().any(|known| **known == *name);
        // What has just come was not heard before.
        self.heard.lock().deafened(|name| !hears(name) || !is_old(name), monotonic());
        devices
    }

    fn observe(&mut self, devices: &Devices, frames: impl Iterator<Item = Frame>) {
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
            // Number 0 is a priority without a VLAN, and belongs to the device itself.
            let vlan = match &seen {
                Ok(Some(observation)) => observation.link.vlan,
                Err(malformed) => malformed.link.vlan,
                Ok(None) => None,
            };
            let is_tagged = vlan.is_some_and(|number| number != 0);
            if is_tagged && devices.trunks.contains(&frame.device) {
                continue;
            }
            let notices = self.heard.lock().observe(&passage, seen);
            self.record(&notices);
        }
    }

    /// A virtual address served somebody.
    fn serve(&mut self, devices: &Devices, served: &Served) {
        // A device that has just gone, as with frames.
        if !devices.names.contains_key(&served.device) {
            return;
        }
        let packet = Packet {
            time: served.time,
            station: MacAddress(served.mac),
            local: served.transmitted,
            previous: served.previous,
        };
        let notice = self.heard.lock().served(served.address, packet);
        self.record(notice.as_slice());
    }

    fn record(&mut self, notices: &[Notice]) {
        if notices.is_empty() {
            return;
        }
        // Before anybody is asked: the answer may be the service that is waited for.
        self.watch();
        let clock = Clock::sample();
        let facts = Arc::clone(&self.facts.borrow());
        for notice in notices {
            for address in &notice.addresses {
                match notice.happening {
                    Happening::Suspected => self.bursts.begin(*address, &self.heard, &facts),
                    Happening::Served(_) => self.bursts.end(*address),
                    _ => {}
                }
                if let Some(event) = occurrence(notice, *address, &clock) {
                    self.timeline.record(event);
                }
            }
        }
    }

    /// Has the tap note who serves the addresses that are known now.
    fn watch(&mut self) {
        let known = self.heard.lock().addresses();
        if known != self.watched {
            self.kernel.set_watched(known.clone());
            self.watched = known;
        }
    }

    /// What is tapped, and what was lost: then an advertisement may have been among it.
    fn look_after(&mut self, devices: &Devices, now: Nanos) {
        let status = self.kernel.status();
        let control = self.kernel.slots().control();
        let served_lost = control.served_lost + status.served_lost;
        let lost = control.frames_lost + status.frames_lost;
        let others_lost =
            control.tunnel_lost + status.tunnel_lost + control.too_big_lost + status.too_big_lost;
        self.metrics.raise_events_lost(EventSource::Tap, lost + served_lost + others_lost);
        let is_tapped = |index: u32| status.uplinks.iter().any(|uplink| uplink.index == index);
        let uplinks = devices.names.iter().map(|(index, name)| (name.to_string(), is_tapped(*index)));
        let mut state = self.heard.lock();
        state.set_uplinks(uplinks.collect());
        let has_lost = std::mem::replace(&mut self.lost, lost) < lost;
        let interrupted = std::mem::replace(&mut self.interruptions, status.interruptions);
        if has_lost || interrupted < status.interruptions {
            state.deafened(|_| true, now);
        }
        drop(state);
        self.watch();
    }
}
