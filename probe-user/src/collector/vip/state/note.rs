//! Writes what happened into the histories of the addresses, and times the end of failovers.

use std::net::IpAddr;
use std::sync::Arc;

use super::{HISTORIES_MAX, State};
use crate::collector::vip::happening::{Announcer, Failover, Happening};
use crate::collector::vip::history::History;
use crate::collector::vip::place::{Claimed, Notice, Place, VirtualRouter, virtual_macs};
use crate::collector::vip::stopwatch::{Owner, Packet};

impl State {
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

    pub(super) fn note_contest(&mut self, router: &VirtualRouter, happenings: Vec<Happening>) -> Vec<Notice> {
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

    pub(super) fn note_claims(&mut self, claimed: &Claimed, happenings: Vec<Happening>) -> Vec<Notice> {
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

/// The new owner of a failover; of anything else nobody.
fn owner_of(happening: &Happening, known: &impl Fn(Announcer) -> Option<Owner>) -> Owner {
    match happening {
        Happening::Moved(failover) => known(failover.to).unwrap_or_default(),
        _ => Owner::default(),
    }
}
