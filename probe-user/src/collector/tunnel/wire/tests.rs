//! Real packets of tailscaled with their times, as a node's uplink had them, and made ones where those have not what is
//! asked. In the captures node 1 (192.168.56.11) speaks with node 2; what they say is known packet by packet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::source::tailscale::Reading;
use crate::wire::tunnel;

const SECOND: Nanos = 1_000_000_000;
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 56, 11));

fn capture(name: &str) -> Vec<Passage> {
    let bytes: &[u8] = match name {
        "direct" => include_bytes!("captures/direct.pcap"),
        "one-way" => include_bytes!("captures/one-way.pcap"),
        "derp-fallback" => include_bytes!("captures/derp-fallback.pcap"),
        "peer-relay" => include_bytes!("captures/peer-relay.pcap"),
        _ => panic!("{name}"),
    };
    let word = |at: usize| u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
    let (mut at, mut passages) = (24, Vec::new());
    while at < bytes.len() {
        let time = word(at) * SECOND + word(at + 4) * 1_000;
        let end = at + 16 + usize::try_from(word(at + 8)).unwrap();
        let clock = Timestamp::from_unix_nanos(time);
        // Answers of STUN begin like handshakes.
        if let Some(seen) = tunnel::observe(&bytes[at + 16 + 14..end]) {
            passages.push(Passage { time, clock, transmitted: seen.source.ip() == OWN, seen });
        }
        at = end;
    }
    passages
}

/// The changes, with the times at which they are told, in seconds after the first packet.
fn play(wire: &mut Wire, passages: &[Passage]) -> Vec<(f64, Change)> {
    let first = passages[0].time;
    let after = |time: Nanos| Duration::from_nanos(time - first).as_secs_f64();
    let (mut changes, mut tick) = (Vec::new(), first);
    for passage in passages {
        while tick < passage.time {
            changes.extend(wire.tick(tick).into_iter().map(|change| (after(tick), change)));
            tick += SECOND / 2;
        }
        changes.extend(wire.observe(passage).map(|change| (after(passage.time), change)));
    }
    changes
}

fn reading(path: PeerPath, endpoint: &str, session: Option<u32>) -> Reading {
    let endpoint = Some(endpoint.parse().unwrap());
    let peer = Peer { path: Some(path), endpoint, session, ..Peer::default() };
    Reading { peers: BTreeMap::from([("node2".to_owned(), peer)]), ..Reading::default() }
}

fn direct() -> Reading {
    reading(PeerPath::Direct, "192.168.56.12:41641", None)
}

fn nobody(_: IpAddr) -> Option<Arc<str>> {
    None
}

fn last(passages: &[Passage]) -> Nanos {
    passages.last().unwrap().time
}

#[test]
fn every_ping_of_a_direct_path_has_its_round_trip() {
    let (mut wire, passages) = (Wire::default(), capture("direct"));
    assert_eq!(play(&mut wire, &passages), []);
    wire.name(Some(&direct()), nobody, last(&passages));
    let peers: Vec<_> = wire.peers(last(&passages)).collect();
    let [(label, totals, answers)] = peers[..] else { panic!("{peers:?}") };
    assert_eq!((label, totals.answered, totals.unanswered, answers), ("node2", 62, 0, Some(true)));
    assert_eq!(totals.rtt.count(), 62);
    // By the times of the capture: 0.339 ms between initiation and response.
    assert_eq!(totals.handshake_rtt.map(|rtt| rtt / 1_000), Some(339));
    let first = passages[0].time;
    let handshake = totals.handshake.map(|time| (time.unix_nanos() - first) / SECOND);
    assert_eq!(handshake, Some(120));
}

