//! An address that stations only announce to their neighbours, without advertisements: kube-vip, which repeats that for
//! ever, and `MetalLB`, which does so for some seconds when it takes an address. Pure: claims with their times in,
//! happenings out.

use std::collections::BTreeMap;

use super::happening::{Announcer, Cause, Conflict, Failover, Happening, Nanos};
use crate::wire::MacAddress;

/// Stations of one address that are told apart.
const STATIONS_MAX: usize = 16;
/// Both forms of an announcement, one right after the other, are one claim.
const ONE_CLAIM: Nanos = 200_000_000;
/// Whoever has claimed an address for longer than any burst at its beginning repeats it for ever.
const BURST: Nanos = 15_000_000_000;
/// Claims that a period is taken from at least.
const CLAIMS: u32 = 4;
/// How long after somebody else's claim the station before may still claim without being a rival. `MetalLB` goes on for
/// five seconds, kube-vip claims every three.
const REVIVAL: Nanos = 10_000_000_000;

/// A station that claims the address.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    /// The first claim of its present run.
    since: Nanos,
    last: Nanos,
    /// Claims of the run.
    claims: u32,
    local: bool,
}

impl Station {
    /// The time between two of its claims, if it repeats them for ever.
    #[must_use]
    pub fn period(&self) -> Option<Nanos> {
        let lasted = self.last.saturating_sub(self.since);
        let gaps = self.claims.saturating_sub(1);
        (self.claims >= CLAIMS && lasted >= BURST).then(|| lasted / Nanos::from(gaps.max(1)))
    }

    /// Whether it repeats its claim and has missed two.
    #[must_use]
    pub fn is_silent(&self, now: Nanos) -> bool {
        // A little more than two: a claim may be late.
        self.period().is_some_and(|period| now.saturating_sub(self.last) > period * 2 + period / 4)
    }

    /// When it claimed last.
    #[must_use]
    pub const fn last(&self) -> Nanos {
        self.last
    }

    /// Whether it is this node.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.local
    }

    fn claims(&mut self, time: Nanos, local: bool) {
        let gap = time.saturating_sub(self.last);
        if gap < ONE_CLAIM {
            return;
        }
        if self.is_silent(time) || gap > BURST {
            (self.since, self.claims) = (time, 0);
        }
        (self.last, self.local) = (time, local);
        self.claims = self.claims.saturating_add(1);
    }
}

/// Two stations that claim in turn.
#[derive(Clone, Copy, Debug)]
struct Dispute {
    /// Who had the address before.
    before: MacAddress,
    /// The owner's first claim.
    since: Nanos,
    /// Claims of the one before since then; the first may have been on its way.
    back: u32,
    /// Its first claim after the owner's last one.
    return_at: Nanos,
    /// The owner claimed between them.
    forth: bool,
    open: bool,
}

/// Everybody who claims one address.
#[derive(Debug, Default)]
pub struct Claims {
    stations: BTreeMap<MacAddress, Station>,
    owner: Option<MacAddress>,
    dispute: Option<Dispute>,
    deaf: Option<Nanos>,
    lost: bool,
}

impl Claims {
    /// All stations that are remembered.
    #[must_use]
    pub fn stations(&self) -> &BTreeMap<MacAddress, Station> {
        &self.stations
    }

    /// Who has the address.
    #[must_use]
    pub const fn owner(&self) -> Option<MacAddress> {
        self.owner
    }

