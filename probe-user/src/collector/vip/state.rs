//! Everything the tap has heard of virtual addresses: the contests by virtual router, the claims of addresses without
//! one, and what became of each address.
//! Pure: observations with their times in, happenings out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::claim::Claims;
use super::contest::{Announcer, Contest, Failover, Happening, Nanos};
use super::history::History;
use super::router::Advert;
use super::stopwatch::{Owner, Packet, Stopwatch};
use crate::wire::{MacAddress, Malformed, Message, Observation, Reason, arp, vrrp};

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
/// How long after its last claim a station may still be asked for an address that another one has taken.
const HANDOVER: Nanos = 10_000_000_000;
/// Groups of routers that use one number for different addresses.
const PARTIES_MAX: u8 = 4;

/// Address family of a virtual router: one number is two routers where both families are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The value of the `family` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// A virtual router as this node hears it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualRouter {
    /// The uplink, with the VLAN behind a dot where the frames are tagged.
    pub interface: Arc<str>,
    /// Its number.
    pub vrid: u8,
    /// Address family.
    pub family: Family,
    /// Routers of one number that have no address in common are parties of their own, numbered as they came.
    pub party: u8,
}

/// An address that is only announced, on one link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claimed {
    /// The uplink, as in [`VirtualRouter`].
    pub interface: Arc<str>,
    /// The address.
    pub address: IpAddr,
}

/// Where something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The uplink, as in [`VirtualRouter`].
    pub interface: Arc<str>,
    /// The number of the virtual router, where there is one.
    pub vrid: Option<u8>,
}

/// How a frame came.
#[derive(Clone, Debug)]
pub struct Passage {
    /// When it passed the tap.
    pub time: Nanos,
    /// The uplink's name.
    pub interface: Arc<str>,
    /// Sent by this node.
    pub transmitted: bool,
}

