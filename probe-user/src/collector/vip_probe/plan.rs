//! What is probed, and how often. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::{ProbeKind, Service};

/// Services that are probed at once: one probe a second each, with a TLS handshake, is what an agent can spare.
pub const TARGETS_MAX: usize = 64;
/// The longest pause between two probes of a port that has never accepted a connection.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A service to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it must do.
    pub kind: ProbeKind,
    /// Named by the configuration: it is there, and whether it answers is news from the first probe on. Of a port that
    /// is only tried nothing is said until it has accepted a connection.
    pub is_listed: bool,
}

/// What is to be probed by some node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// By virtual address and port.
    pub targets: BTreeMap<SocketAddr, Target>,
    /// How many more there would be.
    pub ignored: usize,
}

/// The listed services, then the ports on the addresses that were found on the wire, until there are enough. Those that
/// are known to have a service come first: a flood of other addresses must not push them out.
#[must_use]
pub fn decide_targets(
    listed: &[Service],
    found: &BTreeSet<IpAddr>,
    ports: &[u16],
    is_known: impl Fn(&SocketAddr) -> bool,
) -> Plan {
    let listed = listed.iter().map(|service| {
        let place = SocketAddr::new(service.address, service.port);
        (place, Target { kind: service.kind(), is_listed: true })
    });
    // All addresses with the first port before any with the second: what is left out is the rarest service.
    let tried = ports.iter().flat_map(|port| {
        let target = Target { kind: ProbeKind::of_port(*port), is_listed: false };
        let reached = found.iter().filter(|address| is_reached(**address));
        reached.map(move |address| (SocketAddr::new(*address, *port), target))
    });
    let (known, unknown): (Vec<_>, Vec<_>) = tried.partition(|(place, _)| is_known(place));
    let mut plan = Plan::default();
    let mut ignored = BTreeSet::new();
    for (place, target) in listed.chain(known).chain(unknown) {
        if plan.targets.len() < TARGETS_MAX {
            plan.targets.entry(place).or_insert(target);
        } else if !plan.targets.contains_key(&place) {
            ignored.insert(place);
        }
    }
    plan.ignored = ignored.len();
    plan
}

/// A link-local address, which every IPv6 virtual router has as its first one, is none for clients.
const fn is_reached(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

/// How many intervals lie between a probe and the next one, after so many in a row of a port that never accepted a
/// connection.
#[must_use]
pub fn decide_pause(failures: u32, interval: Duration) -> u32 {
    let longest = PAUSE_MAX.as_millis() / interval.as_millis().max(1);
    let longest = u32::try_from(longest).unwrap_or(u32::MAX).max(1);
    2_u32.checked_pow(failures).map_or(longest, |pause| pause.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn listed(text: &str) -> Service {
        crate::config::service(text).unwrap()
    }

    #[test]
    fn what_is_listed_is_not_tried_as_something_else() {
        let found = BTreeSet::from([ip("192.0.2.1"), ip("192.0.2.2"), ip("fe80::1")]);
        let plan = decide_targets(
            &[listed("tls://192.0.2.1:6443"), listed("tcp://192.0.2.9:80")],
            &found,
            &[6443],
            |_| false,
        );
        let expected = [
            ("192.0.2.1:6443", Target { kind: ProbeKind::Tls, is_listed: true }),
            ("192.0.2.2:6443", Target { kind: ProbeKind::Https, is_listed: false }),
            ("192.0.2.9:80", Target { kind: ProbeKind::Tcp, is_listed: true }),
        ];
        assert_eq!(plan.targets, expected.map(|(place, target)| (place.parse().unwrap(), target)).into());
        assert_eq!(plan.ignored, 0);
    }

    #[test]
    fn too_many_are_counted_and_those_of_the_first_port_stay() {
        let found = (0..50_u8).map(|number| IpAddr::from([10, 0, 0, number])).collect();
        let plan = decide_targets(&[listed("tcp://192.0.2.9:80")], &found, &[6443, 443], |_| false);
        assert_eq!((plan.targets.len(), plan.ignored), (TARGETS_MAX, 101 - TARGETS_MAX));
        assert_eq!(plan.targets.keys().filter(|place| place.port() == 6443).count(), 50);
    }

    #[test]
    fn a_flood_of_addresses_does_not_push_out_what_is_known() {
        let found: BTreeSet<IpAddr> = (0..=255_u8).map(|number| IpAddr::from([10, 0, 0, number])).collect();
        let known: SocketAddr = "10.0.0.255:443".parse().unwrap();
        let plan = decide_targets(&[], &found, &[6443, 443], |place| *place == known);
        assert!(plan.targets.contains_key(&known) && plan.targets.len() == TARGETS_MAX);
        assert!(!decide_targets(&[], &found, &[6443, 443], |_| false).targets.contains_key(&known));
    }

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let pauses = |milliseconds| {
            [0, 1, 2, 4, 5, 40].map(|failures| decide_pause(failures, Duration::from_millis(milliseconds)))
        };
        assert_eq!(pauses(1_000), [1, 2, 4, 16, 30, 30]);
        assert_eq!(pauses(100), [1, 2, 4, 16, 32, 300]);
        assert_eq!(pauses(60_000), [1; 6]);
    }
}
