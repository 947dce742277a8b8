//! Follows cgroups and keeps the books: who came, who went, which slots can be used again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::pod_events::PodEvents;
use super::retention;
use crate::collector::agent_self::{EventSource, SelfMetrics};
use crate::event::{Clock, Timeline, Timestamp};
use crate::http::Latch;
use crate::identity::{Census, Change};
use crate::kernel::{CgroupEvent, KernelHandle, Slots};
use crate::ledger::Ledger;
use crate::source::cgroupfs::CgroupTree;

/// How often the books are gone through.
const PASS: Duration = Duration::from_secs(1);
/// How often the tree is scanned although nothing is known to be missing; every pass where there are no notices.
const SCAN: Duration = Duration::from_mins(5);
/// How soon a scan follows another when a cgroup is not known.
const SCAN_AGAIN: Duration = Duration::from_secs(5);

/// What the task works with.
pub(super) struct Node {
    pub(super) tree: CgroupTree,
    pub(super) census: Arc<Census>,
    pub(super) ledger: Arc<Ledger<Arc<Slots>>>,
    pub(super) kernel: Arc<KernelHandle>,
    pub(super) timeline: Arc<Timeline>,
    pub(super) metrics: SelfMetrics,
    pub(super) retention: Duration,
    /// Notices that were lost so far.
    pub(super) lost: u64,
    pub(super) read: Option<Latch>,
    pub(super) pod_events: PodEvents,
}

/// Waits until then; whoever has nothing to wait for does not ask.
async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        sleep_until(time.into()).await;
    }
}

impl Node {
    pub(super) async fn run(mut self, mut events: Receiver<CgroupEvent>) -> Result<()> {
        let clock = Clock::sample();
        // What was there before the agent is no event.
        drop(self.scan());
        self.census.find_names(Instant::now());
        if let Some(latch) = self.read.take() {
            latch.set();
        }
        let (mut last_scan, mut is_stale) = (Instant::now(), false);
        let mut passes = interval(PASS);
        passes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look = self.census.names_due(Instant::now());
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.apply(&event, &clock),
                    None => bail!("the kernel thread has ended"),
                },
                () = until(look), if look.is_some() => self.find_names(),
                _ = passes.tick() => {
                    is_stale |= self.pass();
                    let has_notices = self.kernel.status().cgroup_tracking.is_none();
                    let due = if is_stale { SCAN_AGAIN } else if has_notices { SCAN } else { PASS };
                    if last_scan.elapsed() >= due {
                        last_scan = Instant::now();
                        if let Some(changes) = self.scan() {
                            self.pod_events.note(changes, Timestamp::now(), last_scan);
                            is_stale = false;
                        }
                    }
                }
            }
        }
    }

    /// One cgroup came or went.
    fn apply(&mut self, event: &CgroupEvent, clock: &Clock) {
        let now = Instant::now();
        let time = clock.to_utc(event.time);
        let changes = if event.created {
            self.census.insert(event.id, &event.path, now)
        } else {
            self.census.remove(event.id, now).into_iter().collect()
        };
        self.pod_events.note(changes, time, now);
        if self.census.names_due(now).is_some_and(|due| due <= now) {
            self.census.find_names(now);
        }
        self.tell(now);
    }

    fn find_names(&mut self) {
        let now = Instant::now();
        self.census.find_names(now);
        self.tell(now);
    }

    fn tell(&mut self, now: Instant) {
        let record = |event| {
            self.timeline.record(event);
        };
        self.pod_events.tell(now, |uid| self.census.pod_name(uid), record);
    }

    /// Reads the whole tree, and says what changed; `None` when it cannot be read.
    fn scan(&self) -> Option<Vec<Change>> {
        let started = Instant::now();
        let directories = match self.tree.scan() {
            Ok(directories) => directories,
            Err(error) => {
                tracing::warn!(%error, "cgroups could not be read");
                return None;
            }
        };
        // A cgroup's name is text wherever systemd or a kubelet made it; another one has no owner to be found.
        let known = directories.iter().filter_map(|directory| Some((directory.id, directory.path.to_str()?)));
        Some(self.census.merge_scan(known, started, Instant::now()))
    }

    /// Goes through the books. Says whether the tree is to be read: there are cgroups that nobody knows, or notices were
    /// lost.
    fn pass(&mut self) -> bool {
        let now = Instant::now();
        self.find_names();
        let is_unknown =
            self.census.with_registry(|registry| self.ledger.reconcile(registry, self.kernel.as_ref(), now));
        retention::forget(&self.census, &self.ledger, self.retention, now);
        let lost = self.kernel.slots().control().records_lost + self.kernel.status().records_lost;
        self.metrics.raise_events_lost(EventSource::Ring, lost);
        let is_blind = std::mem::replace(&mut self.lost, lost) < lost;
        is_unknown || is_blind
    }
}
