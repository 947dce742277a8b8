//! One virtual router and everybody who advertises it: who owns it, who disputes that, and when it moved. Pure:
//! advertisements and announcements with their times in, happenings out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::happening::{Announcer, Cause, Conflict, Failover, Happening, Nanos};
use super::router::{Advert, Router};
use crate::wire::MacAddress;

/// Routers of one virtual router that are told apart; more is an attack or a mistake.
const ROUTERS_MAX: usize = 16;
/// How long after a failover its announcement is waited for.
const ANNOUNCEMENT: Nanos = 1_000_000_000;
/// One incident is one suspicion: it is not told again for this long.
const SUSPICION: Nanos = 5_000_000_000;

/// A second router that advertises beside the owner.
#[derive(Clone, Copy, Debug)]
struct Rivalry {
    since: Nanos,
    /// The owner's last advertisement before that.
    owner_last: Nanos,
    /// The owner advertised after the rival had.
    owner_insists: bool,
    /// Both insist.
    open: bool,
    announced: Option<Nanos>,
}

/// The contest for one virtual router.
#[derive(Debug, Default)]
pub struct Contest {
    routers: BTreeMap<IpAddr, Router>,
    owner: Option<IpAddr>,
    rivals: BTreeMap<IpAddr, Rivalry>,
    /// A failover whose announcement is waited for.
    pending: Option<Failover>,
    /// When this node was last known not to hear the others: its link was down, or frames were lost.
    deaf: Option<Nanos>,
    /// When the last incident began.
    suspected: Option<Nanos>,
    /// Nobody announces the addresses.
    lost: bool,
}

impl Contest {
    /// All routers by their address.
    #[must_use]
    pub fn routers(&self) -> &BTreeMap<IpAddr, Router> {
        &self.routers
    }