#[test]
fn a_blocked_path_is_silent_before_tailscaled_leaves_it_and_answers_when_it_passes_again() {
    let (mut wire, passages) = (Wire::default(), capture("derp-fallback"));
    let changes = play(&mut wire, &passages);
    let [(silent, ref lost), (heard, ref back)] = changes[..] else { panic!("{changes:?}") };
    // Blocked at 4.36 s, the first ping that shows it at 6.00 s, left by tailscaled after 10 s, passed again at 24.38 s.
    assert!((7.0..8.1).contains(&silent), "{silent}");
    assert!((24.6..29.4).contains(&heard), "{heard}");
    assert!(lost.silent_since.is_some() && lost.lasted.is_none() && lost.rtt.is_some());
    let since = Duration::from_nanos(lost.silent_since.unwrap() - passages[0].time).as_secs_f64();
    assert!((5.9..6.1).contains(&since), "{since}");
    assert!(back.silent_since.is_none() && back.lasted > Some(18 * SECOND));
    wire.name(Some(&direct()), nobody, last(&passages));
    let (_, totals, answers) = wire.peers(last(&passages)).next().unwrap();
    assert_eq!(answers, Some(true));
    // 13 pongs were seen in both directions; what was asked in between is unanswered.
    let asked =
        passages.iter().filter(|passage| passage.transmitted && is_question(&passage.seen.message)).count();
    assert_eq!(totals.answered + totals.unanswered, u64::try_from(asked).unwrap());
    assert!(totals.unanswered >= 5, "{totals:?}");
}

#[test]
fn a_relayed_path_is_the_same_peer_by_its_key() {
    let (mut wire, passages) = (Wire::default(), capture("peer-relay"));
    let changes = play(&mut wire, &passages);
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes.iter().all(|(_, change)| change.endpoint.session.is_none()));
    wire.name(Some(&direct()), nobody, last(&passages));
    let peers: Vec<_> = wire.peers(last(&passages)).collect();
    let [(label, totals, answers)] = peers[..] else { panic!("{peers:?}") };
    assert_eq!((label, answers), ("node2", Some(true)));
    let is_pong = |passage: &&Passage| {
        !passage.transmitted && matches!(passage.seen.message, Message::Disco(Disco { kind: Kind::Pong, .. }))
    };
    assert_eq!(totals.answered, u64::try_from(passages.iter().filter(is_pong).count()).unwrap());
}

/// When data of a peer was told to be lost, and to be so no more, in seconds after the first packet.
fn judged(wire: &mut Wire, passages: &[Passage], reading: Option<&Reading>) -> Vec<(u64, bool)> {
    let (mut told, mut tick) = (Vec::new(), passages[0].time);
    let mut judge = |wire: &mut Wire, now: Nanos| {
        wire.name(reading, nobody, now);
        let judged = wire.judge(now).into_iter().inspect(|change| assert!(change.peer.is_some()));
        told.extend(judged.map(|change| ((now - passages[0].time) / SECOND, change.is_one_way)));
    };
    for passage in passages {
        while tick < passage.time {
            judge(wire, tick);
            tick += SECOND / 2;
        }
        wire.observe(passage);
    }
    for later in 0..120 {
        judge(wire, tick + later * SECOND);
    }
    told
}

/// Data from node 1 to node 2 was dropped while pings and handshakes passed, for 51 s; the first handshake is node 2's.
#[test]
fn handshakes_alone_tell_that_data_is_lost_where_tailscaled_does_not() {
    let passages = capture("one-way");
    let mut wire = Wire::default();
    let told = judged(&mut wire, &passages, None);
    // The third of the handshakes at 13, 28, 43 and 48 s, and a minute after the second.
    assert_eq!(told, [(43, true), (88, false)]);
    assert_eq!(wire.one_way().into_iter().collect::<Vec<_>>(), [("192.168.56.12:41641", false)]);
    // Who can ask tailscaled is told by it.
    let mut wire = Wire::default();
    assert_eq!(judged(&mut wire, &passages, Some(&direct())), []);
    assert!(wire.one_way().is_empty());
    // What else was recorded is no loss of data.
    for usual in ["direct", "derp-fallback", "peer-relay"] {
        assert_eq!(judged(&mut Wire::default(), &capture(usual), None), [], "{usual}");
    }
}

