//! TLVs behind a STAMP packet (RFC 8972): four bytes of flags, type and length, then the value.

use std::ops::Range;

use super::{Fault, MAC, Mode, Timestamp, field, put};

/// Bytes of flags, type and length.
pub(super) const HEADER: usize = 4;
/// Set by the sender, and by a reflector that does not know the type.
pub(super) const UNRECOGNIZED: u8 = 0x80;
/// Set by a reflector where the length cannot be.
const MALFORMED: u8 = 0x40;
/// Set by a reflector where the code is wrong.
const NO_INTEGRITY: u8 = 0x20;

/// The flags that mean something; a receiver ignores the others (RFC 8972, 4).
const FLAGS: u8 = UNRECOGNIZED | MALFORMED | NO_INTEGRITY;

/// Bytes of the value of a follow-up.
pub const FOLLOW_UP_TLV: usize = 16;
/// Bytes of a whole HMAC TLV.
pub const MAC_TLV: usize = HEADER + MAC;
/// "Software local": how the time of a follow-up was taken (RFC 8972, 4.3).
const SOFTWARE: u8 = 2;

/// The types of which the value is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvKind {
    /// Nothing: it makes the packet longer.
    ExtraPadding,
    /// When the reflector's packet before this one really left.
    FollowUp,
    /// The code of the sequence number and all TLVs before it.
    Mac,
    /// Another one.
    Other(u8),
}

impl TlvKind {
    const fn number(self) -> u8 {
        match self {
            Self::ExtraPadding => 1,
            Self::FollowUp => 7,
            Self::Mac => 8,
            Self::Other(number) => number,
        }
    }

    const fn of(number: u8) -> Self {
        match number {
            1 => Self::ExtraPadding,
            7 => Self::FollowUp,
            8 => Self::Mac,
            number => Self::Other(number),
        }
    }

    /// The only length of its value, where it has one.
    const fn length(self) -> Option<usize> {
        match self {
            Self::FollowUp => Some(FOLLOW_UP_TLV),
            Self::Mac => Some(MAC),
            Self::ExtraPadding | Self::Other(_) => None,
        }
    }
}

/// A TLV as it stands in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// What it is.
    pub kind: TlvKind,
    /// Whether the flags call it unknown, malformed or forged.
    pub is_refused: bool,
    /// What it says.
    pub value: &'a [u8],
}

/// When a packet of the reflector really left, said in a later one. A stateless reflector says nothing: it leaves zeros
/// (RFC 8972, 4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowUp {
    /// The reflector's number of that packet.
    pub sequence: u32,
    /// When it left; zeros where that is not known.
    pub timestamp: Timestamp,
}

impl FollowUp {
    /// Reads the value of a follow-up; none where the reflector has nothing to say.
    #[must_use]
    pub fn read(tlv: &Tlv<'_>) -> Option<Self> {
        if tlv.kind != TlvKind::FollowUp || tlv.is_refused {
            return None;
        }
        let sequence = u32::from_be_bytes(field(tlv.value, 0).ok()?);
        let timestamp = Timestamp(u64::from_be_bytes(field(tlv.value, 4).ok()?));
        Some(Self { sequence, timestamp }).filter(|told| *told != Self::default())
    }

    fn write(self, value: &mut [u8]) {
        value.fill(0);
        put(value, 0, &self.sequence.to_be_bytes());
        if self.timestamp != Timestamp::default() {
            put(value, 4, &self.timestamp.0.to_be_bytes());
            put(value, 12, &[SOFTWARE]);
        }
    }
}

/// The TLVs of a packet, up to the first one that cannot be.
pub fn tlvs(bytes: &[u8], mode: Mode) -> impl Iterator<Item = Result<Tlv<'_>, Fault>> {
    let mut rest = bytes.get(mode.length()..).unwrap_or_default();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = split(rest);
        rest = read.as_ref().map(|(_, rest)| *rest).unwrap_or_default();
        Some(read.map(|(tlv, _)| tlv))
    })
}

fn split(bytes: &[u8]) -> Result<(Tlv<'_>, &[u8]), Fault> {
    let (&[flags, number, high, low], rest) = bytes.split_first_chunk::<HEADER>().ok_or(Fault::BadTlv)?;
    let (kind, length) = (TlvKind::of(number), usize::from(u16::from_be_bytes([high, low])));
    let (value, rest) = rest.split_at_checked(length).ok_or(Fault::BadTlv)?;
    if kind.length().is_some_and(|right| right != length) {
        return Err(Fault::BadTlv);
    }
    let is_refused = flags & FLAGS != 0;
    Ok((Tlv { kind, is_refused, value }, rest))
}

/// Appends a TLV of a sender.
pub(super) fn push_empty(bytes: &mut Vec<u8>, kind: TlvKind, length: usize) {
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    bytes.extend([UNRECOGNIZED, kind.number(), high, low]);
    bytes.resize(bytes.len() + length, 0);
}

/// Makes a sender's TLVs into those of the answer, in their place. What comes after a malformed one stays as it is. Who has
/// no key does not understand a code.
pub(super) fn answer(mut rest: &mut [u8], mode: Mode, follow_up: FollowUp) {
    while !rest.is_empty() {
        let Ok((tlv, _)) = split(rest) else {
            // Whoever sends less than a header has sent no TLV.
            if let Some([flags, _, _, _]) = rest.get_mut(..HEADER) {
                *flags = MALFORMED;
            }
            return;
        };
        let length = HEADER + tlv.value.len();
        let (tlv, after) = std::mem::take(&mut rest).split_at_mut(length);
        rest = after;
        if let Some(([flags, number, _, _], value)) = tlv.split_first_chunk_mut::<HEADER>() {
            let kind = match TlvKind::of(*number) {
                TlvKind::Mac if mode == Mode::Unauthenticated => TlvKind::Other(*number),
                kind => kind,
            };
            *flags = if matches!(kind, TlvKind::Other(_)) { UNRECOGNIZED } else { 0 };
            match kind {
                TlvKind::FollowUp => follow_up.write(value),
                TlvKind::Mac => value.fill(0),
                TlvKind::ExtraPadding | TlvKind::Other(_) => {}
            }
        }
    }
}

/// Where the code of the TLVs is, and what it is the code of, besides the sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacPlace {
    /// The TLVs before it.
    pub covered: Range<usize>,
    /// The code.
    pub code: Range<usize>,
    /// The flags of its TLV that mean something.
    pub flags: u8,
}

/// Where the HMAC TLV of a packet is. Only padding may follow it.
///
/// # Errors
/// When a TLV is malformed, or one that is not covered follows.
pub fn mac_place(bytes: &[u8], mode: Mode) -> Result<Option<MacPlace>, Fault> {
    let (mut at, mut place) = (mode.length(), None);
    for tlv in tlvs(bytes, mode) {
        let tlv = tlv?;
        match tlv.kind {
            TlvKind::Mac if place.is_none() => {
                let code = at + HEADER..at + MAC_TLV;
                let flags = bytes.get(at).copied().unwrap_or_default() & FLAGS;
                place = Some(MacPlace { covered: mode.length()..at, code, flags });
            }
            TlvKind::ExtraPadding => {}
            _ if place.is_some() => return Err(Fault::BadTlv),
            _ => {}
        }
        at += HEADER + tlv.value.len();
    }
    Ok(place)
}
