//! TCP health of a slot, filled by `sock_ops` callbacks and, for older connections, by the packet programs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Upper bounds of the histograms in microseconds, each the floor of a power of two of a second (2^-14 … 2^2 by 4):
/// samples are whole microseconds, so that comparing with the floor is exact.
pub const BOUNDS_MICROSECONDS: [u32; 9] =
    [61, 244, 976, 3_906, 15_625, 62_500, 250_000, 1_000_000, 4_000_000];

/// Buckets: the bounds and one for everything above.
pub const BUCKETS: usize = BOUNDS_MICROSECONDS.len() + 1;

/// TCP shards at most: callbacks are far rarer than packets, and a cell is six cache lines.
pub const TCP_SHARDS_MAX: u32 = 4;

/// A histogram of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Durations {
    /// Samples per bucket, not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Sum in microseconds.
    pub sum: u64,
}
const _: () = assert!(size_of::<Durations>() == 88);

/// Why a connection attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ConnectFailure {
    /// The peer answered with RST (`ECONNREFUSED`).
    Refused = 0,
    /// No answer to any SYN (`ETIMEDOUT`).
    TimedOut = 1,
    /// ICMP said that the peer cannot be reached (`EHOSTUNREACH`, `ENETUNREACH` and the like).
    Unreachable = 2,
    /// The program closed the socket before an answer came.
    Aborted = 3,
    /// Another error, or the kernel's error could not be read (no BTF).
    Other = 4,
}

impl ConnectFailure {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Refused, Self::TimedOut, Self::Unreachable, Self::Aborted, Self::Other];

    /// The value of the `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
            Self::Other => "other",
        }
    }
}

/// TCP counters of a slot in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct TcpCell {
    /// Round trips: the handshake and each connection's windowed minimum, at most one a second and connection.
    pub rtt: Durations,
    /// Every sample the kernel took, delayed acknowledgements and the peer's thinking included.
    pub ack: Durations,
    /// From the first SYN to the established connection, active side.
    pub connect: Durations,
    /// Segments sent again.
    pub retransmit_segments: u64,
    /// Retransmission timeouts.
    pub retransmit_timeouts: u64,
    /// Attempts that failed, by [`ConnectFailure`] number.
    pub connect_failures: [u64; 5],
    /// Established connections that a RST of the peer ended.
    pub resets_received: u64,
    /// Established connections that this end gave up with a RST.
    pub resets_sent: u64,
    /// Connections established by `connect(2)`.
    pub connects: u64,
    /// Connections established by `accept(2)`.
    pub accepts: u64,
    /// Zero.
    pub padding: [u64; 4],
}
const _: () = assert!(size_of::<TcpCell>() == 384);
