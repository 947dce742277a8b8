//! Codes as RFC 4231 and Python's `hmac` have them, and packets that somebody has changed.

use super::super::tests::{REPLY, REQUEST};
use super::super::{FollowUp, Reply, Request, Timestamp};
use super::*;
use crate::wire::tests::hex;

/// Of a packet with a follow-up: its own code, the flags of the other one, and that.
const PLACES: [Range<usize>; 2] = [96..112, 136..152];
const FLAGS_AT: usize = 132;

/// With the key 10 11 12 … 2f.
fn ours() -> Authenticator {
    Authenticator::new(Some(Key::new(&(0x10..0x30).collect::<Vec<u8>>())))
}

fn request() -> Vec<u8> {
    let mut packet = REQUEST.encode(Mode::Authenticated);
    ours().seal(&mut packet);
    packet
}

fn reply() -> Vec<u8> {
    let follow_up = FollowUp { sequence: 0x4142_4343, timestamp: Timestamp(0x8182_8384_8586_8788) };
    let mut packet = REPLY.encode(&request(), Mode::Authenticated, follow_up);
    ours().seal(&mut packet);
    packet
}

fn both() -> [(Vec<u8>, End); 2] {
    [(request(), End::Sender), (reply(), End::Reflector)]
}

#[test]
fn codes_are_those_of_rfc_4231() {
    let text = b"what do ya want for nothing?";
    let long = b"Test Using Larger Than Block-Size Key - Hash Key First";
    for (key, text, code) in [
        (
            vec![0x0b; 20],
            &b"Hi There"[..],
            "b0344c61d8db38535ca8afceaf0bf12b 881dc200c9833da726e9376c2e32cff7",
        ),
        (b"Jefe".to_vec(), text, "5bdcc146bf60754e6a042426089575c7 5a003f089d2739839dec58b964ec3843"),
        (vec![0xaa; 131], long, "60e431591ee0b67f0d8a26aacbf5b77f 8e0bc6213728c5140546040f0ee37f54"),
    ] {
        let (first, second) = (0..text.len() / 2, text.len() / 2..text.len());
        assert_eq!(Key::new(&key).tag(text, &[first, second]).unwrap().as_ref(), hex(code));
    }
    // Cut to 128 bits.
    let mut packet = [&b"Test With Truncation"[..], &[0; MAC]].concat();
    let code = Code { covered: [0..20, 0..0], place: 20..20 + MAC };
    let key = Key::new(&[0x0c; 20]);
    key.write(&mut packet, &code);
    assert_eq!(packet[20..], hex("a3b6167473100ee06e0c796c2955552b"));
    assert!(key.fits(&packet, &code));
}

#[test]
fn codes_of_packets_are_pythons() {
    for (packet, codes) in [
        (request(), ["fee166636d20fa572a300ead6ff4a581", "1e50150039edcc5676293ba4c1909544"]),
        (reply(), ["a65819732ba500c69784e2783a8bee9a", "71cbadf475e7ebeccb61b12478453fa7"]),
    ] {
        assert_eq!(PLACES.map(|place| packet[place].to_vec()), codes.map(hex));
    }
}

#[test]
fn a_right_code_changes_nothing_else_of_a_packet() {
    for (packet, end) in both() {
        assert!(ours().accepts(&packet, end));
        let mut bare = packet.clone();
        for place in PLACES {
            bare[place].fill(0);
        }
        assert!(!ours().accepts(&bare, end));
        ours().seal(&mut bare);
        assert_eq!(bare, packet);
    }
    assert_eq!(Request::parse(&request(), Mode::Authenticated), Ok(REQUEST));
    assert_eq!(Reply::parse(&reply(), Mode::Authenticated), Ok(REPLY));
    assert_eq!(request().len(), reply().len());
}

#[test]
fn one_flipped_bit_is_refused() {
    for (packet, end) in both() {
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Flags that mean nothing are ignored, and the code's own TLV is covered by nothing.
            let is_ignored = bit / 8 == FLAGS_AT && bit % 8 < 5;
            assert_eq!(ours().accepts(&flipped, end), is_ignored, "bit {bit}, {end:?}");
        }
    }
}

#[test]
fn a_cut_packet_is_refused() {
    for (packet, end) in both() {
        for length in 0..packet.len() {
            // Without any TLV the request is a whole one, in which the reflector reads all that it reads.
            let is_whole = (length, end) == (112, End::Sender);
            assert_eq!(ours().accepts(&packet[..length], end), is_whole, "{length} bytes, {end:?}");
        }
    }
}

#[test]
fn the_packet_of_the_other_end_is_refused() {
    assert!(!ours().accepts(&request(), End::Reflector));
    assert!(!ours().accepts(&reply(), End::Sender));
}

#[test]
fn only_padding_may_do_without_a_code() {
    let bare = request()[..112].to_vec();
    for (tlvs, end, is_accepted) in [
        ("80010002 abcd", End::Sender, true),
        ("80010002 abcd", End::Reflector, false),
        ("80010002", End::Sender, false),
        ("80c80001 ee", End::Sender, false),
        ("80070010 00000000 00000000 00000000 00000000", End::Sender, false),
    ] {
        let packet = [bare.clone(), hex(tlvs)].concat();
        assert_eq!(ours().accepts(&packet, end), is_accepted, "{tlvs}");
    }
    // Padding may follow the code, anything else may not.
    for (tlvs, is_accepted) in [("80010002 abcd", true), ("80c80001 ee", false)] {
        let packet = [request(), hex(tlvs)].concat();
        assert_eq!(ours().accepts(&packet, End::Sender), is_accepted, "{tlvs}");
    }
}

#[test]
fn tlvs_of_another_packet_are_refused() {
    let mut other = Request { sequence: 7, ..REQUEST }.encode(Mode::Authenticated);
    ours().seal(&mut other);
    assert!(ours().accepts(&other, End::Sender));
    let spliced = [&request()[..112], &other[112..]].concat();
    assert!(!ours().accepts(&spliced, End::Sender));
}

#[test]
fn another_key_fits_nothing_and_none_takes_everything() {
    let other = Authenticator::new(Some(Key::new(&[0x10; 32])));
    for (packet, end) in both() {
        assert!(!other.accepts(&packet, end));
    }
    let none = Authenticator::default();
    assert_eq!([none.mode(), other.mode()], [Mode::Unauthenticated, Mode::Authenticated]);
    let mut packet = REQUEST.encode(Mode::Unauthenticated);
    let before = packet.clone();
    none.seal(&mut packet);
    assert!(packet == before && none.accepts(&packet, End::Sender));
    assert!(!ours().accepts(&packet, End::Sender));
}

#[test]
fn the_key_is_not_shown() {
    let key = Key::new(b"a key that is secret");
    let shown = format!("{key:?} {:?}", Authenticator::new(Some(key.clone())));
    assert_eq!(shown, "Key(..) Authenticator(Some(Key(..)))");
}
