//! STAMP test packets (RFC 8762) with session identifier and TLVs (RFC 8972): what a sender asks, what a reflector says.
//! In both modes: with codes where both ends have a key, and without.

mod authentication;
mod tlv;

use std::{error::Error, fmt};

pub use authentication::{Authenticator, End, Extent, Key};
pub use tlv::{FOLLOW_UP_TLV, FollowUp, MAC_TLV, MacPlace, Tlv, TlvKind, mac_place, tlvs};

/// Bytes of an authentication code: HMAC-SHA-256, cut.
pub const MAC: usize = 16;

/// Seconds from 1900, where NTP's time begins, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;
/// Seconds of an era of NTP: the next one begins in 2036.
const ERA: u64 = 1 << 32;
const NANOS: u64 = 1_000_000_000;

/// Whether packets carry an authentication code. Both ends are told so beforehand: nothing in a packet says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 44 bytes.
    Unauthenticated,
    /// 112 bytes, of which the last 16 are the code of all before them.
    Authenticated,
}

/// Where the fields of a mode are, counted from the beginning.
struct Layout {
    length: usize,
    /// Followed by the error estimate and the session identifier.
    timestamp: usize,
    received: usize,
    sender_sequence: usize,
    /// Followed by the sender's error estimate.
    sender_timestamp: usize,
    sender_ttl: usize,
}

const UNAUTHENTICATED: Layout = Layout {
    length: 44,
    timestamp: 4,
    received: 16,
    sender_sequence: 24,
    sender_timestamp: 28,
    sender_ttl: 40,
};
const AUTHENTICATED: Layout = Layout {
    length: 112,
    timestamp: 16,
    received: 32,
    sender_sequence: 48,
    sender_timestamp: 64,
    sender_ttl: 80,
};

impl Mode {
    const fn layout(self) -> &'static Layout {
        match self {
            Self::Unauthenticated => &UNAUTHENTICATED,
            Self::Authenticated => &AUTHENTICATED,
        }
    }

    /// Bytes of a packet without TLVs.
    #[must_use]
    pub const fn length(self) -> usize {
        self.layout().length
    }
}

/// A moment in NTP's 64-bit format, or in the truncated one of PTP, whatever the error estimate beside it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// From nanoseconds since 1970, so that [`Timestamp::unix_nanos`] gives them back.
    #[must_use]
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        let seconds = (nanos / NANOS + NTP_TO_UNIX) % ERA;
        let fraction = ((nanos % NANOS) << 32).div_ceil(NANOS);
        Self(seconds << 32 | fraction)
    }

    /// Nanoseconds since 1970, of the years 1970 to 2106.
    #[must_use]
    pub const fn unix_nanos(self) -> u64 {
        let seconds = self.0 >> 32;
        let seconds = if seconds < NTP_TO_UNIX { seconds + ERA } else { seconds };
        (seconds - NTP_TO_UNIX) * NANOS + (((self.0 & 0xffff_ffff) * NANOS) >> 32)
    }

    /// Nanoseconds since 1970 in the truncated format of PTP (RFC 8186): seconds, then nanoseconds. A clock that leap
    /// seconds do not touch is ahead of UTC by them.
    #[must_use]
    const fn ptp_nanos(self) -> u64 {
        (self.0 >> 32) * NANOS + (self.0 & 0xffff_ffff)
    }
}

/// How good a clock is, in the format of RFC 4656: synchronized or not, which format, scale and multiplier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorEstimate(pub u16);

impl ErrorEstimate {
    /// A clock of which it is not known that it is right, read to a microsecond: 2^-20 seconds.
    pub const UNSYNCHRONIZED: Self = Self(12 << 8 | 1);

    /// Whether the timestamps beside it are in the format of PTP.
    #[must_use]
    pub const fn is_ptp(self) -> bool {
        self.0 & 0x4000 != 0
    }

    /// A multiplier of 0 makes a packet a corrupt one.
    const fn is_valid(self) -> bool {
        self.0 & 0x00ff != 0
    }
}

/// A packet of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Counts the packets of a session, from 0.
    pub sequence: u32,
    /// When it was sent, by the sender's clock.
    pub timestamp: Timestamp,
    /// How good that clock is.
    pub error: ErrorEstimate,
    /// The session of the sender; 0 where it tells none apart.
    pub ssid: u16,
}

/// A packet of a reflector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// A stateful reflector counts its packets of a session, from 0; another one repeats the sender's number.
    pub sequence: u32,
    /// When it was sent, by the reflector's clock.
    pub timestamp: Timestamp,
    /// How good that clock is.
    pub error: ErrorEstimate,
    /// The session of the sender.
    pub ssid: u16,
    /// When the sender's packet came, by the reflector's clock.
    pub received: Timestamp,
    /// What the sender had said, unchanged.
    pub sender_sequence: u32,
    /// See `sender_sequence`.
    pub sender_timestamp: Timestamp,
    /// See `sender_sequence`.
    pub sender_error: ErrorEstimate,
    /// TTL or hop limit with which the sender's packet came.
    pub sender_ttl: u8,
}

/// Why a packet is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It ends within the fields of its mode.
    Truncated,
    /// A multiplier of 0 in an error estimate.
    BadErrorEstimate,
    /// A TLV that ends beyond the packet, or is of a length that its type does not have.
    BadTlv,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the packet ends within its fields",
            Self::BadErrorEstimate => "the error estimate has a multiplier of 0",
            Self::BadTlv => "a TLV has a length that cannot be",
        })
    }
}

