//! Everything the tap has heard of virtual addresses: the contests by virtual router, the claims of addresses without
//! one, and what became of each address.
//! Pure: observations with their times in, happenings out.

mod hear;
mod note;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::claim::Claims;
use super::contest::Contest;
use super::happening::Nanos;
use super::history::History;
use super::place::{Claimed, Family, Notice, Passage, Place, VirtualRouter};
use super::stopwatch::Stopwatch;
use crate::wire::{MacAddress, Malformed, Observation, Reason};

/// Virtual routers that are told apart; more is an attack or a mistake.
const CONTESTS_MAX: usize = 64;
/// Addresses that have a history; more is an attack.
const HISTORIES_MAX: usize = 1_024;
/// A virtual router or an address that nobody has advertised for this long is gone.
const FORGOTTEN: Nanos = 3_600 * 1_000_000_000;
/// An address that is claimed only when it moves is gone when it has not been for a day.
const CLAIM_FORGOTTEN: Nanos = 24 * FORGOTTEN;
/// Addresses that were claimed at all: every host that starts claims its own.
const CLAIMS_MAX: usize = 1_024;

/// All that was heard.
#[derive(Debug, Default)]
pub struct State {
    contests: BTreeMap<VirtualRouter, Contest>,
    claims: BTreeMap<Claimed, Claims>,
    configured: BTreeSet<IpAddr>,
    histories: BTreeMap<IpAddr, History>,
    /// Stopwatches, and where the last failover was.
    watches: BTreeMap<IpAddr, (Stopwatch, Option<Place>)>,
    malformed: [u64; Reason::ALL.len()],
    limited: u64,
    /// Whether each uplink is tapped, by its name.
    uplinks: BTreeMap<String, bool>,
    /// A group of VRRP could not be joined on an uplink.
    unjoined: bool,
    /// Virtual addresses that this node has had on a device.
    held: BTreeSet<IpAddr>,
    /// All addresses of its devices, of which any may turn out to be virtual.
    present: BTreeSet<IpAddr>,
    /// Stations as this node's neighbour table has them.
    neighbours: BTreeMap<IpAddr, MacAddress>,
}

impl State {
    /// Virtual routers.
    #[must_use]
    pub fn contests(&self) -> &BTreeMap<VirtualRouter, Contest> {
        &self.contests
    }

    /// Addresses that stations only announce, and which are virtual.
    pub fn claims(&self) -> impl Iterator<Item = (&Claimed, &Claims)> {
        self.claims.iter().filter(|(claimed, claims)| self.is_virtual(claimed, claims))
    }

    fn is_virtual(&self, claimed: &Claimed, claims: &Claims) -> bool {
        claims.is_virtual() || self.configured.contains(&claimed.address)
    }

