//! Sends packets of the sizes that are looked for, by a socket of its own: they are no round trips.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{PACKET_MAX, next_session, only};
use crate::agent::vip::monotonic;
use crate::collector::path::Paths;
use crate::collector::path::mtu::{Due, HoleChange, LARGEST, Promise, SMALLEST};
use crate::collector::path::plan::{PathKey, Plan};
use crate::collector::path::reply;
use crate::event::{Kind, Occurrence, Timeline};
use crate::peer::phase_of;
use crate::source::path::{PathSocket, Received, realtime};
use crate::wire::stamp::{Authenticator, ErrorEstimate, Request, Timestamp};

/// How often it is looked whether something is to be sent.
const ROUND: Duration = Duration::from_millis(250);
/// Over this time the first checks of all paths are spread.
const SPREAD: Duration = Duration::from_secs(5);
/// Bytes of the headers of IPv4 and IPv6 without options, with that of UDP.
const HEADERS: [u32; 2] = [28, 48];

/// A path whose sizes are looked for.
struct Target {
    address: SocketAddr,
    ssid: u16,
    /// The number of the next packet.
    next: u32,
}

/// What is asked at the moment.
#[derive(Default)]
pub(super) struct Sessions {
    targets: BTreeMap<PathKey, Target>,
    last_ssid: u16,
}

impl Sessions {
    /// Which paths there are now, with the addresses at their ends.
    fn follow(&mut self, addresses: &BTreeMap<PathKey, IpAddr>, port: u16) {
        self.targets.retain(|path, target| addresses.get(path) == Some(&target.address.ip()));
        for (path, address) in addresses {
            if self.targets.contains_key(path) {
                continue;
            }
            let is_used = |ssid| self.targets.values().any(|target| target.ssid == ssid);
            self.last_ssid = next_session(self.last_ssid, is_used);
            let address = SocketAddr::new(*address, port);
            self.targets.insert(path.clone(), Target { address, ssid: self.last_ssid, next: 0 });
        }
    }
}

/// Looks for the sizes that pass.
pub(super) struct Sizes {
    pub(super) socket: PathSocket,
    pub(super) paths: Paths,
    pub(super) authenticator: Authenticator,
    pub(super) port: u16,
    pub(super) plan: watch::Receiver<Arc<Plan>>,
    pub(super) timeline: Arc<Timeline>,
    pub(super) sessions: Sessions,
}

impl Sizes {
    pub(super) async fn run(mut self) -> Result<()> {
        let mut round = Instant::now();
        loop {
            tokio::select! {
                ready = self.socket.wait() => ready.context("the socket of padded probes is gone")?,
                () = sleep_until(round) => {
                    round = Instant::now() + ROUND;
                    self.follow();
                    self.send_due();
                }
            }
            self.take();
        }
    }

    /// Which paths there are now, and what the kernel promises of them.
    fn follow(&mut self) {
        let plan = Arc::clone(&self.plan.borrow());
        let reachable = self.paths.lock().reachable();
        let promise = |path: &PathKey, mtu: Option<u32>| {
            let size = mtu?.min(LARGEST);
            (size > SMALLEST).then_some(Promise { size, is_reachable: reachable.contains(path) })
        };
        let rides = self.paths.rides();
        let promises: BTreeMap<PathKey, Promise> = rides
            .iter()
            .filter(|(path, _)| plan.paths.contains_key(*path))
            .filter_map(|(path, ride)| Some((path.clone(), promise(path, ride.mtu)?)))
            .collect();
        drop(rides);
        let spread = |path: &PathKey| {
            let phase =
                phase_of(&plan.registry, &format!("size {} {}", path.layer.as_str(), path.peer), SPREAD);
            u64::try_from(phase.as_nanos()).unwrap_or_default()
        };
        self.paths.mtus().follow(&promises, monotonic(), spread);
        self.sessions.follow(&plan.paths, self.port);
    }

    fn send_due(&mut self) {
        let (due, changes) = self.paths.mtus().due(monotonic());
        self.tell(&changes);
        for Due { path, size } in due {
            let Some(target) = self.sessions.targets.get_mut(&path) else { continue };
            let sequence = target.next;
            target.next = sequence.wrapping_add(1);
            let request = Request {
                sequence,
                timestamp: Timestamp::from_unix_nanos(realtime()),
                error: ErrorEstimate::UNSYNCHRONIZED,
                ssid: target.ssid,
            };
            let headers = HEADERS[usize::from(target.address.is_ipv6())];
            let length = usize::try_from(size.saturating_sub(headers)).unwrap_or_default();
            let mut packet = request.encode_padded(self.authenticator.mode(), length);
            self.authenticator.seal(&mut packet);
            // One that this kernel does not send is lost like any other: it waits for its answer in vain.
            if let Err(error) = self.socket.send(&packet, target.address, None) {
                tracing::debug!(%error, to = %target.address, size, "a padded probe could not be sent");
            }
            self.paths.mtus().sent(&path, sequence, monotonic());
        }
    }

    /// Takes what came, and what left, of which nothing is to be known.
    fn take(&self) {
        while let Ok(Some(_)) = self.socket.transmitted() {}
        let mut buffer = [0; PACKET_MAX];
        while let Ok(Some(received)) = self.socket.receive(&mut buffer) {
            let packet = buffer.get(..received.length).unwrap_or_default();
            let Some((path, sequence)) = self.read(packet, &received) else { continue };
            let change = self.paths.mtus().hear(path, sequence, monotonic());
            self.tell(&change.map(|change| (path.clone(), change)).into_iter().collect::<Vec<_>>());
        }
    }

    fn read(&self, packet: &[u8], received: &Received) -> Option<(&PathKey, u32)> {
        let (ssid, heard) = reply::read(packet, &self.authenticator, realtime()).ok()?;
        let is_its = |target: &Target| [0, target.ssid].contains(&ssid) && target.address == received.from;
        let (path, _) = only(self.sessions.targets.iter().filter(|(_, target)| is_its(target)))?;
        Some((path, heard.sequence))
    }

    fn tell(&self, changes: &[(PathKey, HoleChange)]) {
        for (path, change) in changes {
            let kind = if change.is_open { Kind::PathBlackHoleOpened } else { Kind::PathBlackHoleClosed };
            let event = Occurrence::now(kind, &*path.peer)
                .with("layer", path.layer.as_str())
                .with("promised_bytes", change.promised.to_string())
                .with("passes_bytes", change.passes.to_string());
            self.timeline.record(event);
        }
    }
}