/// A happening, with what it happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where.
    pub place: Place,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// What happened.
    pub happening: Happening,
}

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

    fn heard(&mut self, passage: &Passage, observation: Observation) -> Vec<Notice> {
        let link = observation.link;
        let interface = interface(&passage.interface, link.vlan);
        match observation.message {
            Message::Vrrp(advert) => self.advertised(passage, interface, link.source, advert),
            Message::Arp(arp) => {
                let kind = arp.kind();
                let claim = Claim {
                    claimed: Claimed { interface, address: arp.sender.into() },
                    station: arp.sender_mac,
                    time: passage.time,
                    local: passage.transmitted,
                };
                match kind {
                    arp::Kind::GratuitousRequest | arp::Kind::GratuitousReply => self.announced(claim),
                    arp::Kind::Reply => self.answered(&claim).into_iter().collect(),
                    arp::Kind::Probe | arp::Kind::Request => Vec::new(),
                }
            }
            Message::NeighbourAdvertisement(advert) => {
                let Some(station) = advert.target_mac.or(link.source) else { return Vec::new() };
                let claim = Claim {
                    claimed: Claimed { interface, address: advert.target.into() },
                    station,
                    time: passage.time,
                    local: passage.transmitted,
                };
                if advert.is_unsolicited() {
                    self.announced(claim)
                } else {
                    self.answered(&claim).into_iter().collect()
                }
            }
        }
    }

    fn advertised(
        &mut self,
        passage: &Passage,
        interface: Arc<str>,
        mac: Option<MacAddress>,
        heard: vrrp::Advertisement,
    ) -> Vec<Notice> {
        let router =
            VirtualRouter { interface, vrid: heard.vrid, family: Family::of(heard.source), party: 0 };
        let advert = Advert {
            time: passage.time,
            source: heard.source,
            destination: heard.destination,
            mac,
            priority: heard.priority,
            interval: heard.interval,
            addresses: heard.addresses,
            local: passage.transmitted,
        };
        let mut happenings = Vec::new();
        let accepted = self.party(router, &advert).and_then(|router| {
            let is_foreign = router.party > 0 && !self.contests.contains_key(&router);
            let contest = self.contests.entry(router.clone()).or_default();
            if is_foreign {
                happenings.push(Happening::Foreign { source: Announcer::Router(advert.source) });
            }
            contest.advertised(&advert, &mut happenings).map(|()| router)
        });
        let Some(router) = accepted else {
            self.limited += 1;
            return Vec::new();
        };
        self.advertised_addresses(&advert);
        self.note_contest(&router, happenings)
    }

    /// The party that an advertisement belongs to: that whose routers advertise an address of it, else where its router
    /// was before, unless others are there that have no address in common with it. `None`: one too many.
    fn party(&mut self, router: VirtualRouter, advert: &Advert) -> Option<VirtualRouter> {
        let of = |party| VirtualRouter { party, ..router.clone() };
        let parties: Vec<u8> =
            self.contests.range(of(0)..=of(u8::MAX)).map(|(router, _)| router.party).collect();
        let contest = |party: &u8| self.contests.get(&of(*party));
        let is_own = |party: &&u8| {
            contest(party).is_some_and(|contest| contest.routers().contains_key(&advert.source))
        };
        let own = parties.iter().find(is_own).copied();
        // A goodbye may come without addresses.
        let shared = parties
            .iter()
            .find(|party| contest(party).is_some_and(|contest| contest.has_in_common(advert) == Some(true)));
        let is_alone =
            |party: &u8| contest(party).is_none_or(|contest| contest.has_in_common(advert).is_none());
        let chosen = shared
            .copied()
            .or(own.filter(|party| advert.addresses.is_empty() || is_alone(party)))
            .or_else(|| parties.iter().find(|party| is_alone(party)).copied())
            .or_else(|| (0..PARTIES_MAX).find(|party| !parties.contains(party)))?;
        let is_room = self.contests.len() < CONTESTS_MAX || parties.contains(&chosen);
        if let Some(own) = own.filter(|own| *own != chosen)
            && let Some(before) = self.contests.get_mut(&of(own))
        {
            before.remove(advert.source);
        }
        is_room.then(|| of(chosen))
    }

    /// Every address that is advertised has its history from then on, and nobody claims it besides.
    fn advertised_addresses(&mut self, advert: &Advert) {
        for address in &advert.addresses {
            if let Some(history) = self.histories.get_mut(address) {
                history.advertised = advert.time;
            } else if self.histories.len() < HISTORIES_MAX {
                self.histories.insert(*address, History::new(advert.time));
                self.claims.retain(|claimed, _| claimed.address != *address);
            } else {
                self.limited += 1;
            }
        }
    }

    /// A station announces an address to its neighbours.
    fn announced(&mut self, claim: Claim) -> Vec<Notice> {
        let Claim { claimed, station, time, local } = claim;
        let is_advertised = |contest: &Contest| contest.addresses().contains(&claimed.address);
        if !self.contests.values().any(is_advertised) {
            return self.claimed(claimed, station, time, local);
        }
        let mut heard = Vec::new();
        for (router, contest) in &mut self.contests {
            if router.interface == claimed.interface && contest.addresses().contains(&claimed.address) {
                let mut happenings = Vec::new();
                contest.announced(router.vrid, station, time, &mut happenings);
                heard.push((router.clone(), happenings));
            }
        }
        let notices: Vec<Notice> = heard
            .into_iter()
            .flat_map(|(router, happenings)| self.note_contest(&router, happenings))
            .collect();
        let answer = self.answered(&Claim { claimed, station, time, local });
        notices.into_iter().chain(answer).collect()
    }

    /// The same of an address that nobody advertises.
    fn claimed(&mut self, claimed: Claimed, station: MacAddress, time: Nanos, local: bool) -> Vec<Notice> {
        if self.claims.len() >= CLAIMS_MAX && !self.claims.contains_key(&claimed) {
            self.make_room();
        }
        let mut happenings = Vec::new();
        let claims = self.claims.entry(claimed.clone()).or_default();
        if claims.claimed(station, time, local, &mut happenings).is_none() {
            self.limited += 1;
            return Vec::new();
        }
        self.note_claims(&claimed, happenings)
    }

    /// Forgets claims that are most likely those of hosts that have started.
    fn make_room(&mut self) {
        let (before, configured) = (self.claims.len(), &self.configured);
        self.claims.retain(|claimed, claims| claims.is_virtual() || configured.contains(&claimed.address));
        self.limited += (before - self.claims.len()) as u64;
    }

    /// A station says that it has an address: is it one of those that announce it?
    fn answered(&mut self, claim: &Claim) -> Option<Notice> {
        let Claim { claimed, station, time, .. } = claim;
        let mut routers = self.contests.iter().filter(|(router, contest)| {
            router.interface == claimed.interface && contest.addresses().contains(&claimed.address)
        });
        let place = if let Some((router, _)) = routers.clone().next() {
            if routers.any(|(router, contest)| contest.is_announcer(router.vrid, *station, *time)) {
                return None;
            }
            Place { interface: Arc::clone(&router.interface), vrid: Some(router.vrid) }
        } else {
            let claims = self.claims.get(claimed).filter(|claims| self.is_virtual(claimed, claims))?;
            // Whoever has just handed over may still have answered.
            let is_claimant = |claims: &Claims| {
                let known = claims.stations().get(station);
                known.is_some_and(|known| time.saturating_sub(known.last()) < HANDOVER)
            };
            if claims.owner() == Some(*station) || is_claimant(claims) {
                return None;
            }
            Place { interface: Arc::clone(&claimed.interface), vrid: None }
        };
        let is_news = self.histories.get_mut(&claimed.address)?.duplicated(*station, *time);
        is_news.then(|| Notice {
            place,
            addresses: vec![claimed.address],
            happening: Happening::Duplicated { station: *station, time: *time },
        })
    }

    /// A virtual address served somebody.
    pub fn served(&mut self, address: IpAddr, packet: Packet) -> Option<Notice> {
        let history = self.histories.get_mut(&address)?;
        let (watch, place) = self.watches.entry(address).or_default();
        let happening = Happening::Served(watch.served(packet)?);
        let place = place.clone()?;
        history.note(&place.interface, &happening);
        Some(Notice { place, addresses: vec![address], happening })
    }

    /// This node asked the address that often while it moved.
    pub fn asked(&mut self, address: IpAddr, questions: u64) {
        if let Some(history) = self.histories.get_mut(&address) {
            history.asked += questions;
        }
    }

    /// Whether a failover of this address still waits for its service.
    #[must_use]
    pub fn awaits_service(&self, address: IpAddr) -> bool {
        self.watches.get(&address).is_some_and(|(watch, _)| watch.is_running())
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

    fn note_contest(&mut self, router: &VirtualRouter, happenings: Vec<Happening>) -> Vec<Notice> {
        if happenings.is_empty() {
            return Vec::new();
        }
        let Some(contest) = self.contests.get(router) else { return Vec::new() };
        let owners = contest.routers();
        let owner = |announcer: Announcer| match announcer {
            Announcer::Router(address) => owners.get(&address).map(|known| Owner {
                // A router with a virtual MAC may serve by the device below it.
                stations: known
                    .mac()
                    .into_iter()
                    .chain(virtual_macs(router.vrid))
                    .chain(self.neighbours.get(&address).copied())
                    .collect(),
                local: known.is_local(),
            }),
            Announcer::Station(_) => None,
        };
        let happenings: Vec<(Happening, Owner)> =
            happenings.into_iter().map(|happening| (happening, owner_of(&happening, &owner))).collect();
        let addresses: Vec<IpAddr> = contest.addresses().into_iter().collect();
        let place = Place { interface: Arc::clone(&router.interface), vrid: Some(router.vrid) };
        self.note(&place, &addresses, happenings)
    }

    fn note_claims(&mut self, claimed: &Claimed, happenings: Vec<Happening>) -> Vec<Notice> {
        let Some(claims) = self.claims.get(claimed) else { return Vec::new() };
        if !self.is_virtual(claimed, claims) {
            return Vec::new();
        }
        let last = claims.last();
        let owner = |announcer: Announcer| match announcer {
            Announcer::Station(station) => claims
                .stations()
                .get(&station)
                .map(|known| Owner { stations: vec![station], local: known.is_local() }),
            Announcer::Router(_) => None,
        };
        let happenings: Vec<(Happening, Owner)> =
            happenings.into_iter().map(|happening| (happening, owner_of(&happening, &owner))).collect();
        if let Some(history) = self.histories.get_mut(&claimed.address) {
            history.advertised = last;
        } else if self.histories.len() < HISTORIES_MAX {
            self.histories.insert(claimed.address, History::new(last));
        } else {
            self.limited += 1;
        }
        let place = Place { interface: Arc::clone(&claimed.interface), vrid: None };
        self.note(&place, &[claimed.address], happenings)
    }

    /// Writes what happened into the histories of the addresses, and starts their stopwatches.
    fn note(
        &mut self,
        place: &Place,
        addresses: &[IpAddr],
        happenings: Vec<(Happening, Owner)>,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (happening, owner) in happenings {
            for address in addresses {
                if let Some(history) = self.histories.get_mut(address) {
                    history.note(&place.interface, &happening);
                }
            }
            let to_all = Notice { place: place.clone(), addresses: addresses.to_vec(), happening };
            notices.push(to_all);
            if let Happening::Moved(failover) = happening {
                notices.extend(self.started(place, addresses, &failover, &owner));
            }
        }
        notices
    }

    /// Starts the stopwatches of the addresses that have moved; some may have served already.
    fn started(
        &mut self,
        place: &Place,
        addresses: &[IpAddr],
        failover: &Failover,
        owner: &Owner,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for address in addresses {
            let (watch, at) = self.watches.entry(*address).or_default();
            *at = Some(place.clone());
            let Some(service) = watch.moved(failover, owner.clone()) else { continue };
            let happening = Happening::Served(service);
            if let Some(history) = self.histories.get_mut(address) {
                history.note(&place.interface, &happening);
            }
            notices.push(Notice { place: place.clone(), addresses: vec![*address], happening });
        }
        notices
    }
}

/// A station's word that it has an address.
#[derive(Clone, Debug)]
struct Claim {
    claimed: Claimed,
    station: MacAddress,
    time: Nanos,
    local: bool,
}

/// The new owner of a failover; of anything else nobody.
fn owner_of(happening: &Happening, known: &impl Fn(Announcer) -> Option<Owner>) -> Owner {
    match happening {
        Happening::Moved(failover) => known(failover.to).unwrap_or_default(),
        _ => Owner::default(),
    }
}

/// The hardware addresses of a virtual router (RFC 9568, 7.3).
pub(super) fn virtual_macs(vrid: u8) -> [MacAddress; 2] {
    [1, 2].map(|family| MacAddress([0, 0, 0x5e, 0, family, vrid]))
}

/// The interface as people name it: a tagged frame belongs to the VLAN's.
fn interface(uplink: &Arc<str>, vlan: Option<u16>) -> Arc<str> {
    match vlan {
        None | Some(0) => Arc::clone(uplink),
        Some(vlan) => format!("{uplink}.{vlan}").into(),
    }
}