    /// Whether more than one station has claimed the address: every host that starts claims its own.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.stations.len() > 1
    }

    /// Whether two stations hold on to the address now.
    #[must_use]
    pub fn in_conflict(&self) -> bool {
        self.dispute.is_some_and(|dispute| dispute.open)
    }

    /// Whether a station announces the address now. Of one that does not repeat its claim the last word holds.
    #[must_use]
    pub fn is_announcing(&self, station: MacAddress, now: Nanos) -> bool {
        let is_rival = self.dispute.is_some_and(|dispute| dispute.open && dispute.before == station);
        let is_silent = self.stations.get(&station).is_none_or(|known| known.is_silent(now));
        (self.owner == Some(station) || is_rival) && !is_silent
    }

    /// The last claim of anybody.
    #[must_use]
    pub fn last(&self) -> Nanos {
        self.stations.values().map(Station::last).max().unwrap_or_default()
    }

    /// This node does not hear the others, or has missed something.
    pub fn deafened(&mut self, now: Nanos) {
        self.deaf = Some(now);
    }

    fn was_deaf_since(&self, last: Nanos) -> bool {
        self.deaf.is_some_and(|deaf| deaf >= last)
    }

    /// Somebody claims the address. `None`: one station too many.
    pub fn claimed(
        &mut self,
        station: MacAddress,
        time: Nanos,
        local: bool,
        out: &mut Vec<Happening>,
    ) -> Option<()> {
        self.settle(time, out);
        let before = self.stations.get(&station).copied();
        let owner_before = self.owner.and_then(|owner| self.stations.get(&owner)).copied();
        if before.is_none() && self.stations.len() >= STATIONS_MAX {
            return None;
        }
        let new = Station { since: time, last: time, claims: 1, local };
        self.stations.entry(station).and_modify(|known| known.claims(time, local)).or_insert(new);
        let Some(owner) = self.owner else {
            self.owner = Some(station);
            out.push(Happening::Owned { source: Announcer::Station(station) });
            return Some(());
        };
        if owner == station {
            if let Some(dispute) = &mut self.dispute {
                dispute.forth |= dispute.back > 0;
            }
            if let Some(known) = before
                && std::mem::take(&mut self.lost)
            {
                let source = Announcer::Station(station);
                out.push(Happening::Returned { source, last: known.last, first: time });
            }
            return Some(());
        }
        self.challenged(owner, owner_before, station, time, out);
        Some(())
    }

    /// Somebody who is not the owner claims the address.
    fn challenged(
        &mut self,
        owner: MacAddress,
        known: Option<Station>,
        station: MacAddress,
        time: Nanos,
        out: &mut Vec<Happening>,
    ) {
        let Some(known) = known else { return };
        let is_back = self.dispute.is_some_and(|dispute| dispute.before == station);
        let is_owner_there = !known.is_silent(time) && time.saturating_sub(known.last) < REVIVAL;
        if is_back && is_owner_there {
            self.insist(owner, time, out);
            return;
        }
        out.push(Happening::Suspected);
        self.moved(owner, known, station, time, out);
    }

    /// The station before claims again although another one has the address.
    fn insist(&mut self, owner: MacAddress, time: Nanos, out: &mut Vec<Happening>) {
        let Some(dispute) = &mut self.dispute else { return };
        if dispute.back == 0 {
            dispute.return_at = time;
        }
        dispute.back += 1;
        if dispute.forth && !dispute.open {
            dispute.open = true;
            out.push(Happening::ConflictOpened(conflict(dispute, owner)));
        }
    }

    fn moved(
        &mut self,
        from: MacAddress,
        known: Station,
        to: MacAddress,
        first: Nanos,
        out: &mut Vec<Happening>,
    ) {
        let is_deaf = self.was_deaf_since(known.last);
        let cause = match (is_deaf, known.local) {
            (true, true) => Cause::Link,
            (false, _) if known.is_silent(first) => Cause::Timeout,
            // Nobody says goodbye here.
            _ => Cause::Unknown,
        };
        // The last claim of one that does not repeat it says nothing of when it was there last.
        let last = known.period().filter(|_| !is_deaf).map(|_| known.last);
        self.owner = Some(to);
        self.lost = false;
        self.dispute = Some(Dispute {
            before: from,
            since: first,
            back: 0,
            return_at: first,
            forth: false,
            open: false,
        });
        let (from, to) = (Announcer::Station(from), Announcer::Station(to));
        out.push(Happening::Moved(Failover { from, to, cause, last, first, announced: Some(first) }));
    }

    /// Time passes: whoever repeats its claim and does not any more has failed.
    pub fn tick(&mut self, now: Nanos, out: &mut Vec<Happening>) {
        self.settle(now, out);
        let Some((owner, known)) = self.owner.and_then(|owner| Some((owner, *self.stations.get(&owner)?)))
        else {
            return;
        };
        if known.is_silent(now) && !self.lost && !self.was_deaf_since(known.last) {
            self.lost = true;
            out.push(Happening::Suspected);
            out.push(Happening::Lost { source: Announcer::Station(owner), last: known.last });
        }
    }

    /// Ends a dispute of which one side has fallen silent.
    fn settle(&mut self, now: Nanos, out: &mut Vec<Happening>) {
        let Some(owner) = self.owner else { return };
        let Some(dispute) = self.dispute.filter(|dispute| dispute.back > 0) else { return };
        let last = |station: MacAddress| self.stations.get(&station).map_or(0, Station::last);
        let (owner_last, before_last) = (last(owner), last(dispute.before));
        let is_gone = |last: Nanos| now.saturating_sub(last) > REVIVAL;
        match (is_gone(owner_last), is_gone(before_last)) {
            (false, true) => {
                self.dispute = None;
                out.push(if dispute.open {
                    Happening::ConflictClosed(conflict(&dispute, owner), before_last)
                } else {
                    Happening::BriefDouble { rival: Announcer::Station(dispute.before) }
                });
            }
            (true, false) => {
                // The address is back where it was.
                let Some(known) = self.stations.get(&owner).copied() else { return };
                let first = if dispute.open { owner_last } else { dispute.return_at };
                if dispute.open {
                    out.push(Happening::ConflictClosed(conflict(&dispute, owner), owner_last));
                }
                self.moved(owner, known, dispute.before, first, out);
                self.dispute = None;
            }
            // Both claimed only when they took it: nobody says who has it now.
            (true, true) if !dispute.open => self.dispute = None,
            _ => {}
        }
    }

    /// Forgets stations that have not claimed for this long and are not the owner.
    pub fn forget(&mut self, now: Nanos, after: Nanos) {
        let owner = self.owner;
        self.stations
            .retain(|station, known| owner == Some(*station) || now.saturating_sub(known.last) <= after);
    }
}

