//! What a frame says of virtual addresses: whose advertisement, claim or answer it is.

use std::sync::Arc;

use super::{CLAIMS_MAX, CONTESTS_MAX, HISTORIES_MAX, State};
use crate::collector::vip::claim::Claims;
use crate::collector::vip::contest::Contest;
use crate::collector::vip::happening::{Announcer, Happening, Nanos};
use crate::collector::vip::history::History;
use crate::collector::vip::place::{Claimed, Family, Notice, Passage, Place, VirtualRouter, interface};
use crate::collector::vip::router::Advert;
use crate::wire::{MacAddress, Message, Observation, arp, vrrp};

/// How long after its last claim a station may still be asked for an address that another one has taken.
const HANDOVER: Nanos = 10_000_000_000;
/// Groups of routers that use one number for different addresses.
const PARTIES_MAX: u8 = 4;

/// A station's word that it has an address.
#[derive(Clone, Debug)]
struct Claim {
    claimed: Claimed,
    station: MacAddress,
    time: Nanos,
    local: bool,
}

impl State {
    pub(super) fn heard(&mut self, passage: &Passage, observation: Observation) -> Vec<Notice> {
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
                    arp::Kind::GratuitousRequest | arp::Kind::GratuitousReply => self.announced(&claim),
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
                    self.announced(&claim)
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
        let accepted = self.party(&router, &advert).and_then(|router| {
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
    fn party(&mut self, router: &VirtualRouter, advert: &Advert) -> Option<VirtualRouter> {
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
    fn announced(&mut self, claim: &Claim) -> Vec<Notice> {
        let claimed = &claim.claimed;
        let is_advertised = |contest: &Contest| contest.addresses().contains(&claimed.address);
        if !self.contests.values().any(is_advertised) {
            return self.claimed(claim);
        }
        let mut heard = Vec::new();
        for (router, contest) in &mut self.contests {
            if router.interface == claimed.interface && contest.addresses().contains(&claimed.address) {
                let mut happenings = Vec::new();
                contest.announced(router.vrid, claim.station, claim.time, &mut happenings);
                heard.push((router.clone(), happenings));
            }
        }
        let notices: Vec<Notice> = heard
            .into_iter()
            .flat_map(|(router, happenings)| self.note_contest(&router, happenings))
            .collect();
        let answer = self.answered(claim);
        notices.into_iter().chain(answer).collect()
    }

    /// The same of an address that nobody advertises.
    fn claimed(&mut self, claim: &Claim) -> Vec<Notice> {
        let Claim { claimed, station, time, local } = claim;
        if self.claims.len() >= CLAIMS_MAX && !self.claims.contains_key(claimed) {
            self.make_room();
            if self.claims.len() >= CLAIMS_MAX {
                self.limited += 1;
                return Vec::new();
            }
        }
        let mut happenings = Vec::new();
        let claims = self.claims.entry(claimed.clone()).or_default();
        if claims.claimed(*station, *time, *local, &mut happenings).is_none() {
            self.limited += 1;
            return Vec::new();
        }
        self.note_claims(claimed, happenings)
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
}