impl Error for Fault {}

impl Request {
    /// Reads the packet of a sender; what may follow it is not looked at.
    ///
    /// # Errors
    /// When it is too short for the mode, or corrupt.
    pub fn parse(bytes: &[u8], mode: Mode) -> Result<Self, Fault> {
        let layout = whole(bytes, mode)?;
        Ok(Self {
            sequence: u32::from_be_bytes(field(bytes, 0)?),
            timestamp: timestamp(bytes, layout.timestamp)?,
            error: error_estimate(bytes, layout.timestamp + 8)?,
            ssid: u16::from_be_bytes(field(bytes, layout.timestamp + 10)?),
        })
    }

    /// The packet, with a place for the reflector's follow-up. Codes are left at zeros, for [`Authenticator::seal`].
    #[must_use]
    pub fn encode(&self, mode: Mode) -> Vec<u8> {
        self.encode_padded(mode, 0)
    }

    /// The same packet with so much padding that it has this length, unless it is longer anyhow.
    #[must_use]
    pub fn encode_padded(&self, mode: Mode, length: usize) -> Vec<u8> {
        let layout = mode.layout();
        let mut bytes = vec![0; layout.length];
        put(&mut bytes, 0, &self.sequence.to_be_bytes());
        put(&mut bytes, layout.timestamp, &self.timestamp.0.to_be_bytes());
        put(&mut bytes, layout.timestamp + 8, &self.error.0.to_be_bytes());
        put(&mut bytes, layout.timestamp + 10, &self.ssid.to_be_bytes());
        tlv::push_empty(&mut bytes, TlvKind::FollowUp, FOLLOW_UP_TLV);
        let code = if mode == Mode::Authenticated { MAC_TLV } else { 0 };
        if let Some(padding) = length.checked_sub(bytes.len() + tlv::HEADER + code) {
            tlv::push_empty(&mut bytes, TlvKind::ExtraPadding, padding);
        }
        if mode == Mode::Authenticated {
            tlv::push_empty(&mut bytes, TlvKind::Mac, MAC);
        }
        bytes
    }
}

impl Reply {
    /// Nanoseconds since 1970 of a time of the reflector, which all are in the format that its error estimate names.
    #[must_use]
    pub const fn nanos(&self, time: Timestamp) -> u64 {
        if self.error.is_ptp() { time.ptp_nanos() } else { time.unix_nanos() }
    }

    /// Reads the packet of a reflector; its TLVs are read by [`tlvs`].
    ///
    /// # Errors
    /// When it is too short for the mode, or corrupt.
    pub fn parse(bytes: &[u8], mode: Mode) -> Result<Self, Fault> {
        let layout = whole(bytes, mode)?;
        let [sender_ttl] = field(bytes, layout.sender_ttl)?;
        Ok(Self {
            sequence: u32::from_be_bytes(field(bytes, 0)?),
            timestamp: timestamp(bytes, layout.timestamp)?,
            error: error_estimate(bytes, layout.timestamp + 8)?,
            ssid: u16::from_be_bytes(field(bytes, layout.timestamp + 10)?),
            received: timestamp(bytes, layout.received)?,
            sender_sequence: u32::from_be_bytes(field(bytes, layout.sender_sequence)?),
            sender_timestamp: timestamp(bytes, layout.sender_timestamp)?,
            sender_error: error_estimate(bytes, layout.sender_timestamp + 8)?,
            sender_ttl,
        })
    }

    /// The answer to the packet of a sender, and exactly as long as that. TLVs are given back with the flags that say
    /// what became of them; codes are left at zeros, for [`Authenticator::seal`].
    #[must_use]
    pub fn encode(&self, request: &[u8], mode: Mode, follow_up: FollowUp) -> Vec<u8> {
        let layout = mode.layout();
        let mut bytes = request.to_vec();
        let (base, rest) = bytes.split_at_mut(layout.length.min(request.len()));
        base.fill(0);
        put(base, 0, &self.sequence.to_be_bytes());
        put(base, layout.timestamp, &self.timestamp.0.to_be_bytes());
        put(base, layout.timestamp + 8, &self.error.0.to_be_bytes());
        put(base, layout.timestamp + 10, &self.ssid.to_be_bytes());
        put(base, layout.received, &self.received.0.to_be_bytes());
        put(base, layout.sender_sequence, &self.sender_sequence.to_be_bytes());
        put(base, layout.sender_timestamp, &self.sender_timestamp.0.to_be_bytes());
        put(base, layout.sender_timestamp + 8, &self.sender_error.0.to_be_bytes());
        put(base, layout.sender_ttl, &[self.sender_ttl]);
        tlv::answer(rest, mode, follow_up);
        bytes
    }
}

fn whole(bytes: &[u8], mode: Mode) -> Result<&'static Layout, Fault> {
    let layout = mode.layout();
    if bytes.len() < layout.length { Err(Fault::Truncated) } else { Ok(layout) }
}

fn timestamp(bytes: &[u8], at: usize) -> Result<Timestamp, Fault> {
    field(bytes, at).map(|octets| Timestamp(u64::from_be_bytes(octets)))
}

fn error_estimate(bytes: &[u8], at: usize) -> Result<ErrorEstimate, Fault> {
    let estimate = ErrorEstimate(u16::from_be_bytes(field(bytes, at)?));
    if estimate.is_valid() { Ok(estimate) } else { Err(Fault::BadErrorEstimate) }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Fault> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Fault::Truncated)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests;
