//! Classes of peers: what kind of address a packet goes to or comes from.

/// Class of a peer address, as the prefix trie of the programs stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PeerClass {
    /// No prefix matched, or the address family is not IP.
    Unknown = 0,
    /// The loopback device.
    Loopback = 1,
    /// A pod of this node.
    PodLocal = 2,
    /// A pod of another node.
    PodRemote = 3,
    /// An address of this node itself.
    Host = 4,
    /// An address of another node.
    Node = 5,
    /// A service address (`ClusterIP`), where the socket sees it untranslated.
    Service = 6,
    /// Multicast and broadcast.
    Multicast = 7,
    /// Everything else.
    External = 8,
}

impl PeerClass {
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Loopback,
        Self::PodLocal,
        Self::PodRemote,
        Self::Host,
        Self::Node,
        Self::Service,
        Self::Multicast,
        Self::External,
    ];

    /// The number that crosses the ABI.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The class of a number read from the kernel; `None` for a number that no class has.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The value of the `peer_class` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Loopback => "loopback",
            Self::PodLocal => "pod_local",
            Self::PodRemote => "pod_remote",
            Self::Host => "host",
            Self::Node => "node",
            Self::Service => "service",
            Self::Multicast => "multicast",
            Self::External => "external",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_classes_are_one_to_one() {
        for class in PeerClass::ALL {
            assert_eq!(PeerClass::from_number(class.number()), Some(class));
        }
        assert_eq!(PeerClass::from_number(9), None);
    }
}
