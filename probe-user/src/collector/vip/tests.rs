//! Replays of what keepalived was seen to do, in milliseconds.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::contest::Contest;
use super::happening::{Announcer, Cause, Conflict, Failover, Happening};
use super::place::{Family, Notice, Passage};
use super::router::Advert;
use super::state::State;
use super::stopwatch::Packet;
use crate::wire::arp::{Arp, Operation};
use crate::wire::vrrp::{Advertisement, Authentication, Version};
use crate::wire::{Checksum, Link, MacAddress, Message, Observation};

const MILLI: u64 = 1_000_000;
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 56, last])
}

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

/// A contest and what it has said so far.
#[derive(Default)]
struct Replay {
    contest: Contest,
    said: Vec<Happening>,
    suspicions: usize,
}

impl Replay {
    fn advert(&mut self, at: u64, router: u8, priority: u8) -> &mut Self {
        let advert = Advert {
            time: at * MILLI,
            source: ip(router),
            destination: GROUP,
            mac: Some(mac(router)),
            priority,
            interval: Some(Duration::from_secs(1)),
            addresses: vec![ip(50)],
            local: false,
        };
        self.contest.advertised(&advert, &mut self.said).unwrap();
        self.hear()
    }

    /// Suspicions come with nearly everything, and are counted apart.
    fn hear(&mut self) -> &mut Self {
        let before = self.said.len();
        self.said.retain(|happening| *happening != Happening::Suspected);
        self.suspicions += before - self.said.len();
        self
    }

    fn garp(&mut self, at: u64, router: u8) -> &mut Self {
        self.contest.announced(51, mac(router), at * MILLI, &mut self.said);
        self
    }

    fn tick(&mut self, at: u64) -> &mut Self {
        self.contest.tick(at * MILLI, &mut self.said);
        self.hear()
    }
}

fn moved(from: u8, to: u8, cause: Cause, times: (u64, u64, Option<u64>)) -> Happening {
    let (last, first) = (Some(times.0 * MILLI), times.1 * MILLI);
    let announced = times.2.map(|at| at * MILLI);
    Happening::Moved(Failover { from: router(from), to: router(to), cause, last, first, announced })
}

fn router(last: u8) -> Announcer {
    Announcer::Router(ip(last))
}

const OWNED: Happening =
    Happening::Owned { source: Announcer::Router(IpAddr::V4(Ipv4Addr::new(192, 168, 56, 11))) };

#[test]
fn a_goodbye_and_a_successor_are_a_shutdown() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).advert(1_400, 11, 0).advert(1_855, 12, 140);
    replay.garp(1_856, 12).garp(6_856, 12);
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Shutdown, (1_400, 1_855, Some(1_856)))]);
}

#[test]
fn silence_and_a_successor_are_a_timeout() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).tick(3_000).advert(4_453, 12, 140).garp(4_454, 12);
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Timeout, (1_000, 4_453, Some(4_454)))]);
}

#[test]
fn a_successor_that_is_never_announced_has_no_announcement() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(3_453, 12, 140).tick(4_000);
    assert_eq!(replay.said, [OWNED]);
    replay.tick(4_500);
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Timeout, (0, 3_453, None))]);
}

#[test]
fn an_owner_that_gives_way_was_preempted() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).advert(1_700, 12, 200).garp(1_701, 12);
    replay.advert(2_700, 12, 200).advert(3_700, 12, 200);
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Preempted, (1_000, 1_700, Some(1_701)))]);
}

#[test]
fn a_goodbye_to_itself_is_a_failover_of_its_own() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(500, 11, 0).advert(920, 11, 150).garp(921, 11);
    assert_eq!(replay.said, [OWNED, moved(11, 11, Cause::AddressRemoved, (500, 920, Some(921)))]);
}