    /// The addresses of all routers that are remembered: they should be the same, and are all at stake if not.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.routers.values().flat_map(|router| router.addresses().iter().copied()).collect()
    }

    /// Whether two routers hold on to the addresses now.
    #[must_use]
    pub fn in_conflict(&self) -> bool {
        self.rivals.values().any(|rivalry| rivalry.open)
    }

    /// The owner, where there is one.
    #[must_use]
    pub fn owner(&self) -> Option<(IpAddr, &Router)> {
        let owner = self.owner?;
        Some((owner, self.routers.get(&owner)?))
    }

    /// Whether frames of this station are those of a router that advertises, or of the virtual router itself.
    #[must_use]
    pub fn is_announcer(&self, vrid: u8, station: MacAddress, now: Nanos) -> bool {
        station.virtual_router() == Some(vrid)
            || self.routers.values().any(|router| router.has_mac(station) && router.was_heard(now))
    }

    /// Whether an advertisement has an address in common with what others advertise here now; `None` where nobody else
    /// does.
    #[must_use]
    pub fn has_in_common(&self, advert: &Advert) -> Option<bool> {
        let is_other = |source: &IpAddr, router: &Router| {
            *source != advert.source && router.was_heard(advert.time) && !router.addresses().is_empty()
        };
        let mut others = self.routers.iter().filter(|(source, router)| is_other(source, router)).peekable();
        others.peek()?;
        Some(others.any(|(_, router)| router.addresses().iter().any(|own| advert.addresses.contains(own))))
    }

    /// Forgets a router that has gone to another contest.
    pub fn remove(&mut self, source: IpAddr) {
        self.routers.remove(&source);
        self.rivals.remove(&source);
        if self.owner == Some(source) {
            self.owner = None;
        }
    }

    /// Whether nobody has advertised for this long.
    #[must_use]
    pub fn is_forgotten(&self, now: Nanos, after: Nanos) -> bool {
        self.routers.values().all(|router| now.saturating_sub(router.last()) > after)
    }

    /// This node does not hear the others, or has missed something.
    pub fn deafened(&mut self, now: Nanos) {
        self.deaf = Some(now);
    }

    fn was_deaf_since(&self, last: Nanos) -> bool {
        self.deaf.is_some_and(|deaf| deaf >= last)
    }

    /// Forgets routers that have been silent for this long and have no part in the contest.
    pub fn forget(&mut self, now: Nanos, after: Nanos) {
        let (owner, rivals) = (self.owner, &self.rivals);
        self.routers.retain(|source, router| {
            owner == Some(*source)
                || rivals.contains_key(source)
                || now.saturating_sub(router.last()) <= after
        });
    }

    /// Makes room for one more router: the one that has been silent for longest goes, if any is silent at all.
    fn make_room(&mut self, now: Nanos) -> Option<()> {
        if self.routers.len() < ROUTERS_MAX {
            return Some(());
        }
        let is_idle = |source: &IpAddr, router: &Router| {
            self.owner != Some(*source) && !self.rivals.contains_key(source) && !router.is_announcing(now)
        };
        let idle = self.routers.iter().filter(|(source, router)| is_idle(source, router));
        let oldest = *idle.min_by_key(|(_, router)| router.last())?.0;
        self.routers.remove(&oldest).map(drop)
    }

    /// Somebody advertised. `None`: one router too many.
    pub fn advertised(&mut self, advert: &Advert, out: &mut Vec<Happening>) -> Option<()> {
        self.expire(advert.time, out);
        let source = advert.source;
        if !self.routers.contains_key(&source) {
            self.make_room(advert.time)?;
        }
        if self.routers.get(&source).is_some_and(|router| router.is_copy(advert)) {
            return Some(());
        }
        let before = self.routers.get(&source).map(|router| (router.last(), router.has_resigned()));
        let was_heard = before.is_some_and(|(last, _)| !self.was_deaf_since(last));
        let is_active = was_heard && (self.owner == Some(source) || self.rivals.contains_key(&source));
        let router = self.routers.entry(source).or_insert_with(|| Router::new(advert));
        router.advertised(advert, is_active);
        if advert.priority == 0 {
            self.resigned(source, advert.time, out);
            return Some(());
        }
        match self.owner {
            None => {
                self.owner = Some(source);
                out.push(Happening::Owned { source: Announcer::Router(source) });
            }
            Some(owner) if owner == source => {
                self.returned(advert, before, out);
                // An advertisement that was on its way when the rival's came is no answer to it.
                let meanwhile = advert.interval.map_or(0, |interval| nanos(interval) / 4);
                for rivalry in self.rivals.values_mut() {
                    rivalry.owner_insists |= advert.time.saturating_sub(rivalry.since) > meanwhile;
                }
            }
            Some(owner) => self.challenged(owner, advert, out),
        }
        Some(())
    }

    /// The owner is there, maybe again.
    fn returned(&mut self, advert: &Advert, before: Option<(Nanos, bool)>, out: &mut Vec<Happening>) {
        let (source, time) = (advert.source, advert.time);
        let Some((last, has_resigned)) = before else { return };
        let was_lost = std::mem::take(&mut self.lost);
        if has_resigned {
            // A daemon that starts waits for three intervals before it is the master.
            let interval = self.routers.get(&source).map_or(0, |router| nanos(router.interval()));
            let is_restart = time.saturating_sub(last) >= interval;
            let cause = if is_restart { Cause::Shutdown } else { Cause::AddressRemoved };
            self.moved(source, source, cause, last, time, out);
        } else if was_lost {
            out.push(Happening::Returned { source: Announcer::Router(source), last, first: time });
        }
    }

    /// The first sign of an incident.
    fn suspect(&mut self, time: Nanos, out: &mut Vec<Happening>) {
        if self.suspected.is_none_or(|before| time.saturating_sub(before) > SUSPICION) {
            self.suspected = Some(time);
            out.push(Happening::Suspected);
        }
    }

    /// Somebody who is not the owner advertised.
    fn challenged(&mut self, owner: IpAddr, advert: &Advert, out: &mut Vec<Happening>) {
        let (source, time) = (advert.source, advert.time);
        let Some(old) = self.routers.get(&owner) else { return };
        let last = old.last();
        let is_new = !self.rivals.contains_key(&source);
        let (has_resigned, is_silent) = (old.has_resigned(), old.is_silent(time));
        if is_new {
            self.suspect(time, out);
        }
        if has_resigned {
            self.moved(owner, source, Cause::Shutdown, last, time, out);
        } else if is_silent {
            self.moved(owner, source, Cause::Timeout, last, time, out);
        } else {
            let new =
                Rivalry { since: time, owner_last: last, owner_insists: false, open: false, announced: None };
            let rivalry = self.rivals.entry(source).or_insert(new);
            if rivalry.owner_insists && !rivalry.open {
                rivalry.open = true;
                let conflict = conflict(owner, source, rivalry.since);
                out.push(Happening::ConflictOpened(conflict));
            }
        }
    }

    /// A goodbye ends a rivalry; an owner stays the owner until somebody else is.
    fn resigned(&mut self, source: IpAddr, time: Nanos, out: &mut Vec<Happening>) {
        if self.owner == Some(source) {
            self.suspect(time, out);
        }
        if let Some(owner) = self.owner
            && let Some(rivalry) = self.rivals.remove(&source)
        {
            self.settled(owner, source, rivalry, out);
        }
    }

    /// The rival is gone, the owner stays.
    fn settled(&self, owner: IpAddr, rival: IpAddr, rivalry: Rivalry, out: &mut Vec<Happening>) {
        let until = self.routers.get(&rival).map_or(rivalry.since, Router::last);
        out.push(if rivalry.open {
            Happening::ConflictClosed(conflict(owner, rival, rivalry.since), until)
        } else {
            Happening::BriefDouble { rival: Announcer::Router(rival) }
        });
    }

    fn moved(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        cause: Cause,
        last: Nanos,
        first: Nanos,
        out: &mut Vec<Happening>,
    ) {
        self.flush(out);
        self.owner = Some(to);
        self.lost = false;
        // What comes next is another incident.
        self.suspected = None;
        self.rivals.remove(&to);
        let is_own = self.routers.get(&from).is_some_and(Router::is_local);
        let (cause, last) = match (self.was_deaf_since(last), is_own) {
            (false, _) => (cause, Some(last)),
            // Its own last word is a fact.
            (true, true) => (Cause::Link, Some(last)),
            (true, false) => (Cause::Unknown, None),
        };
        let (from, to) = (Announcer::Router(from), Announcer::Router(to));
        self.pending = Some(Failover { from, to, cause, last, first, announced: None });
    }

    /// Hands out a failover that waited for its announcement.
    fn flush(&mut self, out: &mut Vec<Happening>) {
        out.extend(self.pending.take().map(Happening::Moved));
    }

    /// Somebody announced one of the addresses by gratuitous ARP or an unsolicited neighbour advertisement.
    pub fn announced(&mut self, vrid: u8, sender: MacAddress, time: Nanos, out: &mut Vec<Happening>) {
        // With a virtual MAC the advertisements may still come from the device's own.
        let is_virtual = sender.virtual_router() == Some(vrid);
        let is_of = |routers: &BTreeMap<IpAddr, Router>, address: &IpAddr| {
            routers.get(address).is_some_and(|router| is_virtual || router.has_mac(sender))
        };
        if let Some(pending) = &mut self.pending
            && let Announcer::Router(to) = pending.to
            && is_of(&self.routers, &to)
            && (pending.first..=pending.first + ANNOUNCEMENT).contains(&time)
        {
            pending.announced = Some(time);
            self.flush(out);
        }
        for (rival, rivalry) in &mut self.rivals {
            let is_timely = (rivalry.since..=rivalry.since + ANNOUNCEMENT).contains(&time);
            if is_timely && is_of(&self.routers, rival) {
                rivalry.announced.get_or_insert(time);
            }
        }
    }

    /// Time passes: silence is news, too.
    pub fn tick(&mut self, now: Nanos, out: &mut Vec<Happening>) {
        self.expire(now, out);
        if self.pending.is_some_and(|failover| now.saturating_sub(failover.first) > ANNOUNCEMENT) {
            self.flush(out);
        }
        let Some((owner, router)) = self.owner() else { return };
        let (last, is_silent, was_heard) = (router.last(), router.is_silent(now), router.was_heard(now));
        if is_silent && was_heard {
            self.suspect(now, out);
        }
        if !was_heard && !self.lost && !self.was_deaf_since(last) {
            self.lost = true;
            out.push(Happening::Lost { source: Announcer::Router(owner), last });
        }
    }

    /// Ends rivalries of which one side has fallen silent.
    fn expire(&mut self, now: Nanos, out: &mut Vec<Happening>) {
        let Some(owner) = self.owner else { return };
        let silent = |address: &IpAddr| self.routers.get(address).is_none_or(|router| router.is_silent(now));
        let owner_silent = silent(&owner);
        let gone: Vec<IpAddr> = self.rivals.keys().filter(|rival| silent(rival)).copied().collect();
        // The owner gave way: to the best rival that is still there, or to the only one that there was.
        let priority = |rival: &&IpAddr| self.routers.get(*rival).and_then(Router::priority);
        let left = self.rivals.keys().filter(|rival| !gone.contains(rival)).max_by_key(priority);
        let heir = left.or_else(|| gone.first()).copied();
        if owner_silent
            && let Some(heir) = heir
            && let Some(rivalry) = self.rivals.get(&heir).copied()
            && !(rivalry.owner_insists && gone.contains(&heir))
        {
            self.succeed(owner, heir, rivalry, out);
            return;
        }
        for rival in gone {
            if let Some(rivalry) = self.rivals.remove(&rival) {
                self.settled(owner, rival, rivalry, out);
            }
        }
    }

    /// The rival becomes the owner. A conflict that ends is no failover of its beginning: the addresses were at the
    /// rival already.
    fn succeed(&mut self, owner: IpAddr, heir: IpAddr, rivalry: Rivalry, out: &mut Vec<Happening>) {
        let old = self.routers.get(&owner);
        let until = old.map_or(rivalry.since, Router::last);
        let has_resigned = old.is_some_and(Router::has_resigned);
        if rivalry.open {
            let conflict = conflict(owner, heir, rivalry.since);
            out.push(Happening::ConflictClosed(conflict, until));
            let cause = if has_resigned { Cause::Shutdown } else { Cause::Preempted };
            self.moved(owner, heir, cause, until, until, out);
            return;
        }
        self.moved(owner, heir, Cause::Preempted, rivalry.owner_last, rivalry.since, out);
        if let Some(pending) = &mut self.pending {
            pending.announced = rivalry.announced;
        }
        if rivalry.announced.is_some() {
            self.flush(out);
        }
    }
}

fn conflict(owner: IpAddr, rival: IpAddr, since: Nanos) -> Conflict {
    Conflict { owner: Announcer::Router(owner), rival: Announcer::Router(rival), since }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
