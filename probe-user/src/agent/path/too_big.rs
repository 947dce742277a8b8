//! Messages of routers on the uplinks: hands them to the collector's state, and tells the timeline of smaller MTUs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use crate::agent::Nodes;
use crate::collector::too_big::Told;
use crate::collector::too_big::state::{Change, Other, Word, peer_of};
use crate::event::{Clock, Kind, Occurrence, Timeline};
use crate::kernel::TooBigPacket;
use crate::source::netlink::NetworkFacts;
use crate::source::too_big::MtuExpiry;
use crate::wire::too_big::{TooBig, parse};

/// Messages taken at once.
const BATCH: usize = 256;

/// Listens to the tap.
pub(super) struct Listener {
    pub(super) packets: Receiver<TooBigPacket>,
    pub(super) told: Told,
    pub(super) facts: watch::Receiver<Arc<NetworkFacts>>,
    pub(super) registry: Nodes,
    pub(super) timeline: Arc<Timeline>,
}

impl Listener {
    pub(super) async fn run(mut self) -> Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if self.packets.recv_many(&mut batch, BATCH).await == 0 {
                bail!("the kernel thread has ended");
            }
            self.observe(&batch);
            batch.clear();
        }
    }

    fn observe(&self, packets: &[TooBigPacket]) {
        let (clock, expiry) = (Clock::sample(), MtuExpiry::read(Path::new("/")));
        let facts = Arc::clone(&self.facts.borrow());
        let registry = Arc::clone(&self.registry.borrow());
        let is_own = |address| {
            facts.addresses.iter().any(|own| own.address == address)
                || registry.local.addresses().any(|own| own == address)
        };
        let mut events = Vec::new();
        {
            let mut words = self.told.lock();
            for packet in packets {
                let seen = parse(&packet.bytes, packet.length);
                // The programs copy nothing that is none.
                let Ok(Some(told)) = seen else {
                    words.count_other(Other::Malformed);
                    continue;
                };
                let peer = match peer_of(&told, is_own, &registry) {
                    Ok(peer) => peer,
                    Err(reason) => {
                        words.count_other(reason);
                        continue;
                    }
                };
                let word = Word {
                    destination: told.destination,
                    mtu: told.mtu,
                    time: packet.time,
                    lasts: nanoseconds(expiry.of(told.destination)),
                };
                let change = words.hear(&peer, &word, &registry);
                events.extend(
                    change.map(|change| occurrence(&peer, &told, change).at(clock.to_utc(packet.time))),
                );
            }
        }
        for event in events {
            self.timeline.record(event);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn occurrence(peer: &str, told: &TooBig, change: Change) -> Occurrence {
    let event = Occurrence::now(Kind::PathMtuTold, peer)
        .with("mtu_bytes", change.mtu.to_string())
        .with("router", told.router.to_string())
        .with("destination", told.destination.to_string());
    match change.before {
        Some(before) => event.with("before_bytes", before.to_string()),
        None => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_who_told_what_of_which_way() {
        let told = TooBig {
            router: [192, 0, 2, 254].into(),
            mtu: Some(1_400),
            source: [192, 0, 2, 1].into(),
            destination: [198, 51, 100, 2].into(),
        };
        let details = |before| {
            let event = occurrence("node2", &told, Change { mtu: 1_400, before });
            assert_eq!((event.kind, event.subject.as_str()), (Kind::PathMtuTold, "node2"));
            event.details.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(details(None), "destination=198.51.100.2 mtu_bytes=1400 router=192.0.2.254");
        assert!(details(Some(1_450)).starts_with("before_bytes=1450 "));
    }
}