fn conflict(dispute: &Dispute, owner: MacAddress) -> Conflict {
    let (owner, rival) = (Announcer::Station(dispute.before), Announcer::Station(owner));
    Conflict { owner, rival, since: dispute.since }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Nanos = 1_000_000;
    const SECOND: Nanos = 1_000 * MILLI;

    fn mac(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, last])
    }

    fn station(last: u8) -> Announcer {
        Announcer::Station(mac(last))
    }

    #[derive(Default)]
    struct Replay {
        claims: Claims,
        said: Vec<Happening>,
    }

    impl Replay {
        /// Claims of a station every so often from a time on until another, in milliseconds.
        fn claim(&mut self, by: u8, from: u64, until: u64, every: u64) -> &mut Self {
            for at in (from..until).step_by(usize::try_from(every).unwrap()) {
                self.claims.claimed(mac(by), at * MILLI, false, &mut self.said).unwrap();
                self.claims.tick((at + 1) * MILLI, &mut self.said);
            }
            self
        }

        fn tick(&mut self, from: u64, until: u64) -> &mut Self {
            for at in (from..until).step_by(100) {
                self.claims.tick(at * MILLI, &mut self.said);
            }
            self
        }

        /// What was said, but for who came first and for suspicions.
        fn told(&self) -> Vec<Happening> {
            let is_told = |said: &&Happening| !matches!(said, Happening::Owned { .. } | Happening::Suspected);
            self.said.iter().filter(is_told).copied().collect()
        }
    }

    fn moved(from: u8, to: u8, cause: Cause, last: Option<u64>, first: u64) -> Happening {
        let (last, first) = (last.map(|at| at * MILLI), first * MILLI);
        let (from, to) = (station(from), station(to));
        Happening::Moved(Failover { from, to, cause, last, first, announced: Some(first) })
    }

    #[test]
    fn the_address_of_a_host_that_starts_is_no_virtual_one() {
        let mut replay = Replay::default();
        replay.claim(1, 0, 3_000, 1_000);
        assert!(!replay.claims.is_virtual());
        replay.claim(2, 60_000, 61_000, 1_000);
        assert!(replay.claims.is_virtual());
    }

    #[test]
    fn a_repeating_announcer_that_stops_is_lost_after_two_periods() {
        let mut replay = Replay::default();
        replay.claim(1, 0, 60_001, 3_000).tick(60_000, 66_700);
        assert_eq!(replay.told(), []);
        assert!(replay.claims.is_announcing(mac(1), 66_000 * MILLI));
        replay.tick(66_700, 67_000);
        assert_eq!(replay.told(), [Happening::Lost { source: station(1), last: 60_000 * MILLI }]);
        assert!(!replay.claims.is_announcing(mac(1), 67_000 * MILLI));
        replay.claim(2, 75_000, 76_000, 3_000);
        assert_eq!(replay.told()[1], moved(1, 2, Cause::Timeout, Some(60_000), 75_000));
    }

    #[test]
    fn a_repeating_announcer_that_comes_back_was_away() {
        let mut replay = Replay::default();
        replay.claim(1, 0, 60_001, 3_000).tick(60_000, 80_000).claim(1, 80_000, 81_000, 3_000);
        let source = station(1);
        let (last, first) = (60_000 * MILLI, 80_000 * MILLI);
        assert_eq!(
            replay.told(),
            [Happening::Lost { source, last }, Happening::Returned { source, last, first }]
        );
    }

    #[test]
    fn a_handover_between_repeating_announcers_has_no_known_cause() {
        let mut replay = Replay::default();
        replay.claim(1, 0, 60_001, 3_000).claim(2, 61_000, 70_000, 3_000).tick(70_000, 72_000);
        assert_eq!(replay.told(), [moved(1, 2, Cause::Unknown, Some(60_000), 61_000)]);
        assert!(replay.claims.is_announcing(mac(2), 72_000 * MILLI));
        assert!(!replay.claims.is_announcing(mac(1), 72_000 * MILLI));
    }

    #[test]
    fn an_announcer_of_bursts_is_never_silent() {
        let mut replay = Replay::default();
        // Both forms each 1.1 s for five seconds, once in a day.
        for burst in 0..5 {
            replay.claim(1, burst * 1_100, burst * 1_100 + 2, 1);
        }
        replay.tick(5_000, 600_000);
        assert_eq!(replay.told(), []);
        assert!(replay.claims.is_announcing(mac(1), 600_000 * MILLI));
        replay.claim(2, 600_000, 600_001, 1);
        assert_eq!(replay.told(), [moved(1, 2, Cause::Unknown, None, 600_000)]);
    }

    #[test]
    fn one_late_claim_of_the_station_before_is_no_conflict() {
        let mut replay = Replay::default();
        replay.claim(1, 0, 60_001, 3_000).claim(2, 61_000, 61_001, 1).claim(1, 61_050, 61_051, 1);
        replay.claim(2, 64_000, 85_000, 3_000);
        let brief = Happening::BriefDouble { rival: station(1) };
        assert_eq!(replay.told(), [moved(1, 2, Cause::Unknown, Some(60_000), 61_000), brief]);
    }

    #[test]
    fn two_that_claim_in_turn_are_a_conflict_until_one_stops() {
        let mut replay = Replay::default();
        replay.claim(1, 0, 60_001, 3_000);
        for turn in 0..10 {
            replay.claim(2, 61_000 + turn * 3_000, 61_001 + turn * 3_000, 1);
            replay.claim(1, 63_000 + turn * 3_000, 63_001 + turn * 3_000, 1);
        }
        assert!(replay.claims.in_conflict());
        let conflict = Conflict { owner: station(1), rival: station(2), since: 61_000 * MILLI };
        assert_eq!(replay.told()[1..], [Happening::ConflictOpened(conflict)]);
        replay.claim(2, 91_000, 104_000, 3_000);
        assert_eq!(replay.told()[2..], [Happening::ConflictClosed(conflict, 90_000 * MILLI)]);
        assert!(!replay.claims.in_conflict());
    }

    #[test]
    fn an_address_that_comes_back_at_once_moved_twice() {
        let mut replay = Replay::default();
        replay.claim(1, 0, 60_001, 3_000).claim(2, 61_000, 61_001, 1);
        replay.claim(1, 64_000, 80_000, 3_000);
        let back = moved(2, 1, Cause::Unknown, None, 64_000);
        assert_eq!(replay.told(), [moved(1, 2, Cause::Unknown, Some(60_000), 61_000), back]);
    }

    #[test]
    fn stations_are_bounded() {
        let mut replay = Replay::default();
        for number in 0..16 {
            replay.claim(number, u64::from(number), u64::from(number) + 1, 1);
        }
        assert_eq!(replay.claims.claimed(mac(99), SECOND, false, &mut Vec::new()), None);
    }
}
