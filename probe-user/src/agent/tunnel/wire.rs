//! Packets of tunnels on the uplinks: hands them to the collector's state, and tells the timeline which addresses have
//! ceased to answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval};

use crate::agent::Nodes;
use crate::agent::vip::monotonic;
use crate::collector::tunnel::Known;
use crate::collector::tunnel::state::Sight;
use crate::collector::tunnel::wire::{Change, Heard, OneWay, Passage};
use crate::collector::vip::happening::Nanos;
use crate::event::{Clock, Kind, Occurrence, Timeline, milliseconds};
use crate::kernel::TunnelPacket;
use crate::wire::tunnel;

/// How often silence is looked for, and whose addresses they are.
const TICK: Duration = Duration::from_millis(500);
/// Packets can be on their way to us for this long; after a pause of the whole process they are, for longer.
const LATENESS: Nanos = 100_000_000;
/// A tick that comes this late tells of a pause.
const PAUSE: Nanos = 750_000_000;
/// Packets taken at once.
const BATCH: usize = 256;

/// Listens to the tap.
pub(super) struct Listener {
    pub(super) packets: Receiver<TunnelPacket>,
    pub(super) heard: Heard,
    pub(super) known: Known,
    pub(super) registry: Nodes,
    pub(super) timeline: Arc<Timeline>,
}

impl Listener {
    pub(super) async fn run(mut self) -> Result<()> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_tick = monotonic();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Most nodes have no tunnel.
            let is_quiet = self.heard.lock().is_quiet();
            tokio::select! {
                count = self.packets.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        bail!("the kernel thread has ended");
                    }
                    self.observe(&batch);
                    batch.clear();
                }
                _ = ticks.tick(), if !is_quiet => {
                    let now = monotonic();
                    // With packets still to come, as after a pause, the silence would be ours.
                    if now - last_tick < PAUSE && self.packets.is_empty() {
                        self.tick(now);
                    }
                    last_tick = now;
                }
            }
        }
    }

    fn observe(&self, packets: &[TunnelPacket]) {
        let clock = Clock::sample();
        let mut changes = Vec::new();
        {
            let mut state = self.heard.lock();
            for packet in packets {
                let Some(seen) = tunnel::observe(&packet.bytes) else {
                    state.count_foreign();
                    continue;
                };
                let (time, transmitted) = (packet.time, packet.transmitted);
                let passage = Passage { time, clock: clock.to_utc(time), transmitted, seen };
                changes.extend(state.observe(&passage).map(|change| (change, time)));
            }
        }
        for (change, time) in changes {
            self.timeline.record(occurrence(&change, time, &clock));
        }
    }

    /// Names first: a change tells whose address it is.
    fn tick(&self, now: Nanos) {
        let registry = Arc::clone(&self.registry.borrow());
        let node = |address: IpAddr| {
            let node = registry.nodes.iter().find(|node| node.underlay.contains(&address));
            node.and_then(crate::peer::Node::label)
        };
        let (changes, judged) = {
            let known = self.known.lock();
            let reading = match known.sight() {
                Sight::Read(_, reading) => Some(&**reading),
                _ => None,
            };
            let mut state = self.heard.lock();
            state.name(reading, node, now);
            (state.tick(now - LATENESS), state.judge(now))
        };
        let clock = Clock::sample();
        for change in changes {
            self.timeline.record(occurrence(&change, now, &clock));
        }
        for change in judged {
            self.timeline.record(of_data(&change, now, &clock));
        }
    }
}

/// The same events as by tailscaled's word, with what says it.
fn of_data(change: &OneWay, now: Nanos, clock: &Clock) -> Occurrence {
    let kind = if change.is_one_way { Kind::TunnelPeerSilent } else { Kind::TunnelPeerHeard };
    let address = change.endpoint.address.to_string();
    let subject = change.peer.as_deref().unwrap_or(&address);
    let event = Occurrence::now(kind, subject).at(clock.to_utc(now)).with("source", "handshakes");
    let event = event.with("endpoint", address);
    match change.endpoint.session {
        Some(session) => event.with("session", session.to_string()),
        None => event,
    }
}

fn occurrence(change: &Change, now: Nanos, clock: &Clock) -> Occurrence {
    let address = change.endpoint.address.to_string();
    let subject = change.peer.as_deref().unwrap_or(&address);
    let event = match change.silent_since {
        Some(since) => Occurrence::now(Kind::TunnelEndpointSilent, subject).at(clock.to_utc(since)),
        None => Occurrence::now(Kind::TunnelEndpointHeard, subject).at(clock.to_utc(now)),
    };
    let mut event = event.with("endpoint", address);
    if let Some(session) = change.endpoint.session {
        event = event.with("session", session.to_string());
    }
    for (key, nanos) in [("rtt_ms", change.rtt), ("silent_ms", change.lasted)] {
        if let Some(nanos) = nanos {
            event = event.with(key, milliseconds(Duration::from_nanos(nanos)));
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::tunnel::wire::Endpoint;

    fn change(silent_since: Option<Nanos>, lasted: Option<Nanos>, session: Option<u32>) -> Change {
        let endpoint = Endpoint { address: "192.0.2.2:41641".parse().unwrap(), session };
        Change { peer: None, endpoint, silent_since, lasted, rtt: Some(1_234_567) }
    }

    fn details(event: &Occurrence) -> Vec<(&str, &str)> {
        event.details.iter().map(|(key, value)| (&**key, value.as_str())).collect()
    }

    #[test]
    fn silence_is_of_the_first_ping_that_was_not_answered() {
        let clock = Clock::sample();
        let event = occurrence(&change(Some(5), None, None), 4_000_000_000, &clock);
        assert_eq!((event.kind, event.time), (Kind::TunnelEndpointSilent, clock.to_utc(5)));
        assert_eq!(event.subject, "192.0.2.2:41641");
        assert_eq!(details(&event), [("endpoint", "192.0.2.2:41641"), ("rtt_ms", "1.235")]);
    }

    #[test]
    fn an_address_that_answers_again_tells_for_how_long_it_had_not() {
        let clock = Clock::sample();
        let named = Change { peer: Some("node2".into()), ..change(None, Some(2_500_000_000), Some(3)) };
        let event = occurrence(&named, 9, &clock);
        assert_eq!((event.kind, event.time), (Kind::TunnelEndpointHeard, clock.to_utc(9)));
        assert_eq!(event.subject, "node2");
        let expected = [
            ("endpoint", "192.0.2.2:41641"),
            ("rtt_ms", "1.235"),
            ("session", "3"),
            ("silent_ms", "2500.000"),
        ];
        assert_eq!(details(&event), expected);
    }
}
