//! What happens to a node of a tailnet, replayed answer by answer.

use super::*;
use crate::source::tailscale::{Own, PeerPath};

const DAY: u64 = 24 * 3_600;
const START: u64 = 1_700_000_000;

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_unix_nanos((START + seconds) * 1_000_000_000)
}

fn direct() -> Peer {
    Peer {
        path: Some(PeerPath::Direct),
        endpoint: Some("192.168.56.12:41641".parse().unwrap()),
        is_online: Some(true),
        received: Some(100),
        transmitted: Some(100),
        ..Peer::default()
    }
}

fn derp() -> Peer {
    Peer { path: Some(PeerPath::Derp), endpoint: None, ..direct() }
}

fn reading(peer: Peer) -> Reading {
    Reading {
        backend: Backend::Running,
        own: Own { name: Some("node1".to_owned()), is_online: Some(true), ..Own::default() },
        advertised: Some(Vec::new()),
        peers: BTreeMap::from([("node2".to_owned(), peer)]),
        ..Reading::default()
    }
}

fn observe(state: &mut State, reading: Reading, seconds: u64) -> Vec<(Kind, String)> {
    let at = Moment { now: Duration::from_secs(seconds), time: time(seconds) };
    let events = state.observe("/run/t.sock".into(), reading, at);
    assert!(events.iter().all(|event| event.time == at.time));
    events.into_iter().map(|event| (event.kind, said(event))).collect()
}

fn said(event: Occurrence) -> String {
    let details = event.details.into_iter().map(|(key, value)| format!(" {key}={value}"));
    std::iter::once(event.subject).chain(details).collect()
}

fn told(kind: Kind, text: &str) -> (Kind, String) {
    (kind, text.to_owned())
}

#[test]
fn a_path_that_is_lost_and_comes_back_is_told_both_times() {
    let mut state = State::default();
    assert_eq!(observe(&mut state, reading(direct()), 0), []);
    let fallen = observe(&mut state, reading(derp()), 5);
    assert_eq!(fallen, [told(Kind::TunnelPathChanged, "node2 path=derp was=direct")]);
    assert_eq!(observe(&mut state, reading(derp()), 6), []);
    let back = observe(&mut state, reading(direct()), 9);
    let text = "node2 endpoint=192.168.56.12:41641 path=direct was=derp";
    assert_eq!(back, [told(Kind::TunnelPathChanged, text)]);
}

#[test]
fn a_peer_that_the_server_has_lost_is_told_and_one_that_was_never_there_is_not() {
    let off = || Peer { is_online: Some(false), path: Some(PeerPath::Idle), endpoint: None, ..direct() };
    let mut state = State::default();
    assert_eq!(observe(&mut state, reading(off()), 0), []);
    let idle = || Peer { is_online: Some(true), ..off() };
    assert_eq!(observe(&mut state, reading(idle()), 1), [told(Kind::TunnelPeerBack, "node2 path=idle")]);
    assert_eq!(observe(&mut state, reading(off()), 2), [told(Kind::TunnelPeerLost, "node2 path=idle")]);
}

#[test]
fn being_logged_out_is_told_by_the_name_that_the_node_had() {
    let mut state = State::default();
    observe(&mut state, reading(direct()), 0);
    let out = || Reading { backend: Backend::NeedsLogin, ..Reading::default() };
    assert_eq!(observe(&mut state, out(), 1), [told(Kind::TunnelDown, "node1 state=needs_login")]);
    assert_eq!(observe(&mut state, out(), 2), []);
    for backend in [Backend::NoState, Backend::Starting, Backend::Other] {
        assert_eq!(observe(&mut state, Reading { backend, ..Reading::default() }, 3), []);
    }
    assert_eq!(observe(&mut state, reading(direct()), 4), [told(Kind::TunnelUp, "node1 state=running")]);
}

#[test]
fn a_daemon_that_does_not_answer_twice_is_down_and_keeps_what_was_counted() {
    let mut state = State::default();
    observe(&mut state, reading(direct()), 0);
    let at = |seconds| Moment { now: Duration::from_secs(seconds), time: time(seconds) };
    assert_eq!(state.miss(Sight::Unreadable("x"), at(1)), None);
    let down = state.miss(Sight::Unreadable("x"), at(2)).map(|event| (event.kind, said(event)));
    assert_eq!(down, Some(told(Kind::TunnelDown, "node1 state=unreachable")));
    assert_eq!(state.miss(Sight::Unreadable("x"), at(3)), None);
    let fresh = Peer { received: Some(7), transmitted: Some(0), ..direct() };
    assert_eq!(observe(&mut state, reading(fresh), 4), [told(Kind::TunnelUp, "node1 state=running")]);
    assert_eq!(state.peers["node2"].received(), Some(107));
}

#[test]
fn a_new_daemon_that_has_counted_more_than_the_old_one_is_known_by_its_process() {
    let mut state = State::default();
    let of = |process, received| Reading {
        process: Some(process),
        ..reading(Peer { received: Some(received), ..direct() })
    };
    let totals = [(1, 100), (1, 150), (2, 200), (2, 210)].map(|(process, received)| {
        observe(&mut state, of(process, received), 1);
        state.peers["node2"].received()
    });
    assert_eq!(totals, [100, 150, 350, 360].map(Some));
}

#[test]
fn one_answer_that_is_missing_is_no_news() {
    let mut state = State::default();
    for seconds in [0, 2, 4] {
        assert_eq!(observe(&mut state, reading(direct()), seconds), []);
        let at = Moment { now: Duration::from_secs(seconds + 1), time: time(seconds + 1) };
        assert_eq!(state.miss(Sight::Unreadable("x"), at), None);
    }
}