#[test]
fn two_that_insist_are_a_conflict_until_one_gives_up() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).advert(1_500, 12, 140);
    assert!(!replay.contest.in_conflict());
    replay.advert(2_000, 11, 150).advert(2_500, 12, 140);
    assert!(replay.contest.in_conflict());
    replay.advert(3_000, 11, 150).advert(3_500, 12, 140);
    for at in 4..8 {
        replay.advert(at * 1_000, 11, 150);
    }
    let conflict = Conflict { owner: router(11), rival: router(12), since: 1_500 * MILLI };
    let closed = Happening::ConflictClosed(conflict, 3_500 * MILLI);
    assert_eq!(replay.said, [OWNED, Happening::ConflictOpened(conflict), closed]);
    assert!(!replay.contest.in_conflict());
}

#[test]
fn a_second_one_that_gives_up_at_once_is_no_conflict() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).advert(1_004, 12, 140).advert(1_005, 11, 150);
    for at in 2..5 {
        replay.advert(at * 1_000, 11, 150);
    }
    assert_eq!(replay.said, [OWNED, Happening::BriefDouble { rival: router(12) }]);
}

#[test]
fn both_backups_within_milliseconds_are_one_failover() {
    let mut replay = Replay::default();
    replay
        .advert(0, 11, 150)
        .advert(3_453, 12, 140)
        .garp(3_454, 12)
        .advert(3_457, 13, 130)
        .advert(3_458, 12, 140);
    for at in 1..4 {
        replay.advert(3_458 + at * 1_000, 12, 140);
    }
    let brief = Happening::BriefDouble { rival: router(13) };
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Timeout, (0, 3_453, Some(3_454))), brief]);
}

#[test]
fn the_old_owner_back_from_a_hang_takes_over_again() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(3_453, 12, 140).garp(3_454, 12).advert(4_453, 12, 140);
    replay.advert(5_000, 11, 150).garp(5_001, 11).advert(6_000, 11, 150).advert(7_000, 11, 150);
    let back = moved(12, 11, Cause::Preempted, (4_453, 5_000, Some(5_001)));
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Timeout, (0, 3_453, Some(3_454))), back]);
}

#[test]
fn late_advertisements_show_in_the_gaps() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).advert(3_200, 11, 150).advert(4_200, 11, 150);
    let gaps = replay.contest.routers()[&ip(11)].gaps();
    assert_eq!(gaps.buckets, [2, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert!((gaps.sum - 4.2).abs() < 1e-9);
}

#[test]
fn a_lost_link_of_this_node_is_the_cause() {
    let mut replay = Replay::default();
    let own = Advert {
        time: 0,
        source: ip(11),
        destination: GROUP,
        mac: Some(mac(11)),
        priority: 150,
        interval: Some(Duration::from_secs(1)),
        addresses: vec![ip(50)],
        local: true,
    };
    replay.contest.advertised(&own, &mut replay.said).unwrap();
    replay.contest.deafened(200 * MILLI);
    replay.advert(9_000, 12, 140).garp(9_001, 12);
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Link, (0, 9_000, Some(9_001)))]);
}

#[test]
fn one_router_too_many_is_refused() {
    let mut replay = Replay::default();
    for router in 0..16 {
        replay.advert(u64::from(router), router, 100);
    }
    let one_more = Advert {
        time: 0,
        source: ip(99),
        destination: GROUP,
        mac: None,
        priority: 100,
        interval: None,
        addresses: Vec::new(),
        local: false,
    };
    assert_eq!(replay.contest.advertised(&one_more, &mut replay.said), None);
}

