//! What a datagram at the port of this node's probes says. Pure.
//!
//! Any reflector that conforms to RFC 8762 is understood, whatever it knows of RFC 8972. Of one that leaves follow-ups
//! alone the times of its packet itself count; one that knows no session identifiers leaves zeros in their place.

use super::state::{Heard, Ignored};
use crate::wire::stamp::{Authenticator, Extent, FollowUp, Reply, tlvs};

/// The session of an answer that came at that time of the wall clock, 0 where the reflector tells none, and what it says.
///
/// # Errors
/// Why it is not used.
pub fn read(packet: &[u8], authenticator: &Authenticator, arrived: u64) -> Result<(u16, Heard), Ignored> {
    let extent = authenticator.extent(packet).ok_or(Ignored::Unauthenticated)?;
    let mode = authenticator.mode();
    let reply = Reply::parse(packet, mode).ok().ok_or(Ignored::Malformed)?;
    let follow_up = (extent == Extent::Whole)
        .then(|| tlvs(packet, mode).map_while(Result::ok).find_map(|tlv| FollowUp::read(&tlv)))
        .flatten();
    let is_timed = |up: &FollowUp| up.timestamp.0 != 0;
    let heard = Heard {
        sequence: reply.sender_sequence,
        reflector: reply.sequence,
        // A stateless reflector does neither of both (RFC 8762, 4.3.1; RFC 8972, 4.7).
        is_counted: reply.sequence != reply.sender_sequence || follow_up.is_some(),
        received: reply.nanos(reply.received),
        sent: reply.nanos(reply.timestamp),
        arrived,
        follow_up: follow_up.filter(is_timed).map(|up| (up.sequence, reply.nanos(up.timestamp))),
    };
    Ok((reply.ssid, heard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stamp::{ErrorEstimate, Key, Mode, Request, Timestamp};

    const NANOS: u64 = 1_000_000_000;
    const AT: u64 = 1_795_478_400 * NANOS;
    const PTP: ErrorEstimate = ErrorEstimate(0x4c01);

    fn key() -> Authenticator {
        Authenticator::new(Some(Key::new(&[7; 32])))
    }

    fn request(mode: Mode) -> Vec<u8> {
        Request { sequence: 40, timestamp: Timestamp(9), error: ErrorEstimate::UNSYNCHRONIZED, ssid: 3 }
            .encode(mode)
    }

    /// The answer of a reflector to that, whose number of it is `sequence`.
    fn reply(sequence: u32) -> Reply {
        Reply {
            sequence,
            timestamp: Timestamp::from_unix_nanos(AT + 5),
            error: ErrorEstimate::UNSYNCHRONIZED,
            ssid: 3,
            received: Timestamp::from_unix_nanos(AT),
            sender_sequence: 40,
            sender_timestamp: Timestamp(9),
            sender_error: ErrorEstimate::UNSYNCHRONIZED,
            sender_ttl: 64,
        }
    }

    fn heard(packet: &[u8], authenticator: &Authenticator) -> Result<Heard, Ignored> {
        read(packet, authenticator, AT + 9).map(|(_, heard)| heard)
    }

    /// What a reflector says in the open, with that follow-up.
    fn open(sequence: u32, follow_up: FollowUp) -> Heard {
        let mode = Mode::Unauthenticated;
        heard(&reply(sequence).encode(&request(mode), mode, follow_up), &Authenticator::default()).unwrap()
    }

    #[test]
    fn a_reflector_that_repeats_our_numbers_and_follows_up_on_nothing_does_not_count() {
        let timed = FollowUp { sequence: 39, timestamp: Timestamp::from_unix_nanos(AT - 1) };
        let untimed = FollowUp { timestamp: Timestamp::default(), ..timed };
        for (sequence, follow_up, is_counted, told) in [
            (40, FollowUp::default(), false, None),
            (38, FollowUp::default(), true, None),
            (40, untimed, true, None),
            (40, timed, true, Some((39, AT - 1))),
        ] {
            let heard = open(sequence, follow_up);
            assert_eq!((heard.is_counted, heard.follow_up), (is_counted, told), "{sequence} {follow_up:?}");
            assert_eq!((heard.received, heard.sent, heard.arrived), (AT, AT + 5, AT + 9));
        }
    }

    #[test]
    fn times_are_read_in_the_format_that_the_reflector_names() {
        let ptp = |nanos: u64| Timestamp(((nanos / NANOS) << 32) | (nanos % NANOS));
        let reply = Reply { timestamp: ptp(AT + 5), received: ptp(AT), error: PTP, ..reply(40) };
        let follow_up = FollowUp { sequence: 39, timestamp: ptp(AT - 1) };
        let packet = reply.encode(&request(Mode::Unauthenticated), Mode::Unauthenticated, follow_up);
        let heard = heard(&packet, &Authenticator::default()).unwrap();
        assert_eq!((heard.received, heard.sent, heard.follow_up), (AT, AT + 5, Some((39, AT - 1))));
    }

    #[test]
    fn a_reflector_that_knows_no_tlvs_is_believed_without_them() {
        let mode = Mode::Unauthenticated;
        let asked = request(mode);
        let base = reply(40).encode(&asked[..mode.length()], mode, FollowUp::default());
        // Cut, as it was sent, and overwritten.
        for tlvs in [&[][..], &asked[mode.length()..], &[0; 20][..]] {
            let packet = [&base, tlvs].concat();
            let heard = heard(&packet, &Authenticator::default()).unwrap();
            assert_eq!((heard.is_counted, heard.follow_up), (false, None), "{tlvs:?}");
        }
    }

    #[test]
    fn with_a_key_what_no_code_covers_is_not_believed() {
        let mode = Mode::Authenticated;
        let follow_up = FollowUp { sequence: 39, timestamp: Timestamp::from_unix_nanos(AT - 1) };
        let mut asked = request(mode);
        key().seal(&mut asked);
        let mut whole = reply(40).encode(&asked, mode, follow_up);
        key().seal(&mut whole);
        assert_eq!(heard(&whole, &key()).unwrap().follow_up, Some((39, AT - 1)));
        let (base, tlvs) = whole.split_at(mode.length());
        // The follow-up alone; all TLVs, but the flags of the code as they were sent.
        let mut unflagged = whole.clone();
        unflagged[mode.length() + 20] = 0x80;
        for packet in [[base, &tlvs[..20]].concat(), unflagged] {
            let heard = heard(&packet, &key()).unwrap();
            assert_eq!((heard.sequence, heard.is_counted, heard.follow_up), (40, false, None));
        }
        let mut forged = whole.clone();
        forged[mode.length() + 19] ^= 1;
        assert_eq!(heard(&forged, &key()), Err(Ignored::Unauthenticated));
        let mut forged = whole;
        forged[3] ^= 1;
        assert_eq!(heard(&forged, &key()), Err(Ignored::Unauthenticated));
    }

    /// It has the code of this key, and no time of a reflector.
    #[test]
    fn our_own_request_is_no_answer() {
        let mut asked = request(Mode::Authenticated);
        key().seal(&mut asked);
        assert_eq!(heard(&asked, &key()), Err(Ignored::Malformed));
        let asked = request(Mode::Unauthenticated);
        assert_eq!(heard(&asked, &Authenticator::default()), Err(Ignored::Malformed));
    }
}
