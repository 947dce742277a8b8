//! What can happen to virtual addresses, as plain values. All times are of this node's monotonic clock.

use std::fmt;
use std::net::IpAddr;

use crate::wire::MacAddress;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub type Nanos = u64;

/// Why an address moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The owner said goodbye (priority 0).
    Shutdown,
    /// The owner fell silent.
    Timeout,
    /// Another one took over while the owner was there.
    Preempted,
    /// The owner was this node, and its link had gone.
    Link,
    /// The owner said goodbye and was back before a restart could be: it had lost the address, and took it again.
    AddressRemoved,
    /// This node could not hear the others in between.
    Unknown,
}

impl Cause {
    /// All causes, in the order of the page.
    pub const ALL: [Self; 6] =
        [Self::AddressRemoved, Self::Link, Self::Preempted, Self::Shutdown, Self::Timeout, Self::Unknown];

    /// The value of the `cause` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Timeout => "timeout",
            Self::Preempted => "preempted",
            Self::Link => "link",
            Self::AddressRemoved => "address_removed",
            Self::Unknown => "unknown",
        }
    }
}

/// Who announces an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Announcer {
    /// A router that advertises, by its own address.
    Router(IpAddr),
    /// A station that only announces the address to its neighbours.
    Station(MacAddress),
}

impl fmt::Display for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router(address) => address.fmt(f),
            Self::Station(mac) => mac.fmt(f),
        }
    }
}

/// A move of the addresses from one router to another, or back to itself after a goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// The old owner.
    pub from: Announcer,
    /// The new one.
    pub to: Announcer,
    /// Why.
    pub cause: Cause,
    /// The last advertisement of the old owner, goodbyes included; absent where this node was deaf after it.
    pub last: Option<Nanos>,
    /// The first one of the new owner.
    pub first: Nanos,
    /// The new owner's first gratuitous ARP or neighbour advertisement after that, if there was any within a second.
    pub announced: Option<Nanos>,
}

/// What a contest found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Somebody owns the addresses; nobody was known to before.
    Owned {
        /// The owner.
        source: Announcer,
    },
    /// The first sign that the addresses may move: a goodbye, silence, a rival.
    Suspected,
    /// Nobody announces the addresses any more, and nobody has taken over.
    Lost {
        /// The last owner.
        source: Announcer,
        /// When it was heard last.
        last: Nanos,
    },
    /// The last owner is back; nobody else was it meanwhile.
    Returned {
        /// The owner.
        source: Announcer,
        /// When it had been heard last before that.
        last: Nanos,
        /// When it was heard again.
        first: Nanos,
    },
    /// A router of the same number with other addresses: two clusters have chosen one number.
    Foreign {
        /// The router that came second.
        source: Announcer,
    },
    /// Another station than the announcers says that it has the address.
    Duplicated {
        /// The station.
        station: MacAddress,
        /// When it said so.
        time: Nanos,
    },
    /// The new owner served its first packet.
    Served(Service),
    /// The addresses moved.
    Moved(Failover),
    /// Two routers hold on to the addresses, each having heard the other.
    ConflictOpened(Conflict),
    /// One of them gave up, and when it advertised last.
    ConflictClosed(Conflict, Nanos),
    /// Two routers advertised, and one of them gave up when it heard the other.
    BriefDouble {
        /// The one that was not the owner.
        rival: Announcer,
    },
}

/// Two routers that hold on to the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who had them first.
    pub owner: Announcer,
    /// Who came second.
    pub rival: Announcer,
    /// The rival's first advertisement.
    pub since: Nanos,
}

/// The end of a failover, as this node saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The new owner.
    pub to: Announcer,
    /// Its first packet from the address.
    pub first: Nanos,
    /// Its first announcement to its neighbours, if there was any.
    pub announced: Option<Nanos>,
    /// The last sign of the old owner: a packet from the address or an advertisement.
    pub last: Option<Nanos>,
}