#[test]
fn copies_for_several_unicast_peers_are_one_advertisement() {
    let mut replay = Replay::default();
    for (at, peer, priority) in
        [(0, 12, 150), (2, 13, 150), (1_000, 12, 150), (1_001, 13, 150), (1_500, 12, 0), (1_502, 13, 0)]
    {
        let advert = Advert {
            time: at * MILLI,
            source: ip(11),
            destination: ip(peer),
            mac: Some(mac(11)),
            priority,
            interval: Some(Duration::from_secs(1)),
            addresses: vec![ip(50)],
            local: true,
        };
        replay.contest.advertised(&advert, &mut replay.said).unwrap();
    }
    let router = &replay.contest.routers()[&ip(11)];
    assert_eq!((router.advertisements(), router.last()), (3, 1_500 * MILLI));
    assert_eq!(router.gaps().buckets, [1, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_bystander_that_was_deaf_knows_neither_cause_nor_time() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150);
    replay.contest.deafened(1_500 * MILLI);
    replay.advert(300_000, 12, 140).garp(300_001, 12);
    let (first, announced) = (300_000 * MILLI, Some(300_001 * MILLI));
    let failover =
        Failover { from: router(11), to: router(12), cause: Cause::Unknown, last: None, first, announced };
    assert_eq!(replay.said, [OWNED, Happening::Moved(failover)]);
}

#[test]
fn what_this_node_did_not_hear_is_no_late_advertisement() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150);
    replay.contest.deafened(1_500 * MILLI);
    replay.advert(300_000, 11, 150).advert(301_000, 11, 150);
    assert_eq!(replay.contest.routers()[&ip(11)].gaps().buckets, [2, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_advertisement_that_crosses_a_rivals_is_no_answer() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).advert(1_999, 12, 200).advert(2_000, 11, 150);
    replay.garp(2_001, 12).advert(2_999, 12, 200).advert(3_999, 12, 200).advert(4_999, 12, 200);
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Preempted, (1_000, 1_999, Some(2_001)))]);
}

#[test]
fn a_conflict_that_ends_with_a_goodbye_is_a_shutdown_of_that_moment() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).advert(1_500, 12, 140).garp(1_501, 12);
    for at in 2..60 {
        replay.advert(at * 1_000, 11, 150).advert(at * 1_000 + 500, 12, 140);
    }
    replay.said.clear();
    replay.advert(60_000, 11, 0).advert(60_500, 12, 140).garp(60_501, 12);
    let conflict = Conflict { owner: router(11), rival: router(12), since: 1_500 * MILLI };
    let end = moved(11, 12, Cause::Shutdown, (60_000, 60_000, Some(60_501)));
    assert_eq!(replay.said, [Happening::ConflictClosed(conflict, 60_000 * MILLI), end]);
}

#[test]
fn the_virtual_mac_announces_whatever_the_advertisements_come_from() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(3_453, 12, 140);
    replay.contest.announced(51, MacAddress([0, 0, 0x5e, 0, 1, 51]), 3_455 * MILLI, &mut replay.said);
    assert_eq!(replay.said, [OWNED, moved(11, 12, Cause::Timeout, (0, 3_453, Some(3_455)))]);
}

#[test]
fn routers_that_are_long_silent_make_room() {
    let mut replay = Replay::default();
    for router in 0..40 {
        replay.advert(u64::from(router) * 10_000, router, 100);
    }
    assert_eq!(replay.contest.routers().len(), 16);
    replay.contest.forget(10_000_000 * MILLI, 3_600_000 * MILLI);
    assert_eq!(replay.contest.routers().keys().copied().collect::<Vec<_>>(), [ip(39)]);
}

/// An advertisement as the tap hands it on.
fn observation(vrid: u8, source: u8, addresses: Vec<IpAddr>) -> Observation {
    let link = Link { source: Some(mac(source)), destination: None, vlan: None, outer_vlan: None };
    let message = Message::Vrrp(Advertisement {
        source: ip(source),
        destination: GROUP,
        ttl: 255,
        version: Version::V3,
        vrid,
        priority: 100,
        interval: Some(Duration::from_secs(1)),
        authentication: Authentication::None,
        authentication_header: false,
        address_count: u8::try_from(addresses.len()).unwrap(),
        addresses,
        hmac: false,
        checksum: Checksum::Plain,
    });
    Observation { link, message }
}

/// An ARP packet from a station that says it has the address.
fn arp(operation: Operation, station: u8, address: u8, target: u8) -> Observation {
    let link = Link { source: Some(mac(station)), destination: None, vlan: None, outer_vlan: None };
    let message = Message::Arp(Arp {
        operation,
        sender_mac: mac(station),
        sender: Ipv4Addr::new(192, 168, 56, address),
        target_mac: mac(0),
        target: Ipv4Addr::new(192, 168, 56, target),
    });
    Observation { link, message }
}

fn passage(at: u64) -> Passage {
    Passage { time: at * MILLI, interface: "eth0".into(), transmitted: false }
}

