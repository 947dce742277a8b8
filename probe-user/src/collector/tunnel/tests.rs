//! What a page says of an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::state::Moment;
use super::*;
use crate::event::Timestamp;
use crate::metric::Format;
use crate::source::tailscale::{Backend, Own, Peer, PeerPath, Reading};

fn collector(known: &Known) -> Tunnel {
    Tunnel::new(known.clone(), Heard::default(), || 0)
}

fn page(known: &Known) -> String {
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, Format::Text004);
    collector(known).collect(&mut sink).unwrap();
    sink.finish();
    String::from_utf8(out).unwrap()
}

fn reading(peer: Peer) -> Reading {
    Reading {
        process: Some(1),
        version: Some("1.102.5".to_owned()),
        backend: Backend::Running,
        health: Some(2),
        own: Own { name: Some("node1".to_owned()), is_online: Some(true), ..Own::default() },
        advertised: Some(Vec::new()),
        peers: BTreeMap::from([("node2".to_owned(), peer)]),
    }
}

fn after(reading: Reading) -> Known {
    let known = Known::default();
    let at = Moment { now: Duration::ZERO, time: Timestamp::from_unix_nanos(100_000_000_000) };
    let mut state = known.lock();
    state.set_inner(vec!["10.42.0.0/16".parse().unwrap()]);
    state.observe("/run/t.sock".into(), reading, at);
    drop(state);
    known
}

#[test]
fn a_path_is_one_of_four_and_a_state_one_of_seven() {
    let known = after(reading(Peer {
        path: Some(PeerPath::PeerRelay),
        endpoint: Some("10.42.3.0:40000".parse().unwrap()),
        is_online: Some(true),
        key_expiry: Some(Timestamp::from_unix_nanos(7_500_000_000)),
        handshake: Some(Timestamp::from_unix_nanos(99_500_000_000)),
        received: Some(1_234),
        transmitted: Some(5),
        ..Peer::default()
    }));
    let page = page(&known);
    let of = |name: &str| page.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    let paths = of("leadline_tunnel_peer_path{");
    assert_eq!(paths.len(), 4);
    let set: Vec<_> = paths.into_iter().filter(|line| line.ends_with(" 1")).collect();
    assert_eq!(set, [r#"leadline_tunnel_peer_path{peer="node2",path="peer_relay"} 1"#]);
    assert_eq!(of("leadline_tunnel_state{").len(), 7);
    for line in [
        r#"leadline_tunnel_state{state="running"} 1"#,
        r#"leadline_tunnel_info{version="1.102.5",socket="/run/t.sock"} 1"#,
        "leadline_tunnel_online 1",
        "leadline_tunnel_health_messages 2",
        r#"leadline_tunnel_peer_endpoint{peer="node2",endpoint="10.42.3.0:40000"} 1"#,
        r#"leadline_tunnel_peer_nested{peer="node2"} 1"#,
        r#"leadline_tunnel_peer_handshake_timestamp_seconds{peer="node2"} 99.5"#,
        r#"leadline_tunnel_peer_key_expiry_timestamp_seconds{peer="node2"} 7.5"#,
        r#"leadline_tunnel_peer_key_expired{peer="node2"} 0"#,
        r#"leadline_tunnel_peer_receive_bytes_total{peer="node2"} 1234"#,
        r#"leadline_tunnel_peer_transmit_bytes_total{peer="node2"} 5"#,
        r#"leadline_tunnel_peer_path_changes_total{peer="node2"} 0"#,
        r#"leadline_tunnel_peer_one_way{peer="node2"} 0"#,
        r#"leadline_tunnel_omitted{subject="peer"} 0"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    assert_eq!(collector(&known).support(), Support::Yes);
}

#[test]
fn what_tailscaled_does_not_say_is_absent() {
    let mut reading = reading(Peer::default());
    (reading.own.is_online, reading.health, reading.advertised) = (None, None, None);
    let known = after(reading);
    let page = page(&known);
    for absent in [
        "_online",
        "peer_path{",
        "endpoint{",
        "nested",
        "handshake",
        "bytes",
        "expiry",
        "one_way",
        "health",
        "route{",
    ] {
        assert!(
            !page.lines().any(|line| !line.starts_with('#') && line.contains(absent)),
            "{absent} in {page}"
        );
    }
    assert_eq!(collector(&known).support(), Support::Degraded(NO_PREFS));
}

#[test]
fn an_offered_route_is_approved_or_not_and_there_are_not_too_many() {
    let mut reading = reading(Peer::default());
    reading.advertised = Some((0..70).map(|n| format!("10.42.{n}.0/24").parse().unwrap()).collect());
    reading.own.allowed = vec!["10.42.1.0/24".parse().unwrap(), "100.64.0.1/32".parse().unwrap()];
    let known = after(reading.clone());
    let shown = page(&known);
    assert!(shown.contains("leadline_tunnel_route_approved{route=\"10.42.1.0/24\"} 1\n"), "{shown}");
    assert!(shown.contains("leadline_tunnel_route_approved{route=\"10.42.2.0/24\"} 0\n"), "{shown}");
    assert!(shown.contains("leadline_tunnel_omitted{subject=\"route\"} 6\n"), "{shown}");
    assert_eq!(collector(&known).support(), Support::Degraded(OMITTED));
    reading.backend = Backend::NeedsLogin;
    assert!(!page(&after(reading)).contains("route_approved{"));
}

#[test]
fn without_an_answer_there_are_no_series_but_a_reason() {
    let known = Known::default();
    let collector = collector(&known);
    let at = Moment { now: Duration::ZERO, time: Timestamp::from_unix_nanos(1) };
    assert_eq!(collector.support(), Support::No(NOT_LOOKED));
    assert_eq!(known.lock().miss(Sight::Absent(NONE), at), None);
    assert_eq!(collector.support(), Support::No("no Tailscale on this node"));
    assert_eq!(known.lock().miss(Sight::Unreadable(LATE), at), None);
    assert_eq!(collector.support(), Support::Degraded(LATE));
    assert!(!page(&known).contains("leadline_tunnel_"));
}

#[test]
fn the_gravest_answer_is_the_reason() {
    let fault = |cause| AskError { socket: "/run/t.sock".into(), cause };
    let found = Candidates { sockets: vec!["/run/t.sock".into()], is_given: false };
    let sight = |candidates: &Candidates, faults: &[AskError]| judge(candidates, faults).0;
    assert_eq!(sight(&found, &[]), Sight::Absent(NONE));
    assert_eq!(sight(&found, &[fault(Cause::Missing)]), Sight::Absent(NONE));
    let faults = [fault(Cause::Missing), fault(Cause::Untrusted(1_000)), fault(Cause::Refused)];
    assert_eq!(sight(&found, &faults), Sight::Unreadable(UNTRUSTED));
    let given = Candidates { is_given: true, ..found };
    assert_eq!(sight(&given, &[fault(Cause::Missing)]), Sight::Unreadable(GIVEN_MISSING));
}
