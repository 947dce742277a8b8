//! Probes of virtual addresses: which ones this node makes, when, and what the timeline hears of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use super::vip::monotonic;
use crate::collector::vip::Heard;
use crate::collector::vip_probe::plan::{Plan, decide_pause, decide_targets};
use crate::collector::vip_probe::state::{Change, ChangeKind};
use crate::collector::vip_probe::{Holding, Probes};
use crate::config::{ProbeKind, Vip};
use crate::event::{Clock, Kind, Occurrence, Timeline, milliseconds};
use crate::peer::{Registry, is_chosen, phase_of};
use crate::source::vip_probe::Prober;

/// The time of one probe for everything.
const LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked whether other addresses are to be probed, or by others.
const ROUND: Duration = Duration::from_secs(1);
/// Nodes that probe an address beside its holder: enough to tell a broken path from a broken service, and few enough
/// for the service of a cluster of hundreds.
pub(super) const OBSERVERS: usize = 8;

/// Has the virtual addresses probed.
pub(super) struct Observer {
    pub(super) heard: Heard,
    pub(super) holding: Holding,
    pub(super) registry: watch::Receiver<Arc<Registry>>,
    pub(super) probes: Probes,
    pub(super) timeline: Arc<Timeline>,
    pub(super) config: Vip,
    /// Makes the probes.
    pub(super) prober: Prober,
}

/// How a probe of any service is made.
pub(super) fn prober() -> Result<Prober> {
    Prober::new(LIMIT).context("the TLS library refuses its own defaults")
}

impl Observer {
    pub(super) async fn run(mut self) -> Result<()> {
        // Who the nodes are is known in a moment, or not for long.
        let _late = timeout(ROUND, self.registry.changed()).await;
        let mut watched: BTreeMap<SocketAddr, AbortHandle> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = rounds.tick() => {
                    let plan = self.follow();
                    watched.retain(|place, task| {
                        let is_kept = plan.contains_key(place);
                        if !is_kept {
                            task.abort();
                        }
                        is_kept
                    });
                    for (place, kind) in plan {
                        watched.entry(place).or_insert_with(|| tasks.spawn(self.watch(place, kind).run()));
                    }
                }
                Some(ended) = tasks.join_next() => match ended {
                    Err(error) if error.is_cancelled() => {}
                    // They do not end by themselves.
                    ended => ended.context("a probe has failed in itself")?,
                },
            }
        }
    }

    /// Tells the collector what is probed, and answers with what this node probes of it.
    fn follow(&self) -> BTreeMap<SocketAddr, ProbeKind> {
        // Whoever advertises an address of elsewhere wants somebody else to be asked.
        let mut found = self.heard.lock().addresses();
        found.retain(|address| self.holding.is_on_link(*address));
        let is_known = |place: &SocketAddr| self.probes.lock().is_known(place);
        let plan = decide_targets(&self.config.addresses, &found, &self.config.ports, is_known);
        // Whatever moves names no node.
        let wandering = plan.targets.keys().map(SocketAddr::ip).chain(found).collect();
        let registry = Arc::clone(&self.registry.borrow());
        let is_ours = |place: &SocketAddr| {
            is_chosen(&registry, &wandering, &place.ip().to_string(), OBSERVERS)
                || self.holding.has(place.ip()) == Some(true)
        };
        self.note(&plan, is_ours)
    }

    fn note(&self, plan: &Plan, is_ours: impl Fn(&SocketAddr) -> bool) -> BTreeMap<SocketAddr, ProbeKind> {
        let ours: BTreeMap<SocketAddr, ProbeKind> = plan
            .targets
            .iter()
            .filter(|(place, _)| is_ours(place))
            .map(|(place, target)| (*place, target.kind))
            .collect();
        self.probes.lock().follow(plan, |place| ours.contains_key(place));
        ours
    }

    fn watch(&self, place: SocketAddr, kind: ProbeKind) -> Watch {
        Watch {
            place,
            kind,
            interval: self.config.probe_interval,
            offset: phase_of(&self.registry.borrow(), &place.to_string(), self.config.probe_interval),
            holding: self.holding.clone(),
            prober: self.prober.clone(),
            probes: self.probes.clone(),
            timeline: Arc::clone(&self.timeline),
        }
    }
}

/// One service, probed again and again.
struct Watch {
    place: SocketAddr,
    kind: ProbeKind,
    interval: Duration,
    /// When in the interval: nodes that start together must not probe together.
    offset: Duration,
    holding: Holding,
    prober: Prober,
    probes: Probes,
    timeline: Arc<Timeline>,
}

impl Watch {
    async fn run(self) {
        let mut ticks = interval_at(Instant::now() + self.offset, self.interval);
        // A probe that took longer than an interval is followed by the next one at its usual time.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let failures = self.probes.lock().failures(&self.place);
            for _ in 0..decide_pause(failures, self.interval) {
                ticks.tick().await;
            }
            self.probe().await;
        }
    }

    async fn probe(&self) {
        let has_address = || self.holding.has(self.place.ip());
        let (begun, before) = (monotonic(), has_address());
        let outcome = self.prober.probe(self.place, self.kind).await;
        // An address that has come or gone meanwhile makes this nobody's probe of its own.
        let is_held = before.zip(has_address()).map(|(before, after)| before && after);
        let changes = self.probes.lock().record(&self.place, &outcome, is_held, begun);
        if changes.is_empty() {
            return;
        }
        let clock = Clock::sample();
        for change in &changes {
            self.timeline.record(occurrence(self.place, change, &clock));
        }
    }
}

fn occurrence(place: SocketAddr, change: &Change, clock: &Clock) -> Occurrence {
    let kind = match change.kind {
        ChangeKind::Unreachable => Kind::VipUnreachable,
        ChangeKind::Reachable => Kind::VipReachable,
        ChangeKind::Unserved => Kind::VipUnserved,
        ChangeKind::Served => Kind::VipServed,
    };
    let event = Occurrence::now(kind, place.ip().to_string())
        .at(clock.to_utc(change.at))
        .with("port", place.port().to_string())
        .with("result", change.verdict.as_str());
    match change.lasted {
        Some(lasted) => event.with("lasted_ms", milliseconds(Duration::from_nanos(lasted))),
        None => event,
    }
}
