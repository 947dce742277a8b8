//! One virtual router and everybody who advertises it: who owns it, who disputes that, and when it moved. Pure:
//! advertisements and announcements with their times in, happenings out. All times are of this node's monotonic clock.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::router::{Advert, Router};
use crate::wire::MacAddress;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub type Nanos = u64;

/// Routers of one virtual router that are told apart; more is an attack or a mistake.
const ROUTERS_MAX: usize = 16;
/// How long after a failover its announcement is waited for.
const ANNOUNCEMENT: Nanos = 1_000_000_000;

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
    /// None of these.
    Unknown,
}

impl Cause {
    /// All causes, in the order of the page.
    pub const ALL: [Self; 5] = [Self::Link, Self::Preempted, Self::Shutdown, Self::Timeout, Self::Unknown];

    /// The value of the `cause` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Timeout => "timeout",
            Self::Preempted => "preempted",
            Self::Link => "link",
            Self::Unknown => "unknown",
        }
    }
}

/// A move of the addresses from one router to another, or back to itself after a goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// The old owner.
    pub from: IpAddr,
    /// The new one.
    pub to: IpAddr,
    /// Why.
    pub cause: Cause,
    /// The last advertisement of the old owner, goodbyes included.
    pub last: Nanos,
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
        source: IpAddr,
    },
    /// The addresses moved.
    Moved(Failover),
    /// Two routers hold on to the addresses, each having heard the other.
    ConflictOpened(Conflict),
    /// One of them gave up, and when it advertised last.
    ConflictClosed(Conflict, Nanos),
    /// Two routers advertised, and one of them gave up when it heard the other.
    BriefDouble {
        /// The one that was not the owner.
        rival: IpAddr,
    },
}

/// Two routers that hold on to the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who had them first.
    pub owner: IpAddr,
    /// Who came second.
    pub rival: IpAddr,
    /// The rival's first advertisement.
    pub since: Nanos,
}

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
    /// When this node's link to the others was last seen down.
    link_down: Option<Nanos>,
}

impl Contest {
    /// All routers by their address.
    #[must_use]
    pub fn routers(&self) -> &BTreeMap<IpAddr, Router> {
        &self.routers
    }

