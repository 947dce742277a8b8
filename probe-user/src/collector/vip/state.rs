//! Everything the tap has heard of virtual addresses: the contests by virtual router, and what became of each address.
//! Pure: observations with their times in, happenings out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::contest::{Cause, Contest, Failover, Happening, Nanos};
use super::router::Advert;
use crate::wire::{MacAddress, Malformed, Message, Observation, Reason, vrrp};

/// Virtual routers that are told apart; more is an attack or a mistake.
const CONTESTS_MAX: usize = 64;
/// Addresses that have a history; more is an attack.
const HISTORIES_MAX: usize = 1_024;
/// A virtual router or an address that nobody has advertised for this long is gone.
const FORGOTTEN: Nanos = 3_600 * 1_000_000_000;

/// Upper bounds of the phases of a failover in seconds.
pub(super) const PHASE_BOUNDS: [f64; 13] =
    [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 30.0];

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

/// Times of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// Not cumulative, the last for everything above.
    pub(super) buckets: [u64; PHASE_BOUNDS.len() + 1],
    /// Sum in seconds.
    pub(super) sum: f64,
    /// The last one.
    pub(super) last: Option<f64>,
}

impl Phase {
    /// A phase of which one end is not known is not observed, and the last one is not that of an earlier failover.
    fn observe(&mut self, from: Option<Nanos>, to: Option<Nanos>) {
        self.last = None;
        let (Some(from), Some(to)) = (from, to) else { return };
        let seconds = Duration::from_nanos(to.saturating_sub(from)).as_secs_f64();
        let bucket = PHASE_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(PHASE_BOUNDS.len());
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
        self.last = Some(seconds);
    }
}

/// What has become of one virtual address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Failovers by cause, in the order of [`Cause::ALL`].
    pub(super) failovers: [u64; Cause::ALL.len()],
    /// From the old owner's last advertisement to the new owner's first.
    pub(super) detect: Phase,
    /// From there to the new owner's first announcement to its neighbours.
    pub(super) announce: Phase,
    /// Two routers that insisted.
    pub(super) conflicts: u64,
    /// Seconds that closed conflicts have lasted.
    pub(super) conflict_seconds: f64,
    /// Two routers of which one gave way at once.
    pub(super) brief: u64,
    /// When the address was last advertised.
    advertised: Nanos,
}

impl History {
    fn moved(&mut self, failover: &Failover) {
        for (cause, count) in Cause::ALL.iter().zip(&mut self.failovers) {
            *count += u64::from(*cause == failover.cause);
        }
        self.detect.observe(failover.last, Some(failover.first));
        self.announce.observe(Some(failover.first), failover.announced);
    }
}

/// A happening, with what it happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The virtual router.
    pub router: VirtualRouter,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What happened.
    pub happening: Happening,
}

/// All that was heard.
#[derive(Debug, Default)]
pub struct State {
    contests: BTreeMap<VirtualRouter, Contest>,
    histories: BTreeMap<IpAddr, History>,
    malformed: [u64; Reason::ALL.len()],
    limited: u64,
    /// Whether each uplink is tapped, by its name.
    uplinks: BTreeMap<String, bool>,
}

impl State {
    /// Virtual routers.
    #[must_use]
    pub fn contests(&self) -> &BTreeMap<VirtualRouter, Contest> {
        &self.contests
    }

