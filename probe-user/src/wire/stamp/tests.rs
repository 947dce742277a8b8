//! Packets byte by byte, as the figures of RFC 8762 and RFC 8972 have them.

use super::*;
use crate::wire::tests::hex;

/// 2026-11-24 00:00:00.5 UTC.
const MOMENT: u64 = 1_795_478_400_500_000_000;

pub(super) const REQUEST: Request = Request {
    sequence: 0x0102_0304,
    timestamp: Timestamp(0x1112_1314_1516_1718),
    error: ErrorEstimate(0x2122),
    ssid: 0x3132,
};

pub(super) const REPLY: Reply = Reply {
    sequence: 0x4142_4344,
    timestamp: Timestamp(0x5152_5354_5556_5758),
    error: ErrorEstimate(0x6162),
    ssid: 0x3132,
    received: Timestamp(0x7172_7374_7576_7778),
    sender_sequence: 0x0102_0304,
    sender_timestamp: Timestamp(0x1112_1314_1516_1718),
    sender_error: ErrorEstimate(0x2122),
    sender_ttl: 0x40,
};

/// The follow-up's TLV of a sender.
const EMPTY_FOLLOW_UP: &str = "80070010 00000000 00000000 00000000 00000000";
const EMPTY_MAC: &str = "80080010 00000000 00000000 00000000 00000000";

fn unauthenticated_request() -> Vec<u8> {
    hex("01020304 1112131415161718 2122 3132 00000000000000 00000000000000 00000000000000 00000000000000")
}

fn authenticated_request() -> Vec<u8> {
    [hex("01020304"), vec![0; 12], hex("1112131415161718 2122 3132"), vec![0; 68], vec![0; 16]].concat()
}

fn unauthenticated_reply() -> Vec<u8> {
    hex("41424344 5152535455565758 6162 3132 7172737475767778 01020304 1112131415161718 2122 0000 40 000000")
}

fn authenticated_reply() -> Vec<u8> {
    [
        hex("41424344"),
        vec![0; 12],
        hex("5152535455565758 6162 3132 00000000 7172737475767778 0000000000000000 01020304"),
        vec![0; 12],
        hex("1112131415161718 2122 000000000000 40"),
        vec![0; 15],
        vec![0; 16],
    ]
    .concat()
}

#[test]
fn packets_have_the_lengths_of_the_rfc() {
    let lengths =
        [unauthenticated_request(), unauthenticated_reply(), authenticated_request(), authenticated_reply()]
            .map(|packet| packet.len());
    assert_eq!(lengths, [44, 44, 112, 112]);
}

#[test]
fn a_request_is_made_and_read_field_by_field() {
    for (mode, packet, more) in [
        (Mode::Unauthenticated, unauthenticated_request(), vec![EMPTY_FOLLOW_UP]),
        (Mode::Authenticated, authenticated_request(), vec![EMPTY_FOLLOW_UP, EMPTY_MAC]),
    ] {
        assert_eq!(Request::parse(&packet, mode), Ok(REQUEST));
        assert_eq!(REQUEST.encode(mode), [packet, hex(&more.concat())].concat());
    }
}

#[test]
fn a_reply_is_made_and_read_field_by_field() {
    for (mode, request, packet) in [
        (Mode::Unauthenticated, unauthenticated_request(), unauthenticated_reply()),
        (Mode::Authenticated, authenticated_request(), authenticated_reply()),
    ] {
        assert_eq!(Reply::parse(&packet, mode), Ok(REPLY));
        assert_eq!(REPLY.encode(&request, mode, FollowUp::default()), packet);
    }
}

#[test]
fn the_answer_fills_in_what_it_knows_and_flags_what_it_does_not() {
    let follow_up = FollowUp { sequence: 0x4142_4343, timestamp: Timestamp(0x8182_8384_8586_8788) };
    // Padding, a type of the future, the follow-up, and one that ends beyond the packet.
    let tlvs = "80010002 abcd 80c80001 ee 80070010 00000000 00000000 00000000 00000000 80020008 ff";
    let request = [unauthenticated_request(), hex(tlvs)].concat();
    let answer = REPLY.encode(&request, Mode::Unauthenticated, follow_up);
    let expected = "00010002 abcd 80c80001 ee 00070010 41424343 8182838485868788 02000000 40020008 ff";
    assert_eq!(answer, [unauthenticated_reply(), hex(expected)].concat());
    let read: Vec<_> = super::tlvs(&answer, Mode::Unauthenticated).collect();
    assert_eq!(read.len(), 4);
    assert_eq!(FollowUp::read(read[2].as_ref().unwrap()), Some(follow_up));
    assert_eq!(read[3], Err(Fault::BadTlv));
}

/// Whoever has no key can neither check a code nor make one.
#[test]
fn a_code_is_not_understood_without_a_key() {
    let tlvs = "80070010 00000000 00000000 00000000 00000000 80080010 01020304 05060708 090a0b0c 0d0e0f10";
    let request = [unauthenticated_request(), hex(tlvs)].concat();
    let answer = REPLY.encode(&request, Mode::Unauthenticated, FollowUp::default());
    let expected =
        "00070010 00000000 00000000 00000000 00000000 80080010 01020304 05060708 090a0b0c 0d0e0f10";
    assert_eq!(answer, [unauthenticated_reply(), hex(expected)].concat());
}

