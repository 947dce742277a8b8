//! Sends this node's probes and takes their answers.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{PACKET_MAX, next_session, only};
use crate::agent::vip::monotonic;
use crate::collector::path::plan::{PathKey, Plan};
use crate::collector::path::reply;
use crate::collector::path::state::{Change, Heard, Ignored};
use crate::collector::path::{Discard, Paths};
use crate::config;
use crate::event::{Clock, Kind, Occurrence, Timeline};
use crate::peer::{Registry, phase_of};
use crate::source::path::{ClockSteps, PathSocket, Received, realtime};
use crate::wire::stamp::{Authenticator, ErrorEstimate, Request, Timestamp};

/// Datagrams taken at once.
const BATCH: usize = 512;
/// Probes that wait for the kernel to say when they left.
const LEAVING_MAX: usize = 4_096;
/// A probe that is sent so much too late tells of a pause of the agent.
const PAUSE: Duration = Duration::from_millis(250);
/// How often something is looked after where nothing else happens.
const ROUND: Duration = Duration::from_secs(1);

/// A path that is probed.
struct Target {
    key: PathKey,
    address: SocketAddr,
    due: Instant,
}

/// What is probed, and what is not known to have left yet.
#[derive(Default)]
pub(super) struct Sessions {
    /// By session identifier.
    targets: HashMap<u16, Target>,
    last_ssid: u16,
    /// By the kernel's number: session and number of the probe.
    leaving: VecDeque<(u32, u16, u32)>,
}

/// Sends probes.
pub(super) struct Sender {
    pub(super) socket: PathSocket,
    pub(super) steps: ClockSteps,
    pub(super) paths: Paths,
    pub(super) authenticator: Authenticator,
    pub(super) config: config::Path,
    pub(super) registry: watch::Receiver<Arc<Registry>>,
    /// Decided here for all, since with many nodes it takes a while.
    pub(super) plan: watch::Sender<Arc<Plan>>,
    pub(super) timeline: Arc<Timeline>,
    pub(super) sessions: Sessions,
}

impl Sender {
    pub(super) async fn run(mut self) -> Result<()> {
        self.follow();
        loop {
            let due = self.sessions.targets.values().map(|target| target.due).min();
            let wake = due.unwrap_or_else(|| Instant::now() + ROUND).min(Instant::now() + ROUND);
            tokio::select! {
                ready = self.socket.wait() => ready.context("the socket of the probes is gone")?,
                () = sleep_until(wake) => {}
                changed = self.registry.changed() => {
                    changed.context("the registry of nodes is gone")?;
                    self.follow();
                }
            }
            self.take();
            // What had come meanwhile has been taken: the rest may be lost by our own pause.
            if wake.elapsed() > PAUSE {
                self.paths.lock().excuse(Discard::Pause);
            }
            self.send_due();
            let changes = self.paths.lock().settle(monotonic());
            self.tell(&changes);
        }
    }

    /// Which paths there are now. One that stays keeps its session, unless its end has another address.
    fn follow(&mut self) {
        let registry = Arc::clone(&self.registry.borrow_and_update());
        let plan = Arc::new(Plan::of(Arc::clone(&registry)));
        self.plan.send_replace(Arc::clone(&plan));
        let mut paths = plan.paths.clone();
        self.paths.lock().follow(&paths, !registry.nodes.is_empty());
        self.sessions.targets.retain(|_, target| {
            let is_kept = paths.get(&target.key) == Some(&target.address.ip());
            if is_kept {
                paths.remove(&target.key);
            }
            is_kept
        });
        for (key, address) in paths {
            let name = format!("path {} {}", key.layer.as_str(), key.peer);
            let due = Instant::now() + phase_of(&registry, &name, self.config.interval);
            let target = Target { key, address: SocketAddr::new(address, self.config.port), due };
            let Sessions { targets, last_ssid, .. } = &mut self.sessions;
            *last_ssid = next_session(*last_ssid, |ssid| targets.contains_key(&ssid));
            targets.insert(*last_ssid, target);
        }
    }

