//! Reads the certificates of this node, asks its servers which one they show, and tells the timeline and the log what
//! changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::collector::certificate::{Known, Served};
use crate::event::{Occurrence, Timeline, Timestamp};
use crate::source::certificate::{Certificate, FileFault, Reader, Scan};
use crate::source::netlink::NetworkFacts;
use crate::source::vip_probe::{Prober, Verdict};

/// How often it is looked whether files have changed.
const PERIOD: Duration = Duration::from_secs(10);
/// How often servers are asked, unless a file has changed.
const RARELY: Duration = Duration::from_mins(1);
/// Addresses of this node that are tried on a port.
const ADDRESSES: usize = 16;

/// Follows the certificates.
pub(super) struct Keeper {
    reader: Reader,
    ports: Vec<u16>,
    known: Known,
    timeline: Arc<Timeline>,
    prober: Prober,
    facts: watch::Receiver<Arc<NetworkFacts>>,
    /// What the log was told last of each file.
    told: BTreeMap<PathBuf, String>,
    /// When servers are asked next.
    due: Instant,
}

/// What the task works with.
pub(super) struct Parts {
    pub(super) reader: Reader,
    pub(super) ports: Vec<u16>,
    pub(super) known: Known,
    pub(super) timeline: Arc<Timeline>,
    pub(super) prober: Prober,
    pub(super) facts: watch::Receiver<Arc<NetworkFacts>>,
}

impl Keeper {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { reader, ports, known, timeline, prober, facts } = parts;
        Self { reader, ports, known, timeline, prober, facts, told: BTreeMap::new(), due: Instant::now() }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        loop {
            self = self.round().await?;
            sleep(self.pause()).await;
        }
    }

    /// Looks at the files, and at the servers if it is time or a file is another one. Takes itself along to the thread
    /// that may wait for a disk.
    pub(super) async fn round(mut self) -> Result<Self> {
        let looked = tokio::task::spawn_blocking(move || {
            let scan = self.reader.scan();
            (self, scan)
        });
        let (mut keeper, scan) = looked.await.context("reading certificates")?;
        keeper.log(&scan.faults);
        keeper.take(scan).await;
        Ok(keeper)
    }

    async fn take(&mut self, scan: Scan) {
        let has_changed = self.known.lock().differs(&scan);
        let events = self.known.lock().observe_files(scan, Timestamp::now());
        self.record(events);
        if has_changed || Instant::now() >= self.due {
            let served = self.ask().await;
            self.due = Instant::now() + RARELY;
            let events = self.known.lock().observe_served(served, Timestamp::now());
            self.record(events);
        }
        let events = self.known.lock().expire(Timestamp::now());
        self.record(events);
    }

    /// What the servers of this node show now.
    async fn ask(&self) -> Vec<Served> {
        let addresses = own_addresses(&self.facts.borrow());
        let asked = self.ports.iter().map(|port| ask_port(&self.prober, &addresses, *port));
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn record(&self, events: Vec<Occurrence>) {
        for event in events {
            self.timeline.record(event);
        }
    }

    /// Until the next look, or the end of a certificate if that is sooner.
    fn pause(&self) -> Duration {
        let Some(end) = self.known.lock().next_end() else { return PERIOD };
        // It is good to the end of that second.
        let end = Duration::from_secs(end.saturating_add(1));
        let left = end.saturating_sub(Duration::from_nanos(Timestamp::now().unix_nanos()));
        left.clamp(Duration::from_millis(10), PERIOD)
    }

    /// Each file is named once, and again when the cause is another one.
    fn log(&mut self, faults: &[FileFault]) {
        let now: BTreeMap<PathBuf, String> =
            faults.iter().map(|fault| (fault.path.clone(), fault.fault.to_string())).collect();
        for (path, cause) in now.iter().filter(|(path, cause)| self.told.get(*path) != Some(*cause)) {
            let path = path.display();
            tracing::warn!(collector = "certificate", %path, cause, "a certificate cannot be read");
        }
        for path in self.told.keys().filter(|path| !now.contains_key(*path)) {
            tracing::info!(collector = "certificate", path = %path.display(), "a certificate can be read again, or is gone");
        }
        self.told = now;
    }
}

/// Where a server of this node may listen: the loopback first, since most do, and nobody else can be there.
fn own_addresses(facts: &NetworkFacts) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let others = facts.addresses.iter().map(|held| held.address);
    // One of a link needs its device to be said.
    let others = others.filter(|address| !matches!(address, IpAddr::V6(six) if six.is_unicast_link_local()));
    for address in others {
        if addresses.len() < ADDRESSES && !address.is_loopback() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The certificate of whoever listens first.
async fn ask_port(prober: &Prober, addresses: &[IpAddr], port: u16) -> Option<Served> {
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match prober.shown(address).await {
            Ok(der) => {
                let certificate = Certificate::read(&der);
                let told = certificate.inspect_err(|error| {
                    tracing::debug!(collector = "certificate", %address, %error, "what is served is no certificate");
                });
                return Some(Served { address, certificate: Arc::new(told.ok()?) });
            }
            // Nobody there; an address of a family that this node does not have is the other one's error.
            Err(Verdict::Refused | Verdict::Unreachable | Verdict::LocalError) => {}
            Err(verdict) => {
                let verdict = verdict.as_str();
                tracing::debug!(collector = "certificate", %address, verdict, "no certificate is served");
                return None;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::netlink::{Address, Scope};

    fn facts(addresses: &[&str]) -> NetworkFacts {
        let held = |text: &&str| Address {
            device: 2,
            address: text.parse().unwrap(),
            prefix_len: 24,
            peer: None,
            broadcast: None,
            scope: Scope::Global,
        };
        NetworkFacts { addresses: addresses.iter().map(held).collect(), ..NetworkFacts::default() }
    }

    #[test]
    fn the_loopback_is_asked_first_and_addresses_of_a_link_are_not() {
        let addresses =
            own_addresses(&facts(&["127.0.0.1", "192.0.2.1", "fe80::1", "192.0.2.1", "2001:db8::1"]));
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"]);
    }

    #[test]
    fn not_every_address_of_a_crowd_is_tried() {
        let crowd: Vec<String> = (1..200).map(|number| format!("192.0.2.{number}")).collect();
        let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
        assert_eq!(own_addresses(&facts(&crowd)).len(), ADDRESSES);
    }

    #[tokio::test]
    async fn a_node_without_any_is_asked_and_says_so() {
        let lost = prometheus::IntCounter::new("lost", "lost").unwrap();
        let known = Known::default();
        let keeper = Keeper::new(Parts {
            reader: Reader::new("/nonexistent".into(), Vec::new()),
            ports: Vec::new(),
            known: known.clone(),
            timeline: Arc::new(Timeline::new(8, lost)),
            prober: super::super::vip_probe::prober().unwrap(),
            facts: watch::channel(Arc::default()).1,
        });
        assert!(!known.lock().has_looked());
        let keeper = keeper.round().await.unwrap();
        assert!(known.lock().has_looked() && known.lock().shown().next().is_none());
        assert_eq!(keeper.pause(), PERIOD);
    }
}