    /// The owner's addresses; without an owner those that were advertised last.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        let owner = self.owner.and_then(|owner| self.routers.get(&owner));
        let latest = || self.routers.values().max_by_key(|router| router.last());
        owner.or_else(latest).map_or(&[], Router::addresses)
    }

    /// Whether two routers hold on to the addresses now.
    #[must_use]
    pub fn in_conflict(&self) -> bool {
        self.rivals.values().any(|rivalry| rivalry.open)
    }

    /// Whether nobody has advertised for this long.
    #[must_use]
    pub fn is_forgotten(&self, now: Nanos, after: Nanos) -> bool {
        self.routers.values().all(|router| now.saturating_sub(router.last()) > after)
    }

    /// This node's own link was seen down.
    pub fn link_lost(&mut self, now: Nanos) {
        self.link_down = Some(now);
    }

    /// Somebody advertised. `None`: one router too many.
    pub fn advertised(&mut self, advert: &Advert, out: &mut Vec<Happening>) -> Option<()> {
        self.expire(advert.time, out);
        let source = advert.source;
        let is_known = self.routers.contains_key(&source);
        if !is_known && self.routers.len() >= ROUTERS_MAX {
            return None;
        }
        if self.routers.get(&source).is_some_and(|router| router.is_copy(advert)) {
            return Some(());
        }
        let before = self.routers.get(&source).map(|router| (router.last(), router.has_resigned()));
        let is_active = self.owner == Some(source) || self.rivals.contains_key(&source);
        let router = self.routers.entry(source).or_insert_with(|| Router::new(advert));
        router.advertised(advert, is_active);
        if advert.priority == 0 {
            self.resigned(source, out);
            return Some(());
        }
        match self.owner {
            None => {
                self.owner = Some(source);
                out.push(Happening::Owned { source });
            }
            Some(owner) if owner == source => {
                if let Some((last, true)) = before {
                    self.moved(owner, source, Cause::Shutdown, last, advert.time, out);
                }
                for rivalry in self.rivals.values_mut() {
                    rivalry.owner_insists = true;
                }
            }
            Some(owner) => self.challenged(owner, advert, out),
        }
        Some(())
    }

    /// Somebody who is not the owner advertised.
    fn challenged(&mut self, owner: IpAddr, advert: &Advert, out: &mut Vec<Happening>) {
        let (source, time) = (advert.source, advert.time);
        let Some(old) = self.routers.get(&owner) else { return };
        let last = old.last();
        if old.has_resigned() {
            self.moved(owner, source, Cause::Shutdown, last, time, out);
        } else if old.is_silent(time) {
            self.moved(owner, source, Cause::Timeout, last, time, out);
        } else {
            let new =
                Rivalry { since: time, owner_last: last, owner_insists: false, open: false, announced: None };
            let rivalry = self.rivals.entry(source).or_insert(new);
            if rivalry.owner_insists && !rivalry.open {
                rivalry.open = true;
                out.push(Happening::ConflictOpened(Conflict { owner, rival: source, since: rivalry.since }));
            }
        }
    }

    /// A goodbye ends a rivalry; an owner stays the owner until somebody else is.
    fn resigned(&mut self, source: IpAddr, out: &mut Vec<Happening>) {
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
            Happening::ConflictClosed(Conflict { owner, rival, since: rivalry.since }, until)
        } else {
            Happening::BriefDouble { rival }
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
        self.rivals.remove(&to);
        let lost_link = self.link_down.is_some_and(|down| down >= last);
        let is_own = self.routers.get(&from).is_some_and(Router::is_local);
        let cause = if lost_link && is_own { Cause::Link } else { cause };
        self.pending = Some(Failover { from, to, cause, last, first, announced: None });
    }

    /// Hands out a failover that waited for its announcement.
    fn flush(&mut self, out: &mut Vec<Happening>) {
        out.extend(self.pending.take().map(Happening::Moved));
    }

    /// Somebody announced one of the addresses by gratuitous ARP or an unsolicited neighbour advertisement.
    pub fn announced(&mut self, sender: MacAddress, time: Nanos, out: &mut Vec<Happening>) {
        let is_of = |routers: &BTreeMap<IpAddr, Router>, address: &IpAddr| {
            routers.get(address).is_some_and(|router| router.has_mac(sender))
        };
        if let Some(pending) = &mut self.pending
            && is_of(&self.routers, &pending.to)
            && time >= pending.first
        {
            pending.announced = Some(time);
            self.flush(out);
        }
        for (rival, rivalry) in &mut self.rivals {
            if is_of(&self.routers, rival) {
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
    }

    /// Ends rivalries of which one side has fallen silent.
    fn expire(&mut self, now: Nanos, out: &mut Vec<Happening>) {
        let Some(owner) = self.owner else { return };
        let silent = |address: &IpAddr| self.routers.get(address).is_none_or(|router| router.is_silent(now));
        let owner_silent = silent(&owner);
        let gone: Vec<IpAddr> = self.rivals.keys().filter(|rival| silent(rival)).copied().collect();
        // The owner gave way: to the rival that is still there, or to the only one that there was.
        let heir = self.rivals.keys().find(|rival| !gone.contains(rival)).or_else(|| gone.first()).copied();
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

    /// The rival becomes the owner.
    fn succeed(&mut self, owner: IpAddr, heir: IpAddr, rivalry: Rivalry, out: &mut Vec<Happening>) {
        let until = self.routers.get(&owner).map_or(rivalry.since, Router::last);
        if rivalry.open {
            let conflict = Conflict { owner, rival: heir, since: rivalry.since };
            out.push(Happening::ConflictClosed(conflict, until));
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
