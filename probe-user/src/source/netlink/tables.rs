//! Which tables a notification makes stale: pure, over the bytes of one datagram.

use std::ops::{BitOr, BitOrAssign};

/// A set of rtnetlink tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables(u8);

impl Tables {
    pub(super) const NONE: Self = Self(0);
    pub(super) const LINKS: Self = Self(1);
    pub(super) const ADDRESSES: Self = Self(2);
    pub(super) const ROUTES: Self = Self(4);
    pub(super) const NEIGHBOURS: Self = Self(8);
    pub(super) const FDB: Self = Self(16);
    pub(super) const ALL: Self = Self(31);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Tables {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Tables {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

const HEADER: usize = 16;
const BRIDGE_FAMILY: u8 = 7;

/// The tables that a datagram of notifications makes stale. A datagram that cannot be walked to its end stales all.
pub(super) fn stale_tables(datagram: &[u8]) -> Tables {
    let mut stale = Tables::NONE;
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some((tables, next)) = first_message(rest) else { return Tables::ALL };
        stale |= tables;
        rest = next;
    }
    stale
}

fn first_message(bytes: &[u8]) -> Option<(Tables, &[u8])> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, t0, t1, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let payload = bytes.get(HEADER..length)?;
    let aligned = length.next_multiple_of(4).min(bytes.len());
    Some((tables_of(u16::from_ne_bytes([t0, t1]), payload.first().copied()), bytes.get(aligned..)?))
}

fn tables_of(kind: u16, family: Option<u8>) -> Tables {
    match kind {
        // A device that goes down or away takes addresses, routes and entries with it, and the kernel does not
        // notify each of them: IPv4 routes go without a word (fib_sync_down_dev).
        libc::RTM_NEWLINK | libc::RTM_DELLINK => Tables::ALL,
        // The same for IPv4 routes that prefer the address as their source (fib_sync_down_addr).
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Tables::ADDRESSES | Tables::ROUTES,
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Tables::ROUTES,
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH if family == Some(BRIDGE_FAMILY) => Tables::FDB,
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => Tables::NEIGHBOURS,
        overrun if i32::from(overrun) == libc::NLMSG_OVERRUN => Tables::ALL,
        _ => Tables::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn forwarding_entries_are_told_from_neighbours_by_family() {
        assert_eq!(stale_tables(&message(libc::RTM_NEWNEIGH, &[7])), Tables::FDB);
        assert_eq!(stale_tables(&message(libc::RTM_DELNEIGH, &[2])), Tables::NEIGHBOURS);
    }

    #[test]
    fn all_messages_of_a_datagram_count() {
        let mut datagram = message(libc::RTM_NEWROUTE, &[2, 24, 0, 0, 1]);
        datagram.extend(message(libc::RTM_NEWNEIGH, &[10]));
        assert_eq!(stale_tables(&datagram), Tables::ROUTES | Tables::NEIGHBOURS);
    }

    #[test]
    fn a_link_stales_everything_because_routes_go_unannounced() {
        assert_eq!(stale_tables(&message(libc::RTM_DELLINK, &[0])), Tables::ALL);
        assert!(stale_tables(&message(libc::RTM_DELADDR, &[2])).contains(Tables::ROUTES));
    }

    #[test]
    fn unreadable_datagrams_stale_everything() {
        assert_eq!(stale_tables(&[1, 2, 3]), Tables::ALL);
        let mut short = message(libc::RTM_NEWNEIGH, &[2, 0, 0, 0]);
        short.truncate(18);
        assert_eq!(stale_tables(&short), Tables::ALL);
        // A length below the header would never advance.
        assert_eq!(stale_tables(&[0; 16]), Tables::ALL);
        assert_eq!(stale_tables(&[]), Tables::NONE);
    }
}
