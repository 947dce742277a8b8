//! Traffic accounting: a *slot* is one (cgroup, peer class, protocol); its cells hold the counters.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slots `0..SLOTS_RESERVED` are never handed out: slot `n` takes what found no free slot, of peer class `n`.
pub const SLOTS_RESERVED: u32 = 16;

/// Bounds of the configurable number of slots.
pub const SLOTS_MIN: u32 = 64;
/// See [`SLOTS_MIN`].
pub const SLOTS_MAX: u32 = 8_192;

/// `SlotKey::cgroup` of the kernel's own neighbour discovery and multicast listener reports, whatever cgroup the
/// control socket happens to be charged to (net/ipv6/ndisc.c, mcast.c). No cgroup has this id: they start at 1.
pub const CGROUP_KERNEL: u64 = u64::MAX;

/// What a slot counts.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SlotKey {
    /// Id of the cgroup v2 directory, which is its inode number; never reused by the kernel. 0: slot not in use.
    pub cgroup: u64,
    /// [`crate::peer::PeerClass`] number.
    pub class: u8,
    /// [`Protocol`] number; 0 in a slot that is not in use.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 6],
}
const _: () = assert!(size_of::<SlotKey>() == 16);

impl SlotKey {
    /// The key of a cgroup, class and protocol.
    #[must_use]
    pub const fn new(cgroup: u64, class: u8, protocol: u8) -> Self {
        Self { cgroup, class, protocol, padding: [0; 6] }
    }
}

/// Transport protocol of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP, MPTCP subflows included.
    Tcp = 1,
    /// UDP and UDP-Lite.
    Udp = 2,
    /// ICMP and `ICMPv6`.
    Icmp = 3,
    /// Anything else, and what was folded for want of a slot.
    Other = 4,
}

impl Protocol {
    /// All protocols, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// The number that crosses the ABI.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol of an IP protocol number (IANA).
    #[must_use]
    pub const fn from_ip(number: u8) -> Self {
        match number {
            6 => Self::Tcp,
            17 | 136 => Self::Udp,
            1 | 58 => Self::Icmp,
            _ => Self::Other,
        }
    }

    /// The protocol of an ABI number; `None` for one that no protocol has.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Tcp),
            2 => Some(Self::Udp),
            3 => Some(Self::Icmp),
            4 => Some(Self::Other),
            _ => None,
        }
    }

    /// The value of the `protocol` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Other => "other",
        }
    }
}

/// Counters of a slot in one shard: one cache line, so that two CPUs never write the same.
/// Bytes are layer 3 bytes as on the wire: the headers of every segment of a GSO packet count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Cell {
    /// Packets that reached a socket.
    pub receive_packets: u64,
    /// Their bytes.
    pub receive_bytes: u64,
    /// Packets that a socket sent.
    pub transmit_packets: u64,
    /// Their bytes.
    pub transmit_bytes: u64,
    /// Zero.
    pub padding: [u64; 4],
}
const _: () = assert!(size_of::<Cell>() == 64);

/// Set in [`SocketState::handshake`] while an accepted connection waits to be counted.
pub const HANDSHAKE_PENDING: u32 = 1 << 31;

/// What the programs remember of a socket (`BPF_MAP_TYPE_SK_STORAGE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketState {
    /// The generation in which `slot` was looked up; 0: never. See [`crate::control::Control::generation`].
    pub generation: u32,
    /// Slot of the socket's packets.
    pub slot: u32,
    /// Cgroup of the socket, valid where `generation` is not 0.
    pub cgroup: u64,
    /// When the round trip was last sampled.
    pub sampled: u64,
    /// When `connect(2)` sent the first SYN; 0: not an active connection of the agent's time.
    pub connect_started: u64,
    /// `tcp_sock.total_retrans` when last looked at, for connections without callbacks.
    pub retransmits: u32,
    /// [`HANDSHAKE_PENDING`] and the round trip of an accepted handshake in microseconds (0 if the SYN-ACK was sent
    /// twice), waiting for the slot to be known; 0: nothing waits.
    pub handshake: u32,
    /// Peer address of a UDP socket folded into a word, to notice a second `connect(2)`.
    pub peer: u32,
    /// Slot of a watched port plus 1 ([`crate::tcp_port`]), valid where `generation` is not 0; 0: not watched.
    pub port_slot: u16,
    /// [`Protocol`] number.
    pub protocol: u8,
    /// [`crate::peer::PeerClass`] number.
    pub class: u8,
    /// Number of the peer's node where both ends are pods ([`crate::path_pod`]), valid where `generation` is not 0; 0: it
    /// is no such connection.
    pub node: u16,
    /// 1 when `sock_ops` callbacks are on for the socket.
    pub callbacks: u8,
    /// Zero.
    pub padding: u8,
    /// Segments that are being sent again, and `node` if it is known: the callback tells them, and right after it the
    /// tracepoint how many bytes they have.
    pub resent_segments: u16,
    /// See above; 0: nothing is being sent again.
    pub resent_node: u16,
}
// With what the kernel puts before it the storage fills 128 bytes.
const _: () = assert!(size_of::<SocketState>() == 56);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_protocols_are_one_to_one() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
        }
        assert_eq!(Protocol::from_number(0), None);
    }

    #[test]
    fn an_overflow_slot_exists_for_every_class() {
        let classes = u32::try_from(crate::peer::PeerClass::ALL.len()).unwrap();
        assert!(classes <= SLOTS_RESERVED);
    }
}