    /// Takes what left and what came. What is too much for now is taken next time.
    fn take(&mut self) {
        self.take_left();
        if self.steps.has_stepped() {
            self.paths.lock().excuse(Discard::ClockStep);
        }
        let mut buffer = [0; PACKET_MAX];
        for _ in 0..BATCH {
            match self.socket.receive(&mut buffer) {
                Ok(Some(received)) => self.hear(buffer.get(..received.length).unwrap_or_default(), &received),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a datagram could not be taken");
                    return;
                }
            }
        }
    }

    fn take_left(&mut self) {
        for _ in 0..BATCH {
            let Ok(Some(transmitted)) = self.socket.transmitted() else { return };
            let Some(place) = self.sessions.leaving.iter().position(|(id, ..)| *id == transmitted.id) else {
                continue;
            };
            let Some((_, ssid, sequence)) = self.sessions.leaving.remove(place) else { continue };
            if let Some(target) = self.sessions.targets.get(&ssid) {
                self.paths.lock().transmitted(&target.key, sequence, transmitted.at);
            }
        }
    }

    fn hear(&self, packet: &[u8], received: &Received) {
        match self.read(packet, received) {
            Ok((key, heard)) => {
                let change = self.paths.lock().hear(key, &heard, monotonic());
                self.tell(change.as_slice());
            }
            Err(ignored) => self.paths.lock().ignore(ignored),
        }
    }

    fn read(&self, packet: &[u8], received: &Received) -> Result<(&PathKey, Heard), Ignored> {
        let arrived = received.at.unwrap_or_else(realtime);
        let (ssid, heard) = reply::read(packet, &self.authenticator, arrived)?;
        let targets = &self.sessions.targets;
        let target = if ssid == 0 {
            only(targets.values().filter(|target| target.address == received.from))
        } else {
            targets.get(&ssid).filter(|target| target.address == received.from)
        };
        let target = target.ok_or(Ignored::Unexpected)?;
        Ok((&target.key, heard))
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        for (ssid, target) in &mut self.sessions.targets {
            if target.due > now {
                continue;
            }
            // What a pause has left out is not made up for.
            let late = now.duration_since(target.due).as_nanos() / self.config.interval.as_nanos().max(1);
            target.due += self.config.interval * u32::try_from(late + 1).unwrap_or(u32::MAX);
            // In this order: by the wall clock nothing takes longer than by the other one.
            let (sent, left) = (monotonic(), realtime());
            let Some(sequence) = self.paths.lock().send(&target.key, sent, left) else { continue };
            let timestamp = Timestamp::from_unix_nanos(left);
            let request = Request { sequence, timestamp, error: ErrorEstimate::UNSYNCHRONIZED, ssid: *ssid };
            let mut packet = request.encode(self.authenticator.mode());
            self.authenticator.seal(&mut packet);
            match self.socket.send(&packet, target.address, None) {
                Ok(id) => self.sessions.leaving.push_back((id, *ssid, sequence)),
                // It counts as lost, which it is.
                Err(error) => {
                    tracing::debug!(%error, to = %target.address, "a probe could not be sent");
                    self.sessions.leaving.clear();
                }
            }
        }
        while self.sessions.leaving.len() > LEAVING_MAX {
            self.sessions.leaving.pop_front();
        }
    }

    fn tell(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let clock = Clock::sample();
        for change in changes {
            self.timeline.record(occurrence(change, &clock));
        }
    }
}

fn occurrence(change: &Change, clock: &Clock) -> Occurrence {
    let kind = if change.lost_at.is_some() { Kind::PathLost } else { Kind::PathBack };
    let event = Occurrence::now(kind, &*change.path.peer).with("layer", change.path.layer.as_str());
    let event = match change.lost_at {
        Some(at) => event.at(clock.to_utc(at)),
        None => event,
    };
    match change.lasted {
        Some(lasted) => event.with("lasted_ms", Duration::from_nanos(lasted).as_millis().to_string()),
        None => event,
    }
}
