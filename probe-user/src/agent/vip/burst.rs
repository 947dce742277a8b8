//! Asks a virtual address a hundred times a second while it moves, so that the first answer of the new owner is seen
//! when it comes, also where nobody else asks. Who answers is the tap's business; here are only the questions: a
//! connection is begun, and reset as soon as it stands.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::agent::vip_probe::OBSERVERS;
use crate::collector::vip::Heard;
use crate::collector::vip_probe::Probes;
use crate::peer::{Registry, is_chosen};
use crate::source::netlink::NetworkFacts;

/// Between two questions to one port.
const SPACING: Duration = Duration::from_millis(10);
/// How long a failover is asked after that nobody ends; longer than version 2 takes with an interval of two seconds.
const LONGEST: Duration = Duration::from_secs(10);
/// How long one question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Addresses that are asked at once.
const MOST: usize = 8;
/// Ports of an address that are asked.
const PORTS: usize = 4;

/// The questions that are asked now.
pub(in crate::agent) struct Bursts {
    /// What is asked where no service is known.
    ports: Vec<u16>,
    registry: watch::Receiver<Arc<Registry>>,
    probes: Probes,
    /// Dropping a sender ends its questions.
    running: BTreeMap<IpAddr, oneshot::Sender<()>>,
}

impl Bursts {
    /// Nothing is asked yet; later the services of an address are that the probes know, or else these ports.
    pub(in crate::agent) fn new(
        ports: Vec<u16>,
        registry: watch::Receiver<Arc<Registry>>,
        probes: Probes,
    ) -> Self {
        Self { ports, registry, probes, running: BTreeMap::new() }
    }

    /// Begins to ask.
    pub(super) fn begin(&mut self, address: IpAddr, heard: &Heard, facts: &NetworkFacts) {
        self.running.retain(|_, end| !end.is_closed());
        let is_scoped = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        // Whoever advertises an address of elsewhere wants somebody else to be asked.
        if is_scoped
            || !facts.is_on_link(address)
            || self.running.len() >= MOST
            || self.running.contains_key(&address)
        {
            return;
        }
        let wandering = heard.lock().addresses();
        let is_ours = is_chosen(&self.registry.borrow(), &wandering, &address.to_string(), OBSERVERS);
        let targets = self.targets(address);
        if is_ours && !targets.is_empty() {
            let (end, ended) = oneshot::channel();
            tokio::spawn(ask(targets, ended, heard.clone()));
            self.running.insert(address, end);
        }
    }

    /// What answers at an address, or may.
    fn targets(&self, address: IpAddr) -> Vec<SocketAddr> {
        let mut known = self.probes.lock().services(address);
        if known.is_empty() {
            known = self.ports.iter().map(|port| SocketAddr::new(address, *port)).collect();
        }
        known.truncate(PORTS);
        known
    }

    /// Ends the questions: the new owner has answered.
    pub(super) fn end(&mut self, address: IpAddr) {
        self.running.remove(&address);
    }
}

/// Asks until somebody ends it or it has been long enough.
async fn ask(targets: Vec<SocketAddr>, mut ended: oneshot::Receiver<()>, heard: Heard) {
    let until = Instant::now() + LONGEST;
    let mut ticks = interval(SPACING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while Instant::now() < until {
        tokio::select! {
            _ = &mut ended => return,
            _ = ticks.tick() => {
                for target in &targets {
                    tokio::spawn(timeout(PATIENCE, question(*target)));
                }
                if let Some(target) = targets.first() {
                    heard.lock().asked(target.ip(), targets.len() as u64);
                }
            }
        }
    }
}

/// One connection that is reset where it comes about.
async fn question(target: SocketAddr) {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let Ok(socket) = socket else { return };
    if socket.set_zero_linger().is_ok() {
        // Refused and unreachable are what is to be expected while an address moves.
        drop(socket.connect(target).await);
    }
}