#[test]
fn a_65th_virtual_router_is_ignored_and_counted() {
    let mut state = State::default();
    for vrid in 1..=65 {
        state.observe(&passage(vrid.into()), Ok(Some(observation(vrid, 11, vec![ip(50)]))));
    }
    assert_eq!((state.contests().len(), state.limited()), (64, 1));
}

#[test]
fn a_flood_of_addresses_is_bounded() {
    let mut state = State::default();
    for number in 0..100_u8 {
        let addresses = (0..50_u8).map(|last| IpAddr::from([10, 0, number, last])).collect();
        state.observe(&passage(number.into()), Ok(Some(observation(1, 11, addresses))));
    }
    assert_eq!((state.histories().len(), state.limited()), (1_024, 5_000 - 1_024));
}

#[test]
fn an_address_that_only_the_dead_router_had_stays() {
    let mut state = State::default();
    state.observe(&passage(0), Ok(Some(observation(1, 11, vec![ip(50), ip(51)]))));
    state.observe(&passage(4_000), Ok(Some(observation(1, 12, vec![ip(50)]))));
    state.tick(9_000 * MILLI);
    assert_eq!(state.histories().keys().copied().collect::<Vec<_>>(), [ip(50), ip(51)]);
    assert!(state.histories().values().all(|history| history.failovers == [0, 0, 0, 0, 1, 0]));
}

/// A state and what it has said, without suspicions.
#[derive(Default)]
struct Wire {
    state: State,
    said: Vec<Notice>,
}

impl Wire {
    fn hear(&mut self, at: u64, heard: Observation) -> &mut Self {
        let notices = self.state.observe(&passage(at), Ok(Some(heard)));
        self.keep(notices)
    }

    fn keep(&mut self, notices: Vec<Notice>) -> &mut Self {
        self.said.extend(notices.into_iter().filter(|notice| notice.happening != Happening::Suspected));
        self
    }

    fn tick(&mut self, at: u64) -> &mut Self {
        let notices = self.state.tick(at * MILLI);
        self.keep(notices)
    }

    fn serve(&mut self, at: u64, station: u8, previous: Option<u64>) -> &mut Self {
        let previous = previous.map(|at| at * MILLI);
        let packet = Packet { time: at * MILLI, station: mac(station), local: false, previous };
        let notice = self.state.served(ip(50), packet);
        self.keep(notice.into_iter().collect())
    }

    fn happenings(&self) -> Vec<Happening> {
        self.said.iter().map(|notice| notice.happening).collect()
    }

    /// The times of the last failover in milliseconds.
    fn last(&self) -> [Option<f64>; 4] {
        let history = &self.state.histories()[&ip(50)];
        let phases = [&history.detect, &history.announce, &history.converge, &history.total];
        phases.map(|phase| phase.last.map(|seconds| (seconds * 1e3).round()))
    }
}

#[test]
fn an_owner_without_a_successor_is_lost_and_comes_back() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).tick(4_900);
    assert_eq!(replay.said, [OWNED]);
    replay.tick(5_100).tick(6_000).advert(9_000, 11, 150);
    let source = router(11);
    let lost = Happening::Lost { source, last: 1_000 * MILLI };
    let back = Happening::Returned { source, last: 1_000 * MILLI, first: 9_000 * MILLI };
    assert_eq!(replay.said, [OWNED, lost, back]);
}

#[test]
fn a_node_that_hears_nothing_loses_nobody() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150);
    replay.contest.deafened(1_100 * MILLI);
    replay.tick(9_000);
    assert_eq!(replay.said, [OWNED]);
}

#[test]
fn the_first_sign_of_an_incident_is_told_once() {
    let mut replay = Replay::default();
    replay.advert(0, 11, 150).advert(1_000, 11, 150).tick(3_000);
    assert_eq!(replay.suspicions, 0);
    replay.tick(3_600).tick(3_700).advert(4_453, 12, 140).garp(4_454, 12);
    assert_eq!(replay.suspicions, 1);
    for at in 5..20 {
        replay.advert(at * 1_000, 12, 140);
    }
    replay.advert(20_000, 12, 0);
    assert_eq!(replay.suspicions, 2);
}