#[test]
fn a_key_is_told_a_week_before_its_end_and_at_its_end_by_the_clock() {
    let mut state = State::default();
    let of = |expiry: u64| {
        let mut reading = reading(direct());
        reading.own.key_expiry = Some(time(expiry));
        reading
    };
    assert_eq!(observe(&mut state, of(30 * DAY), 0), []);
    assert_eq!(observe(&mut state, of(30 * DAY), 22 * DAY), []);
    let expires = format!("node1 expires={}", time(30 * DAY));
    assert_eq!(observe(&mut state, of(30 * DAY), 23 * DAY), [told(Kind::TunnelKeyExpiring, &expires)]);
    assert_eq!(observe(&mut state, of(30 * DAY), 29 * DAY), []);
    // tailscaled itself may say nothing.
    assert_eq!(observe(&mut state, of(30 * DAY), 30 * DAY), [told(Kind::TunnelKeyExpired, &expires)]);
    assert_eq!(observe(&mut state, of(30 * DAY), 31 * DAY), []);
    assert_eq!(observe(&mut state, of(210 * DAY), 32 * DAY), []);
}

#[test]
fn the_key_of_a_peer_ends_by_the_word_of_tailscaled_too() {
    let mut state = State::default();
    assert_eq!(observe(&mut state, reading(direct()), 0), []);
    let expired = || Peer { is_expired: true, ..direct() };
    assert_eq!(observe(&mut state, reading(expired()), 1), [told(Kind::TunnelKeyExpired, "node2")]);
    assert_eq!(observe(&mut state, reading(expired()), 2), []);
    // What had ended before the agent came is no news.
    assert_eq!(observe(&mut State::default(), reading(expired()), 3), []);
}

#[test]
fn a_route_that_nobody_approves_is_told_after_a_while() {
    let route: IpNet = "10.42.3.0/24".parse().unwrap();
    let of = |is_approved: bool| {
        let mut reading = reading(direct());
        reading.advertised = Some(vec![route]);
        reading.own.allowed = if is_approved { vec![route] } else { Vec::new() };
        reading
    };
    let mut state = State::default();
    assert_eq!(observe(&mut state, of(false), 0), []);
    assert_eq!(observe(&mut state, of(true), 5), []);
    assert_eq!(observe(&mut state, of(false), 6), []);
    assert_eq!(observe(&mut state, of(false), 15), []);
    let unapproved = told(Kind::TunnelRouteUnapproved, "10.42.3.0/24");
    assert_eq!(observe(&mut state, of(false), 16), [unapproved]);
    assert_eq!(observe(&mut state, of(false), 30), []);
    let approved = told(Kind::TunnelRouteApproved, "10.42.3.0/24");
    assert_eq!(observe(&mut state, of(true), 31), [approved]);
    assert_eq!(routes(&of(true)), BTreeMap::from([(route, true)]));
}

#[test]
fn a_tunnel_that_rides_on_the_overlay_is_told() {
    let mut state = State::default();
    state.set_inner(vec!["10.42.0.0/16".parse().unwrap()]);
    let inside = Peer { endpoint: Some("10.42.2.0:41641".parse().unwrap()), ..direct() };
    assert_eq!(observe(&mut state, reading(direct()), 0), []);
    let text = "node2 endpoint=10.42.2.0:41641 path=direct";
    assert_eq!(observe(&mut state, reading(inside), 1), [told(Kind::TunnelPeerNested, text)]);
    // On the relay there is no address, and nothing is known.
    assert_eq!(observe(&mut state, reading(derp()), 2).len(), 1);
    let events = observe(&mut state, reading(direct()), 3);
    assert!(events.iter().any(|(kind, _)| *kind == Kind::TunnelPeerUnnested), "{events:?}");
}

#[test]
fn a_peer_that_does_not_answer_is_told_and_so_is_that_it_does() {
    let mut state = State::default();
    let of = |received, transmitted| {
        reading(Peer { received: Some(received), transmitted: Some(transmitted), ..direct() })
    };
    let mut events = Vec::new();
    for second in 0..30 {
        events.extend(observe(&mut state, of(100, 100 + second * 50), second));
    }
    events.extend(observe(&mut state, of(200, 1_600), 30));
    let kinds: Vec<Kind> = events.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::TunnelPeerSilent, Kind::TunnelPeerHeard]);
}

#[test]
fn peers_that_are_spoken_to_take_the_place_of_those_that_never_were() {
    let unused = || Peer { path: Some(PeerPath::Idle), is_online: Some(true), ..Peer::default() };
    let mut reading = reading(direct());
    reading.peers = (0..300).map(|n| (format!("exit{n:03}"), unused())).collect();
    let mut state = State::default();
    observe(&mut state, reading.clone(), 0);
    assert_eq!(state.peers.len(), MOST_PEERS);
    assert!(!state.peers.contains_key("exit299"));
    reading.peers.insert("exit299".to_owned(), direct());
    observe(&mut state, reading.clone(), 1);
    assert!(state.peers.contains_key("exit299") && state.peers.len() == MOST_PEERS);
    assert_eq!(state.peers(&reading).count(), MOST_PEERS);
    reading.peers.retain(|name, _| name == "exit299");
    observe(&mut state, reading, 2);
    assert_eq!(state.peers.len(), 1);
}