/// A made packet of disco.
fn disco(transmitted: bool, kind: Kind, key: u8, time: Nanos) -> Passage {
    let (own, other) = ("192.168.56.11:41641".parse().unwrap(), "192.168.56.12:41641".parse().unwrap());
    let (source, destination) = if transmitted { (own, other) } else { (other, own) };
    let message = Message::Disco(Disco { key: DiscoKey([key; 32]), kind });
    let seen = Observation { source, destination, session: None, message };
    Passage { time, clock: Timestamp::from_unix_nanos(time), transmitted, seen }
}

fn ping(time: Nanos) -> Passage {
    disco(true, Kind::Ping, 1, time)
}

fn pong(time: Nanos) -> Passage {
    disco(false, Kind::Pong, 2, time)
}

fn handshake(transmitted: bool, message: Handshake, time: Nanos) -> Passage {
    let passage = disco(transmitted, Kind::Ping, 1, time);
    Passage { seen: Observation { message: Message::Handshake(message), ..passage.seen }, ..passage }
}

/// After these packets, named by tailscaled: answered, unanswered, round trips.
fn counts(passages: &[Passage]) -> Option<[u64; 3]> {
    let mut wire = Wire::default();
    for passage in passages {
        wire.observe(passage);
    }
    wire.name(Some(&direct()), nobody, SECOND);
    let counted = wire.peers(SECOND).next().map(|(_, totals, _)| totals.clone())?;
    Some([counted.answered, counted.unanswered, counted.rtt.count()])
}

#[test]
fn the_newest_ping_is_the_one_that_is_answered() {
    let rtt = |passages: &[Passage]| {
        let mut wire = Wire::default();
        for passage in passages {
            wire.observe(passage);
        }
        wire.rtt(&direct().peers["node2"])
    };
    let lost = [ping(0), pong(10), ping(3 * SECOND), ping(6 * SECOND), pong(6 * SECOND + 20)];
    assert_eq!(rtt(&lost), Some(20));
    assert_eq!(counts(&lost), Some([2, 1, 2]));
}

#[test]
fn pongs_of_pings_that_are_close_are_not_told_apart() {
    let close = [
        ping(0),
        ping(100),
        ping(200),
        pong(300),
        pong(400),
        pong(500),
        ping(3 * SECOND),
        pong(3 * SECOND + 9),
    ];
    assert_eq!(counts(&close), Some([2, 0, 1]));
}

#[test]
fn a_pong_that_nobody_waits_for_counts_for_nothing() {
    assert_eq!(counts(&[pong(0)]), None);
    assert_eq!(counts(&[ping(0), pong(5), pong(6)]), Some([1, 0, 1]));
    // Later than tailscaled itself would take it.
    let late =
        [ping(0), pong(5), ping(6 * SECOND), pong(11 * SECOND + 1), ping(12 * SECOND), pong(12 * SECOND + 1)];
    assert_eq!(counts(&late), Some([2, 1, 2]));
}

#[test]
fn an_address_that_never_answered_is_not_silent() {
    let mut wire = Wire::default();
    for second in [0, 5, 10] {
        assert_eq!(wire.observe(&ping(second * SECOND)), None);
        assert_eq!(wire.tick((second + 4) * SECOND), []);
    }
    wire.name(None, nobody, 10 * SECOND);
    assert!(!wire.has_peers());
    // What was asked before the first answer is not what is missed.
    assert_eq!(
        counts(&[ping(0), ping(5 * SECOND), ping(10 * SECOND), pong(10 * SECOND + 1)]),
        Some([1, 0, 1])
    );
}

#[test]
fn a_lost_ping_is_no_silence_while_the_other_end_is_heard() {
    let mut wire = Wire::default();
    for passage in [ping(0), pong(9), ping(3 * SECOND), disco(false, Kind::Ping, 2, 4 * SECOND)] {
        assert_eq!(wire.observe(&passage), None);
    }
    assert_eq!(wire.tick(7 * SECOND), []);
    assert_eq!(wire.tick(7 * SECOND + SECOND / 2).len(), 1);
}