    /// Every virtual address that is known now, however it became known.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.contests.values().flat_map(Contest::addresses).collect()
    }

    /// Virtual addresses.
    #[must_use]
    pub fn histories(&self) -> &BTreeMap<IpAddr, History> {
        &self.histories
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
            Message::Arp(arp) if arp.kind().is_gratuitous() => {
                self.announced(&interface, arp.sender.into(), arp.sender_mac, passage.time)
            }
            Message::NeighbourAdvertisement(advert) if advert.is_unsolicited() => {
                let sender = advert.target_mac.or(link.source);
                sender.map_or_else(Vec::new, |sender| {
                    self.announced(&interface, advert.target.into(), sender, passage.time)
                })
            }
            Message::Arp(_) | Message::NeighbourAdvertisement(_) => Vec::new(),
        }
    }

    fn advertised(
        &mut self,
        passage: &Passage,
        interface: Arc<str>,
        mac: Option<MacAddress>,
        heard: vrrp::Advertisement,
    ) -> Vec<Notice> {
        let router = VirtualRouter { interface, vrid: heard.vrid, family: Family::of(heard.source) };
        let is_room = self.contests.len() < CONTESTS_MAX || self.contests.contains_key(&router);
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
        let accepted = is_room
            .then(|| self.contests.entry(router.clone()).or_default())
            .and_then(|contest| contest.advertised(&advert, &mut happenings));
        if accepted.is_none() {
            self.limited += 1;
            return Vec::new();
        }
        self.advertised_addresses(&advert);
        self.note(&router, happenings)
    }

    /// Every address that is advertised has its history from then on.
    fn advertised_addresses(&mut self, advert: &Advert) {
        for address in &advert.addresses {
            if let Some(history) = self.histories.get_mut(address) {
                history.advertised = advert.time;
            } else if self.histories.len() < HISTORIES_MAX {
                self.histories.insert(*address, History { advertised: advert.time, ..History::default() });
            } else {
                self.limited += 1;
            }
        }
    }

    fn announced(&mut self, interface: &str, address: IpAddr, mac: MacAddress, time: Nanos) -> Vec<Notice> {
        let mut heard = Vec::new();
        for (router, contest) in &mut self.contests {
            if *router.interface == *interface && contest.addresses().contains(&address) {
                let mut happenings = Vec::new();
                contest.announced(router.vrid, mac, time, &mut happenings);
                heard.push((router.clone(), happenings));
            }
        }
        heard.into_iter().flat_map(|(router, happenings)| self.note(&router, happenings)).collect()
    }

    /// This node does not hear what is on these uplinks, or has missed something of it.
    pub fn deafened(&mut self, is_deaf: impl Fn(&str) -> bool, now: Nanos) {
        for (router, contest) in &mut self.contests {
            let trunk = router.interface.rsplit_once('.').map(|(trunk, _)| trunk);
            if is_deaf(&router.interface) || trunk.is_some_and(&is_deaf) {
                contest.deafened(now);
            }
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: Nanos) -> Vec<Notice> {
        self.contests.retain(|_, contest| !contest.is_forgotten(now, FORGOTTEN));
        let mut heard = Vec::new();
        for (router, contest) in &mut self.contests {
            let mut happenings = Vec::new();
            contest.forget(now, FORGOTTEN);
            contest.tick(now, &mut happenings);
            heard.push((router.clone(), happenings));
        }
        let notices =
            heard.into_iter().flat_map(|(router, happenings)| self.note(&router, happenings)).collect();
        self.histories.retain(|_, history| now.saturating_sub(history.advertised) <= FORGOTTEN);
        notices
    }

    /// Writes what happened into the histories of the addresses.
    fn note(&mut self, router: &VirtualRouter, happenings: Vec<Happening>) -> Vec<Notice> {
        if happenings.is_empty() {
            return Vec::new();
        }
        let contest = self.contests.get(router);
        let addresses: Vec<IpAddr> = contest.into_iter().flat_map(Contest::addresses).collect();
        for address in &addresses {
            let Some(history) = self.histories.get_mut(address) else { continue };
            for happening in &happenings {
                match happening {
                    Happening::Owned { .. } => {}
                    Happening::Moved(failover) => history.moved(failover),
                    Happening::ConflictOpened(_) => history.conflicts += 1,
                    Happening::ConflictClosed(conflict, until) => {
                        let lasted = Duration::from_nanos(until.saturating_sub(conflict.since));
                        history.conflict_seconds += lasted.as_secs_f64();
                    }
                    Happening::BriefDouble { .. } => history.brief += 1,
                }
            }
        }
        let notice = |happening| Notice { router: router.clone(), addresses: addresses.clone(), happening };
        happenings.into_iter().map(notice).collect()
    }
}

/// The interface as people name it: a tagged frame belongs to the VLAN's.
fn interface(uplink: &Arc<str>, vlan: Option<u16>) -> Arc<str> {
    match vlan {
        None | Some(0) => Arc::clone(uplink),
        Some(vlan) => format!("{uplink}.{vlan}").into(),
    }
}