    /// Every virtual address that is known now, however it became known.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let advertised = self.contests.values().flat_map(Contest::addresses);
        let claimed = self.claims().map(|(claimed, _)| claimed.address);
        advertised.chain(claimed).chain(self.configured.iter().copied()).collect()
    }

    /// Virtual addresses.
    #[must_use]
    pub fn histories(&self) -> &BTreeMap<IpAddr, History> {
        &self.histories
    }

    /// Whether there is anybody whose silence would be news.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.contests.is_empty() && self.claims().next().is_none()
    }

    /// Routers that use the number of a virtual router for other addresses than those who had it first, by virtual
    /// router without the party.
    #[must_use]
    pub fn foreign_routers(&self, now: Nanos) -> BTreeMap<(&Arc<str>, u8, Family), usize> {
        let mut found: BTreeMap<_, (Option<u8>, usize)> = BTreeMap::new();
        for (router, contest) in &self.contests {
            let announcing = contest.routers().values().filter(|router| router.is_announcing(now)).count();
            let (first, foreign) = found.entry((&router.interface, router.vrid, router.family)).or_default();
            match first {
                None if announcing > 0 => *first = Some(router.party),
                Some(_) => *foreign += announcing,
                None => {}
            }
        }
        found.into_iter().map(|(router, (_, foreign))| (router, foreign)).collect()
    }

    /// The uplinks, and whether they are tapped.
    #[must_use]
    pub fn uplinks(&self) -> &BTreeMap<String, bool> {
        &self.uplinks
    }

    /// What is tapped now.
    pub fn set_uplinks(&mut self, uplinks: BTreeMap<String, bool>) {
        self.uplinks = uplinks;
    }

    /// Whether advertisements may not be heard, since a group could not be joined.
    #[must_use]
    pub const fn is_unjoined(&self) -> bool {
        self.unjoined
    }

    /// Whether a group could not be joined.
    pub fn set_unjoined(&mut self, unjoined: bool) {
        self.unjoined = unjoined;
    }

    /// What this node has on its devices now.
    pub fn set_held(&mut self, held: &BTreeSet<IpAddr>) {
        let known = self.addresses();
        self.held.retain(|address| known.contains(address));
        self.held.extend(known.intersection(&self.present));
        self.held.extend(known.intersection(held));
        self.present.clone_from(held);
    }

    /// Where this node's neighbours are now.
    pub fn set_neighbours(&mut self, neighbours: BTreeMap<IpAddr, MacAddress>) {
        self.neighbours = neighbours;
    }

    /// Whether this node has ever had the address on a device. Who only announces addresses has them nowhere.
    #[must_use]
    pub fn was_held(&self, address: IpAddr) -> bool {
        self.held.contains(&address) || self.present.contains(&address)
    }

    /// Takes addresses for virtual ones whatever is heard of them.
    pub fn configure(&mut self, addresses: impl IntoIterator<Item = IpAddr>, now: Nanos) {
        self.configured.extend(addresses);
        for address in &self.configured {
            self.histories.entry(*address).or_insert_with(|| History::new(now));
        }
    }

    /// Malformed frames by reason.
    pub fn malformed(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.malformed)
    }

    /// Advertisements of routers beyond the number that is told apart.
    #[must_use]
    pub const fn limited(&self) -> u64 {
        self.limited
    }

    /// A frame that the tap copied.
    pub fn observe(
        &mut self,
        passage: &Passage,
        seen: Result<Option<Observation>, Malformed>,
    ) -> Vec<Notice> {
        match seen {
            Ok(None) => Vec::new(),
            Ok(Some(observation)) => self.heard(passage, observation),
            Err(malformed) => {
                for (reason, count) in Reason::ALL.iter().zip(&mut self.malformed) {
                    *count += u64::from(*reason == malformed.reason);
                }
                Vec::new()
            }
        }
    }

    /// This node does not hear what is on these uplinks, or has missed something of it.
    pub fn deafened(&mut self, is_deaf: impl Fn(&str) -> bool, now: Nanos) {
        let is_deaf = |interface: &str| {
            let trunk = interface.rsplit_once('.').map(|(trunk, _)| trunk);
            is_deaf(interface) || trunk.is_some_and(&is_deaf)
        };
        for (router, contest) in &mut self.contests {
            if is_deaf(&router.interface) {
                contest.deafened(now);
            }
        }
        for (claimed, claims) in &mut self.claims {
            if is_deaf(&claimed.interface) {
                claims.deafened(now);
            }
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: Nanos) -> Vec<Notice> {
        self.contests.retain(|_, contest| !contest.is_forgotten(now, FORGOTTEN));
        let mut notices = Vec::new();
        let mut heard = Vec::new();
        for (router, contest) in &mut self.contests {
            let mut happenings = Vec::new();
            contest.forget(now, FORGOTTEN);
            contest.tick(now, &mut happenings);
            heard.push((router.clone(), happenings));
        }
        for (router, happenings) in heard {
            notices.extend(self.note_contest(&router, happenings));
        }
        let configured = &self.configured;
        self.claims.retain(|claimed, claims| {
            let after = if claims.is_virtual() { CLAIM_FORGOTTEN } else { FORGOTTEN };
            configured.contains(&claimed.address) || now.saturating_sub(claims.last()) <= after
        });
        let mut claimed = Vec::new();
        for (place, claims) in &mut self.claims {
            let mut happenings = Vec::new();
            claims.forget(now, CLAIM_FORGOTTEN);
            claims.tick(now, &mut happenings);
            if !happenings.is_empty() {
                claimed.push((place.clone(), happenings));
            }
        }
        for (place, happenings) in claimed {
            notices.extend(self.note_claims(&place, happenings));
        }
        for (watch, _) in self.watches.values_mut() {
            watch.tick(now);
        }
        self.forget(now);
        notices
    }

    /// Forgets addresses that nobody has spoken of for long.
    fn forget(&mut self, now: Nanos) {
        let is_old = |history: &History| now.saturating_sub(history.advertised) > FORGOTTEN;
        if self.histories.values().any(is_old) {
            let known = self.addresses();
            self.histories.retain(|address, history| known.contains(address) || !is_old(history));
            self.watches.retain(|address, _| known.contains(address));
        }
    }
}