#[test]
fn the_first_ping_after_a_long_time_has_time_to_be_answered() {
    let mut wire = Wire::default();
    for passage in [ping(0), pong(9), ping(3 * SECOND), ping(100 * SECOND)] {
        wire.observe(&passage);
    }
    assert_eq!(wire.tick(100 * SECOND + SECOND / 2), []);
    let changes = wire.tick(101 * SECOND);
    assert_eq!(changes[0].silent_since, Some(100 * SECOND));
    // Nobody asks any more: it is not known.
    wire.name(Some(&direct()), nobody, 101 * SECOND);
    assert_eq!(wire.peers(159 * SECOND).next().unwrap().2, Some(false));
    assert_eq!(wire.peers(160 * SECOND).next().unwrap().2, None);
}

#[test]
fn a_handshake_is_answered_by_who_names_it_and_one_that_is_repeated_is_not() {
    let mut wire = Wire::default();
    let initiation = |sender, time| handshake(true, Handshake::Initiation { sender }, time);
    let response = |receiver, time| handshake(false, Handshake::Response { sender: 9, receiver }, time);
    wire.observe(&initiation(1, 0));
    wire.observe(&response(2, 50));
    wire.observe(&response(1, 70));
    wire.name(None, nobody, SECOND);
    let (label, totals, answers) = wire.peers(SECOND).next().unwrap();
    assert_eq!((label, answers), ("192.168.56.12:41641", Some(true)));
    assert_eq!((totals.handshake_rtt, totals.handshake), (Some(70), Some(Timestamp::from_unix_nanos(70))));
    assert_eq!((totals.answered, totals.rtt.count()), (0, 0));
    wire.observe(&initiation(3, 120 * SECOND));
    assert_eq!(wire.tick(124 * SECOND), []);
    wire.observe(&initiation(4, 125 * SECOND));
    assert_eq!(wire.tick(125 * SECOND + SECOND / 2), []);
    assert_eq!(wire.tick(126 * SECOND)[0].silent_since, Some(120 * SECOND));
    let back = wire.observe(&response(4, 127 * SECOND)).unwrap();
    assert_eq!((back.silent_since, back.lasted), (None, Some(7 * SECOND)));
}

#[test]
fn whom_this_node_lets_in_is_known_and_whoever_knocks_is_not() {
    let mut wire = Wire::default();
    wire.observe(&handshake(false, Handshake::Initiation { sender: 1 }, 0));
    assert!(wire.is_quiet());
    wire.observe(&handshake(true, Handshake::Response { sender: 2, receiver: 1 }, 5));
    wire.name(None, |_| Some("node2".into()), SECOND);
    let (label, totals, _) = wire.peers(SECOND).next().unwrap();
    assert_eq!((label, totals.handshake), ("node2", Some(Timestamp::from_unix_nanos(5))));
}

#[test]
fn a_relay_passes_pings_on_and_asks_nothing() {
    let mut wire = Wire::default();
    wire.observe(&disco(false, Kind::Ping, 7, 0));
    wire.observe(&disco(true, Kind::Ping, 7, 5));
    assert!(wire.is_quiet());
    let (initiation, response) =
        (Handshake::Initiation { sender: 8 }, Handshake::Response { sender: 9, receiver: 8 });
    for message in [initiation, response] {
        wire.observe(&handshake(false, message, 6));
        wire.observe(&handshake(true, message, 7));
    }
    assert!(wire.is_quiet());
    wire.observe(&ping(10));
    assert!(!wire.is_quiet());
}

