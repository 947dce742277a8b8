//! The handshake of `WireGuard` (its white paper, 5.4.2 and 5.4.3): an initiation and the response that names it. Both have
//! one length only.

const INITIATION: usize = 148;
const RESPONSE: usize = 92;

/// A message of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// The first message.
    Initiation {
        /// The number by which its sender will know the session.
        sender: u32,
    },
    /// The answer.
    Response {
        /// The same number of who answers.
        sender: u32,
        /// The number of the initiation.
        receiver: u32,
    },
}

/// Reads a payload of that length of which the beginning was captured; `None` where it is no message of a handshake.
pub(super) fn parse(payload: &[u8], length: usize) -> Option<Handshake> {
    let (kind, rest) = payload.split_first_chunk::<4>()?;
    let (sender, rest) = rest.split_first_chunk::<4>()?;
    let sender = u32::from_le_bytes(*sender);
    match (kind, length) {
        ([1, 0, 0, 0], INITIATION) => Some(Handshake::Initiation { sender }),
        ([2, 0, 0, 0], RESPONSE) => {
            let receiver = u32::from_le_bytes(*rest.first_chunk::<4>()?);
            Some(Handshake::Response { sender, receiver })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::hex;

    #[test]
    fn a_response_names_its_initiation() {
        let initiation = hex("01000000 cdd2b7e1 00");
        assert_eq!(parse(&initiation, 148), Some(Handshake::Initiation { sender: 0xe1b7_d2cd }));
        let response = hex("02000000 a541b3b3 cdd2b7e1 00");
        let expected = Handshake::Response { sender: 0xb3b3_41a5, receiver: 0xe1b7_d2cd };
        assert_eq!(parse(&response, 92), Some(expected));
    }

    #[test]
    fn another_length_or_type_is_no_handshake() {
        let (initiation, response) = (hex("01000000 00000000 00000000"), hex("02000000 00000000 00000000"));
        for length in [0, 91, 92, 93, 147, 149] {
            assert_eq!(parse(&initiation, length), None, "{length}");
        }
        for length in [91, 93, 148] {
            assert_eq!(parse(&response, length), None, "{length}");
        }
        for other in
            ["04000000 00000000 00000000", "03000000 00000000 00000000", "01000001 00000000 00000000"]
        {
            assert_eq!(parse(&hex(other), 148), None, "{other}");
        }
        assert_eq!(parse(&response[..11], 92), None);
        assert_eq!(parse(&initiation[..7], 148), None);
    }
}