#[test]
fn a_shutdown_of_the_daemon_is_no_removed_address() {
    let mut replay = Replay::default();
    // A daemon that starts again waits for three intervals.
    replay.advert(0, 11, 150).advert(500, 11, 0).advert(4_000, 11, 150).garp(4_001, 11);
    assert_eq!(replay.said, [OWNED, moved(11, 11, Cause::Shutdown, (500, 4_000, Some(4_001)))]);
}

#[test]
fn another_cluster_with_the_same_number_is_foreign_and_disputes_nothing() {
    let mut link = Wire::default();
    for at in 0..10 {
        link.hear(at * 1_000, observation(7, 11, vec![ip(50)]));
        link.hear(at * 1_000 + 500, observation(7, 21, vec![ip(60)]));
    }
    let second = Happening::Owned { source: router(21) };
    let foreign = Happening::Foreign { source: router(21) };
    assert_eq!(link.happenings(), [OWNED, foreign, second]);
    let interface = "eth0".into();
    let key = (&interface, 7, Family::Ipv4);
    assert_eq!(link.state.foreign_routers(9_600 * MILLI)[&key], 1);
    // Silent ones are there no more, and the first party is who is left.
    assert_eq!(link.state.foreign_routers(60_000 * MILLI)[&key], 0);
}

#[test]
fn a_router_that_gets_other_addresses_stays_the_same() {
    let mut link = Wire::default();
    link.hear(0, observation(7, 11, vec![ip(50)])).hear(1_000, observation(7, 11, vec![ip(60)]));
    assert_eq!(link.state.contests().len(), 1);
    assert_eq!(link.happenings(), [OWNED]);
}

#[test]
fn a_router_that_joins_the_other_cluster_is_no_longer_foreign() {
    let mut link = Wire::default();
    link.hear(0, observation(7, 11, vec![ip(50)])).hear(500, observation(7, 21, vec![ip(60)]));
    link.hear(1_000, observation(7, 11, vec![ip(50)])).hear(1_500, observation(7, 21, vec![ip(50), ip(60)]));
    let interface = "eth0".into();
    assert_eq!(link.state.foreign_routers(1_600 * MILLI)[&(&interface, 7, Family::Ipv4)], 0);
}

