//! The codes of authenticated packets: HMAC-SHA-256 with a key that both ends have, cut to 128 bits. One covers the packet
//! (RFC 8762, 4.4), another its TLVs (RFC 8972, 4.8).

use std::fmt;
use std::ops::Range;

use ring::hmac;
use subtle::ConstantTimeEq as _;

use super::tlv::{MacPlace, TlvKind, mac_place, tlvs};
use super::{MAC, Mode};

/// The sequence number, which ties the code of the TLVs to its packet.
const SEQUENCE: Range<usize> = 0..4;
/// What the packet's own code covers: six blocks of HMAC's input.
const BLOCKS: Range<usize> = 0..96;
/// Where the packet's own code is.
const OWN_CODE: Range<usize> = 96..96 + MAC;

/// The key of both ends. It is shown nowhere.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Which end has made a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It may do without TLVs, which then need no code.
    Sender,
    /// Ours ask for the follow-up: an answer without the code of its TLVs was cut, or its reflector knows no TLVs.
    Reflector,
}

/// How much of an answer was made by somebody who has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Its fields; what follows them is not to be believed.
    Fields,
    /// Its TLVs as well.
    Whole,
}

impl End {
    /// The flags of the code's own TLV, which no code covers: those of a sender, and those of a reflector that found
    /// nothing wrong.
    const fn flags(self) -> u8 {
        match self {
            Self::Sender => super::tlv::UNRECOGNIZED,
            Self::Reflector => 0,
        }
    }
}

/// A code: what it covers and where it is.
struct Code {
    covered: [Range<usize>; 2],
    place: Range<usize>,
}

impl Code {
    const OWN: Self = Self { covered: [BLOCKS, 0..0], place: OWN_CODE };

    const fn of_tlvs(place: MacPlace) -> Self {
        Self { covered: [SEQUENCE, place.covered], place: place.code }
    }
}

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    fn tag(&self, packet: &[u8], covered: &[Range<usize>]) -> Option<hmac::Tag> {
        let mut context = hmac::Context::with_key(&self.0);
        for part in covered {
            context.update(packet.get(part.clone())?);
        }
        Some(context.sign())
    }

    fn write(&self, packet: &mut [u8], code: &Code) {
        let Some(tag) = self.tag(packet, &code.covered) else { return };
        let place = packet.get_mut(code.place.clone()).unwrap_or_default();
        for (byte, right) in place.iter_mut().zip(tag.as_ref()) {
            *byte = *right;
        }
    }

    /// Whether a code is the right one. How long that takes does not tell how much of it is right.
    fn fits(&self, packet: &[u8], code: &Code) -> bool {
        let tag = self.tag(packet, &code.covered);
        let right = tag.as_ref().and_then(|tag| tag.as_ref().get(..MAC));
        let told = packet.get(code.place.clone());
        right.zip(told).is_some_and(|(right, told)| right.ct_eq(told).into())
    }

    fn accepts(&self, packet: &[u8], from: End) -> bool {
        if !self.fits(packet, &Code::OWN) {
            return false;
        }
        match mac_place(packet, Mode::Authenticated) {
            Ok(Some(place)) => place.flags == from.flags() && self.fits(packet, &Code::of_tlvs(place)),
            Ok(None) => from == End::Sender && is_bare(packet),
            Err(_) => false,
        }
    }
}

/// Whether an answer has TLVs as a reflector leaves them that knows none (RFC 8762): as they were sent, cut off, or
/// overwritten. A code that a reflector has made, and that is wrong, is none of that.
fn is_unaware(answer: &[u8]) -> bool {
    match mac_place(answer, Mode::Authenticated) {
        Ok(Some(place)) => place.flags == End::Sender.flags(),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Whether nothing but padding follows a packet.
fn is_bare(packet: &[u8]) -> bool {
    let mut tlvs = tlvs(packet, Mode::Authenticated);
    tlvs.all(|tlv| tlv.is_ok_and(|tlv| tlv.kind == TlvKind::ExtraPadding))
}

/// Gives codes to packets and checks those of others, where there is a key; without one there are no codes.
#[derive(Clone, Debug, Default)]
pub struct Authenticator(Option<Key>);

impl Authenticator {
    /// With that key, if there is one.
    #[must_use]
    pub const fn new(key: Option<Key>) -> Self {
        Self(key)
    }

    /// The mode of all packets.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        if self.0.is_some() { Mode::Authenticated } else { Mode::Unauthenticated }
    }

    /// Writes the codes of a packet that is complete otherwise.
    pub fn seal(&self, packet: &mut [u8]) {
        let Some(key) = &self.0 else { return };
        key.write(packet, &Code::OWN);
        if let Ok(Some(place)) = mac_place(packet, Mode::Authenticated) {
            key.write(packet, &Code::of_tlvs(place));
        }
    }

    /// Whether somebody who has the key made the packet, as that end makes it. Without a key anybody may.
    #[must_use]
    pub fn accepts(&self, packet: &[u8], from: End) -> bool {
        self.0.as_ref().is_none_or(|key| key.accepts(packet, from))
    }

    /// How much of an answer is to be believed; none where nothing is. Without a key all is.
    #[must_use]
    pub fn extent(&self, answer: &[u8]) -> Option<Extent> {
        if self.accepts(answer, End::Reflector) {
            return Some(Extent::Whole);
        }
        let key = self.0.as_ref()?;
        (key.fits(answer, &Code::OWN) && is_unaware(answer)).then_some(Extent::Fields)
    }
}

#[cfg(test)]
mod tests;
