//! Disco, by which tailscaled looks for the way to a peer and watches it. Everything but the sender is sealed, so that a
//! packet is known by its length: pings are of 124 bytes, or longer where they are padded to find the MTU, pongs of 110.

/// "TS" and a speech bubble.
const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
/// Behind the magic number and the key: a nonce, and the seal's own bytes.
const SEAL: usize = 24 + 16;
const PING: usize = 124;
const PONG: usize = 110;
/// No other message of today is so long: a packet that is one is a padded ping.
const PADDED: usize = 200;

/// The public key by which a daemon is known while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoKey(pub [u8; 32]);

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks whether this way is one.
    Ping,
    /// Says so.
    Pong,
    /// About relays and other addresses.
    Other,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disco {
    /// Who sends it.
    pub key: DiscoKey,
    /// What it is.
    pub kind: Kind,
}

/// Whether a payload begins as one does.
pub(super) fn is_one(payload: &[u8]) -> bool {
    payload.starts_with(&MAGIC)
}

/// Reads a payload of that length of which the beginning was captured; `None` where it is too short.
pub(super) fn parse(payload: &[u8], length: usize) -> Option<Disco> {
    let (key, rest) = payload.strip_prefix(&MAGIC)?.split_first_chunk::<32>()?;
    let sealed = length.checked_sub(payload.len() - rest.len())?;
    let kind = match length {
        PING | PADDED.. => Kind::Ping,
        PONG => Kind::Pong,
        _ => Kind::Other,
    };
    (sealed >= SEAL).then_some(Disco { key: DiscoKey(*key), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Vec<u8> {
        [&MAGIC[..], &[7; 32], &[0; 8]].concat()
    }

    #[test]
    fn a_packet_is_known_by_its_length() {
        let kind = |length| parse(&payload(), length).map(|disco| disco.kind);
        for (lengths, expected) in [
            (&[124, 200, 1252, 1472][..], Some(Kind::Ping)),
            (&[110], Some(Kind::Pong)),
            (&[78, 116, 148, 152, 199], Some(Kind::Other)),
            (&[0, 46, 77], None),
        ] {
            for length in lengths {
                assert_eq!(kind(*length), expected, "{length}");
            }
        }
        assert_eq!(parse(&payload(), 110).unwrap().key, DiscoKey([7; 32]));
    }

    #[test]
    fn without_the_whole_magic_number_and_key_it_is_none() {
        for end in 0..38 {
            assert_eq!(parse(&payload()[..end], 124), None, "{end} bytes");
        }
        assert!(is_one(&payload()) && !is_one(&payload()[1..]));
        let mut other = payload();
        other[5] = 0xad;
        assert!(!is_one(&other));
        assert_eq!(parse(&other, 124), None);
    }
}
