//! Replays of what keepalived was seen to do, in milliseconds.

use std::net::IpAddr;
use std::time::Duration;

use super::contest::{Cause, Conflict, Contest, Failover, Happening};
use super::router::Advert;
use crate::wire::MacAddress;

const MILLI: u64 = 1_000_000;
const GROUP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(224, 0, 0, 18));

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
        self
    }

    fn garp(&mut self, at: u64, router: u8) -> &mut Self {
        self.contest.announced(mac(router), at * MILLI, &mut self.said);
        self
    }

    fn tick(&mut self, at: u64) -> &mut Self {
        self.contest.tick(at * MILLI, &mut self.said);
        self
    }
}

fn moved(from: u8, to: u8, cause: Cause, times: (u64, u64, Option<u64>)) -> Happening {
    let (last, first, announced) = (times.0 * MILLI, times.1 * MILLI, times.2.map(|at| at * MILLI));
    Happening::Moved(Failover { from: ip(from), to: ip(to), cause, last, first, announced })
}

const OWNED: Happening = Happening::Owned { source: IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 56, 11)) };

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
    assert_eq!(replay.said, [OWNED, moved(11, 11, Cause::Shutdown, (500, 920, Some(921)))]);
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
    let conflict = Conflict { owner: ip(11), rival: ip(12), since: 1_500 * MILLI };
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
    assert_eq!(replay.said, [OWNED, Happening::BriefDouble { rival: ip(12) }]);
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
    let brief = Happening::BriefDouble { rival: ip(13) };
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
    replay.contest.link_lost(200 * MILLI);
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
