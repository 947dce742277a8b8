//! The end of a failover: the first packet that the new owner serves, after the last one of the old. Pure: packets and
//! failovers with their times in, services out.

use std::collections::VecDeque;

use super::happening::{Announcer, Failover, Nanos, Service};
use crate::wire::MacAddress;

/// Packets that are remembered: a failover is told after its announcement, and its service may come before that.
const REMEMBERED: usize = 32;
/// How long a failover waits for its service.
const PATIENCE: Nanos = 30_000_000_000;

/// A packet from a virtual address, by another station than before or after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it passed the tap.
    pub time: Nanos,
    /// Who sent it.
    pub station: MacAddress,
    /// Sent by this node.
    pub local: bool,
    /// The packet from the address before it.
    pub previous: Option<Nanos>,
}

/// The new owner, as its packets show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The stations that its packets come from.
    pub stations: Vec<MacAddress>,
    /// It is this node.
    pub local: bool,
}

impl Owner {
    fn sends(&self, packet: &Packet) -> bool {
        // This node's own packets are known as such, whatever device they leave by.
        if packet.local { self.local } else { self.stations.contains(&packet.station) }
    }
}

#[derive(Clone, Debug)]
struct Running {
    to: Announcer,
    owner: Owner,
    /// The old owner's last advertisement.
    last: Option<Nanos>,
    first: Nanos,
    announced: Option<Nanos>,
}

/// The stopwatch of one address.
#[derive(Clone, Debug, Default)]
pub struct Stopwatch {
    packets: VecDeque<Packet>,
    running: Option<Running>,
}

impl Stopwatch {
    /// A packet from the address.
    pub fn served(&mut self, packet: Packet) -> Option<Service> {
        if self.packets.len() >= REMEMBERED {
            self.packets.pop_front();
        }
        self.packets.push_back(packet);
        self.stop()
    }

    /// The address has moved; its service may have come already.
    pub fn moved(&mut self, failover: &Failover, owner: Owner) -> Option<Service> {
        self.running = Some(Running {
            to: failover.to,
            owner,
            last: failover.last,
            first: failover.first,
            announced: failover.announced,
        });
        self.stop()
    }

    /// Time passes: a failover that nobody here was served after has no end that could be told.
    pub fn tick(&mut self, now: Nanos) {
        if self.running.as_ref().is_some_and(|running| now.saturating_sub(running.first) > PATIENCE) {
            self.running = None;
        }
    }

    fn stop(&mut self) -> Option<Service> {
        let running = self.running.as_ref()?;
        let is_service = |packet: &&Packet| packet.time >= running.first && running.owner.sends(packet);
        let packet = *self.packets.iter().find(is_service)?;
        let service = Service {
            to: running.to,
            first: packet.time,
            announced: running.announced,
            last: packet.previous.max(running.last),
        };
        self.running = None;
        Some(service)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::collector::vip::happening::Cause;

    fn mac(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, last])
    }

    fn router(last: u8) -> Announcer {
        Announcer::Router(IpAddr::from([192, 168, 56, last]))
    }

    fn packet(time: Nanos, station: u8, previous: Option<Nanos>) -> Packet {
        Packet { time, station: mac(station), local: false, previous }
    }

    /// The old owner advertised last at 100, the new one first at 200, and announced the address at 201.
    fn failover() -> Failover {
        let (last, announced) = (Some(100), Some(201));
        Failover { from: router(11), to: router(12), cause: Cause::Timeout, last, first: 200, announced }
    }

    fn owner() -> Owner {
        Owner { stations: vec![mac(12)], local: false }
    }

    fn service(first: Nanos, last: Nanos) -> Service {
        Service { to: router(12), first, announced: Some(201), last: Some(last) }
    }

    #[test]
    fn the_first_packet_of_the_new_owner_ends_it() {
        let mut watch = Stopwatch::default();
        assert_eq!(watch.served(packet(90, 11, Some(40))), None);
        assert_eq!(watch.moved(&failover(), owner()), None);
        assert_eq!(watch.served(packet(230, 12, Some(95))), Some(service(230, 100)));
        assert_eq!(watch.served(packet(290, 12, Some(230))), None);
    }

    #[test]
    fn an_old_owner_that_serves_to_the_last_moment_shortens_the_outage() {
        let mut watch = Stopwatch::default();
        watch.moved(&failover(), owner());
        assert_eq!(watch.served(packet(203, 12, Some(202))), Some(service(203, 202)));
    }

    #[test]
    fn a_packet_that_came_before_the_failover_was_told_counts() {
        let mut watch = Stopwatch::default();
        watch.served(packet(202, 12, Some(99)));
        assert_eq!(watch.moved(&failover(), owner()), Some(service(202, 100)));
    }

    #[test]
    fn packets_of_others_and_of_before_do_not_count() {
        let mut watch = Stopwatch::default();
        watch.served(packet(150, 12, None));
        watch.moved(&failover(), owner());
        assert_eq!(watch.served(packet(230, 11, Some(150))), None);
        let own = Packet { local: true, ..packet(240, 12, Some(230)) };
        assert_eq!(watch.served(own), None);
        assert!(watch.running.is_some());
    }

    #[test]
    fn it_does_not_wait_for_ever() {
        let mut watch = Stopwatch::default();
        watch.moved(&failover(), owner());
        watch.tick(PATIENCE + 201);
        assert!(watch.running.is_none());
        assert_eq!(watch.served(packet(PATIENCE + 300, 12, None)), None);
    }
}
