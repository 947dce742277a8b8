//! What real packets say. The corpus holds the first bytes of one packet a file: tailscaled 1.102.5, on the device of a
//! node that speaks with another one directly and through a peer relay.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::wire::disco::Kind;
use crate::wire::property;

const SEED: u64 = 0x7a11_7a12;
const MUTATIONS: usize = 100_000;

fn all() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/wire/tunnel/corpus");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

fn named(name: &str) -> Vec<u8> {
    all().into_iter().find(|(known, _)| known == name).unwrap().1
}

#[test]
fn every_packet_of_the_corpus_is_what_its_name_says() {
    let packets = all();
    assert!(packets.len() >= 9, "{}", packets.len());
    for (name, packet) in packets {
        let observation = observe(&packet);
        let kind = match observation.map(|seen| seen.message) {
            None => "none",
            Some(Message::Disco(Disco { kind: Kind::Ping, .. })) => "disco-ping",
            Some(Message::Disco(Disco { kind: Kind::Pong, .. })) => "disco-pong",
            Some(Message::Disco(Disco { kind: Kind::Other, .. })) => "disco-other",
            Some(Message::Handshake(Handshake::Initiation { .. })) => "handshake-initiation",
            Some(Message::Handshake(Handshake::Response { .. })) => "handshake-response",
        };
        assert!(name.starts_with(kind), "{name}: {observation:?}");
        if kind != "none" {
            let is_relayed = name.ends_with("-relayed");
            assert_eq!(observation.unwrap().session.is_some(), is_relayed, "{name}");
        }
    }
}

#[test]
fn the_ends_and_the_session_are_those_of_the_headers() {
    let relayed = observe(&named("disco-ping-relayed")).unwrap();
    let ends = ["192.168.56.11:41641", "192.168.56.13:40000"].map(|text| text.parse().unwrap());
    assert!(ends.contains(&relayed.source) && ends.contains(&relayed.destination), "{relayed:?}");
    assert_eq!(relayed.session, Some(1));
}

#[test]
fn a_ping_and_the_pong_of_the_other_end_have_two_keys() {
    let key = |name: &str| match observe(&named(name)).unwrap().message {
        Message::Disco(disco) => disco.key,
        Message::Handshake(_) => panic!("{name}"),
    };
    assert_ne!(key("disco-ping"), key("disco-pong"));
}

#[test]
fn a_foreign_geneve_tunnel_is_not_looked_into() {
    let packet = named("disco-ping-relayed");
    // An option, a version, another protocol, a reserved byte: 28 is where the header begins.
    for (at, value) in [(28, 0x01), (28, 0x40), (29, 0x81), (30, 0x65), (31, 0x13), (35, 0x01)] {
        let mut other = packet.clone();
        other[at] = value;
        assert_eq!(observe(&other), None, "{value:#x} at {at}");
    }
}

#[test]
fn what_is_cut_within_its_clear_part_is_none() {
    for (name, least) in
        [("disco-ping", 28 + 38), ("handshake-initiation", 28 + 8), ("handshake-response", 28 + 12)]
    {
        let packet = named(name);
        for end in 0..packet.len() {
            assert_eq!(observe(&packet[..end]).is_some(), end >= least, "{name}, {end} bytes");
        }
    }
}

#[test]
fn no_mutation_of_a_real_packet_panics() {
    let mut seed = SEED;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed & 0xffff).unwrap()
    };
    let packets = all();
    for _ in 0..MUTATIONS {
        let mut packet = packets[next() % packets.len()].1.clone();
        for _ in 0..=next() % 4 {
            let at = next() % packet.len();
            packet[at] = u8::try_from(next() & 0xff).unwrap();
        }
        packet.truncate(next() % (packet.len() + 1));
        property::tunnel(&packet);
    }
}