#[test]
fn while_tailscaled_is_asked_it_has_its_time_to_say_whose_address_it_is() {
    let (mut wire, empty) = (Wire::default(), Reading::default());
    wire.observe(&ping(0));
    wire.observe(&pong(5));
    let node = |_: IpAddr| -> Option<Arc<str>> { Some("node2".into()) };
    wire.name(Some(&empty), node, 29 * SECOND);
    assert!(!wire.has_peers());
    wire.name(Some(&empty), node, 30 * SECOND);
    assert_eq!(wire.peers(SECOND).next().unwrap().0, "node2");
    // What was counted before is there, and a name that comes later counts from then on.
    let named = reading(PeerPath::Direct, "192.168.56.12:41641", None);
    let named =
        Reading { peers: named.peers.into_values().map(|peer| ("edge".to_owned(), peer)).collect(), ..named };
    wire.name(Some(&named), node, 31 * SECOND);
    wire.observe(&ping(32 * SECOND));
    wire.observe(&pong(32 * SECOND + 1));
    let counted: Vec<_> = wire.peers(SECOND).map(|(label, totals, _)| (label, totals.answered)).collect();
    assert_eq!(counted, [("edge", 1), ("node2", 1)]);
}

#[test]
fn another_daemon_at_the_same_address_is_another_peer_until_it_is_named() {
    let mut wire = Wire::default();
    for passage in [ping(0), pong(5)] {
        wire.observe(&passage);
    }
    wire.name(Some(&direct()), nobody, SECOND);
    wire.observe(&ping(2 * SECOND));
    wire.observe(&disco(false, Kind::Pong, 3, 2 * SECOND + 5));
    let answered = |wire: &Wire| wire.peers(SECOND).next().unwrap().1.answered;
    assert_eq!(answered(&wire), 1);
    wire.name(Some(&direct()), nobody, 3 * SECOND);
    assert_eq!(answered(&wire), 2);
}

#[test]
fn sessions_of_one_relay_are_told_apart() {
    let mut wire = Wire::default();
    for passage in [ping(0), pong(5)] {
        wire.observe(&Passage { seen: Observation { session: Some(3), ..passage.seen }, ..passage });
    }
    let relayed = |session| reading(PeerPath::PeerRelay, "192.168.56.12:41641", session);
    for other in [Some(4), None] {
        wire.name(Some(&relayed(other)), nobody, SECOND);
        assert!(!wire.has_peers());
    }
    wire.name(Some(&relayed(Some(3))), nobody, SECOND);
    assert_eq!(wire.peers(SECOND).next().unwrap().0, "node2");
}

#[test]
fn a_relay_without_a_name_is_no_node() {
    let mut wire = Wire::default();
    let relayed =
        |passage: Passage| Passage { seen: Observation { session: Some(3), ..passage.seen }, ..passage };
    wire.observe(&relayed(ping(0)));
    wire.observe(&relayed(pong(5)));
    wire.name(None, |_| Some("the relay".into()), SECOND);
    assert_eq!(wire.peers(SECOND).next().unwrap().0, "192.168.56.12:41641 session 3");
}

#[test]
fn addresses_and_peers_are_bounded_and_forgotten() {
    let mut wire = Wire::default();
    for port in 0..1_030_u16 {
        let at = |passage: Passage, time| {
            let address = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
            let own = passage.seen.source;
            let (source, destination) = if passage.transmitted { (own, address) } else { (address, own) };
            Passage { time, seen: Observation { source, destination, ..passage.seen }, ..passage }
        };
        wire.observe(&at(ping(0), 0));
        let mut answer = at(pong(0), 5);
        answer.seen.destination = "192.168.56.11:41641".parse().unwrap();
        wire.observe(&answer);
    }
    assert_eq!(wire.endpoints.len(), MOST_ENDPOINTS);
    for _ in 0..2 {
        wire.name(None, nobody, SECOND);
        assert_eq!((wire.peers(SECOND).count(), wire.omitted()), (MOST_PEERS, MOST_ENDPOINTS - MOST_PEERS));
    }
    wire.name(None, nobody, FORGOTTEN + 5);
    assert!(wire.is_quiet());
    assert_eq!(wire.peers(FORGOTTEN + 5).filter(|(_, _, answers)| answers.is_some()).count(), 0);
}