#[test]
fn a_follow_up_that_nobody_filled_in_says_nothing() {
    let request = REQUEST.encode(Mode::Unauthenticated);
    let answer = REPLY.encode(&request, Mode::Unauthenticated, FollowUp::default());
    for packet in [request, answer] {
        let tlv = tlvs(&packet, Mode::Unauthenticated).next().unwrap().unwrap();
        assert_eq!((tlv.kind, FollowUp::read(&tlv)), (TlvKind::FollowUp, None));
    }
}

#[test]
fn the_code_of_the_tlvs_covers_what_stands_before_it() {
    let packet = REQUEST.encode(Mode::Authenticated);
    let place = mac_place(&packet, Mode::Authenticated).unwrap().unwrap();
    assert_eq!(place, MacPlace { covered: 112..132, code: 136..152, flags: 0x80 });
    assert_eq!(packet.len(), 152);
    let padded = [packet.clone(), hex("80010001 00")].concat();
    assert_eq!(mac_place(&padded, Mode::Authenticated), Ok(Some(place)));
    let uncovered = [packet, hex(EMPTY_FOLLOW_UP)].concat();
    assert_eq!(mac_place(&uncovered, Mode::Authenticated), Err(Fault::BadTlv));
    assert_eq!(mac_place(&authenticated_request(), Mode::Authenticated), Ok(None));
}

#[test]
fn what_is_cut_or_corrupt_is_refused() {
    for (mode, request, reply) in [
        (Mode::Unauthenticated, unauthenticated_request(), unauthenticated_reply()),
        (Mode::Authenticated, authenticated_request(), authenticated_reply()),
    ] {
        for length in 0..mode.length() {
            assert_eq!(Request::parse(&request[..length], mode), Err(Fault::Truncated));
            assert_eq!(Reply::parse(&reply[..length], mode), Err(Fault::Truncated));
        }
    }
    let mut request = unauthenticated_request();
    request[13] = 0;
    assert_eq!(Request::parse(&request, Mode::Unauthenticated), Err(Fault::BadErrorEstimate));
}

#[test]
fn a_moment_survives_its_way_through_the_format() {
    assert_eq!(Timestamp::from_unix_nanos(MOMENT), Timestamp(0xeeaf_5200_8000_0000));
    assert_eq!(Timestamp::from_unix_nanos(0), Timestamp(NTP_TO_UNIX << 32));
    for nanos in [
        0,
        1,
        999_999_999,
        MOMENT,
        MOMENT + 1,
        MOMENT + 333_333_333,
        2_085_978_495 * NANOS,
        4_000_000_000 * NANOS + 7,
    ] {
        assert_eq!(Timestamp::from_unix_nanos(nanos).unix_nanos(), nanos);
    }
}

#[test]
fn the_times_of_a_reply_are_in_the_format_that_it_names() {
    let reply = |error| Reply { error: ErrorEstimate(error), ..REPLY };
    let time = Timestamp((0x6b04_e000 << 32) | 7);
    assert_eq!(reply(0x4c01).nanos(time), 0x6b04_e000 * NANOS + 7);
    assert_eq!(reply(0x0c01).nanos(time), time.unix_nanos());
    // More nanoseconds than a second has: whoever says so is believed, and nothing overflows.
    assert_eq!(reply(0x4c01).nanos(Timestamp(u64::MAX)), u64::from(u32::MAX) * (NANOS + 1));
}

#[test]
fn our_error_estimate_is_a_microsecond_of_an_ntp_clock() {
    let ErrorEstimate(bits) = ErrorEstimate::UNSYNCHRONIZED;
    assert_eq!((bits >> 15, ErrorEstimate::UNSYNCHRONIZED.is_ptp()), (0, false));
    let error = f64::from(bits & 0xff) * 2_f64.powi(i32::from(bits >> 8 & 0x3f) - 32);
    assert!((error - 1e-6).abs() < 1e-7, "{error}");
}

#[test]
fn a_padded_request_has_the_length_that_was_asked_for_and_else_its_own() {
    for mode in [Mode::Unauthenticated, Mode::Authenticated] {
        let plain = REQUEST.encode(mode);
        let shortest = plain.len() + tlv::HEADER;
        for length in [shortest, shortest + 1, 1_472, 9_188] {
            let padded = REQUEST.encode_padded(mode, length);
            assert_eq!((padded.len(), Request::parse(&padded, mode)), (length, Ok(REQUEST)));
            assert!(tlvs(&padded, mode).all(|tlv| tlv.is_ok()), "{mode:?}, {length}");
            assert_eq!(mac_place(&padded, mode).unwrap().is_some(), mode == Mode::Authenticated);
        }
        assert_eq!(REQUEST.encode_padded(mode, shortest - 1), plain);
    }
}