#[test]
fn an_address_becomes_virtual_when_a_second_station_announces_it() {
    let mut link = Wire::default();
    link.hear(0, arp(Operation::Request, 1, 50, 50));
    assert!(link.state.addresses().is_empty() && link.state.histories().is_empty());
    link.hear(60_000, arp(Operation::Reply, 2, 50, 50));
    assert_eq!(link.state.addresses(), [ip(50)].into());
    assert_eq!(link.state.histories()[&ip(50)].failovers, [0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_configured_address_is_virtual_from_the_first() {
    let mut link = Wire::default();
    link.state.configure([ip(50)], 0);
    assert_eq!(link.state.addresses(), [ip(50)].into());
    link.hear(10, arp(Operation::Request, 1, 50, 50));
    let source = Announcer::Station(mac(1));
    assert_eq!(link.happenings(), [Happening::Owned { source }]);
}

#[test]
fn an_address_that_is_advertised_is_not_claimed_besides() {
    let mut link = Wire::default();
    link.hear(0, arp(Operation::Request, 1, 50, 50)).hear(10, arp(Operation::Request, 2, 50, 50));
    assert_eq!(link.state.claims().count(), 1);
    // The history is that of the address, however it is announced.
    let mut link = Wire::default();
    link.hear(0, arp(Operation::Request, 1, 50, 50)).hear(5, observation(7, 11, vec![ip(50)]));
    link.hear(10, arp(Operation::Request, 11, 50, 50));
    assert_eq!(link.state.claims().count(), 0);
}

#[test]
fn an_answer_of_somebody_else_is_a_duplicate_for_a_minute() {
    let mut link = Wire::default();
    link.hear(0, observation(7, 11, vec![ip(50)])).hear(100, arp(Operation::Reply, 11, 50, 3));
    assert!(!link.state.histories()[&ip(50)].is_duplicated(100 * MILLI));
    link.hear(200, arp(Operation::Reply, 9, 50, 3)).hear(300, arp(Operation::Reply, 9, 50, 4));
    let news = Happening::Duplicated { station: mac(9), time: 200 * MILLI };
    assert_eq!(link.happenings(), [OWNED, news]);
    let history = &link.state.histories()[&ip(50)];
    assert_eq!(history.duplicates, 2);
    assert_eq!([60_299, 60_301].map(|at| history.is_duplicated(at * MILLI)), [true, false]);
}

#[test]
fn an_ordinary_question_says_nothing() {
    let mut link = Wire::default();
    link.hear(0, observation(7, 11, vec![ip(50)])).hear(100, arp(Operation::Request, 9, 50, 3));
    assert_eq!(link.state.histories()[&ip(50)].duplicates, 0);
}

#[test]
fn a_failover_ends_with_the_new_owners_first_packet() {
    let mut link = Wire::default();
    link.hear(0, observation(7, 11, vec![ip(50)])).hear(1_000, observation(7, 11, vec![ip(50)]));
    link.serve(1_900, 11, Some(1_890));
    link.hear(4_400, observation(7, 12, vec![ip(50)])).hear(4_401, arp(Operation::Request, 12, 50, 50));
    assert_eq!(link.last(), [Some(3_400.0), Some(1.0), None, None]);
    link.serve(4_412, 12, Some(2_000));
    assert_eq!(link.last(), [Some(3_400.0), Some(1.0), Some(11.0), Some(2_412.0)]);
    link.serve(4_500, 12, Some(4_422));
    assert_eq!(link.said.len(), 3);
}

#[test]
fn an_address_that_nobody_speaks_of_is_forgotten() {
    let mut link = Wire::default();
    link.hear(0, observation(7, 11, vec![ip(50)])).tick(3_599_000);
    assert_eq!(link.state.addresses().len(), 1);
    link.tick(3_602_000);
    assert!(link.state.addresses().is_empty() && link.state.histories().is_empty());
}

#[test]
fn a_failover_that_is_heard_on_two_links_counts_once() {
    let mut state = State::default();
    for interface in ["eth0", "eth1"] {
        for (at, source) in [(0, 11), (1_000, 11), (4_500, 12)] {
            let passage = Passage { time: at * MILLI, interface: interface.into(), transmitted: false };
            state.observe(&passage, Ok(Some(observation(7, source, vec![ip(50)]))));
        }
    }
    state.tick(9_000 * MILLI);
    assert_eq!(state.histories()[&ip(50)].failovers, [0, 0, 0, 0, 1, 0]);
}

#[test]
fn a_packet_that_comes_before_the_first_failover_is_told_ends_it() {
    let mut link = Wire::default();
    link.hear(0, observation(7, 11, vec![ip(50)])).hear(4_400, observation(7, 12, vec![ip(50)]));
    link.serve(4_402, 12, None).hear(4_403, arp(Operation::Request, 12, 50, 50));
    assert_eq!(link.last(), [Some(4_400.0), Some(3.0), Some(0.0), Some(4_402.0)]);
}

#[test]
fn claims_are_bounded_also_where_every_address_is_virtual() {
    let mut state = State::default();
    let claim = |station: u8, number: u16| {
        let address = Ipv4Addr::from([10, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]]);
        let link = Link { source: Some(mac(station)), destination: None, vlan: None, outer_vlan: None };
        let (operation, target_mac) = (Operation::Request, mac(0));
        let message = Message::Arp(Arp {
            operation,
            sender_mac: mac(station),
            sender: address,
            target_mac,
            target: address,
        });
        Observation { link, message }
    };
    for number in 0..2_000 {
        for station in 1..=2 {
            state.observe(&passage(number.into()), Ok(Some(claim(station, number))));
        }
    }
    assert_eq!((state.claims().count(), state.histories().len()), (1_024, 1_024));
    assert_eq!(state.limited(), 2 * (2_000 - 1_024));
}
