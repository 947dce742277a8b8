//! From one round of questions to the next: who is a member, who takes part, what changed. Pure: rounds with their
//! times in, what is shown and what is told out.
//!
//! What was read last stays with its age; what a member has answered is shown only as long as it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::events;
use super::history::{Disk, Growth};
use super::judge::{Judgement, Subject, View, differences, judge};
use super::round::Round;
use crate::event::{Occurrence, Timestamp};
use crate::source::etcd::{Alarm, Cause, Member, MemberId, Page, Peer, WAL_FSYNC_BOUNDS};

/// Times the election timeout that an election may take: its parts are random, and a vote may be split.
const ELECTIONS: u32 = 3;
/// The election timeout where it is not known: that of etcd and of kubeadm.
const USUAL_ELECTION: Duration = Duration::from_secs(1);
/// Rounds in a row without an answer in time, until it is told.
const LATE_IS_LOST: u32 = 2;

/// What the agent sees of etcd.
#[derive(Debug, Default)]
pub enum Sight {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is none; why.
    Absent(&'static str),
    /// This is what the last round gave.
    Seen(Box<Round>),
}

/// What is remembered of a member.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// When it answered last.
    pub(super) answered: Option<Timestamp>,
    /// Since when it is a learner, as far as was seen.
    pub(super) learner_since: Option<Timestamp>,
    /// Rounds in a row in which it did not answer in time.
    late: u32,
    /// Since when it answers without following the leader of the others.
    apart_since: Option<Duration>,
    /// Whether it was told that it is lost.
    is_told: bool,
    pub(super) growth: Growth,
}

/// The last member list.
#[derive(Debug)]
pub(super) struct List {
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) read: Timestamp,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct State {
    sight: Sight,
    pub(super) list: Option<List>,
    pub(super) memories: BTreeMap<MemberId, Memory>,
    pub(super) judgement: Option<Judgement>,
    pub(super) has_quorum: Option<bool>,
    /// What the members say differently in two rounds in a row.
    pub(super) disagreement: BTreeSet<Subject>,
    differed: BTreeSet<Subject>,
    pub(super) alarms: BTreeSet<(MemberId, Alarm)>,
    pub(super) disk: Disk,
    /// The last smoothed round trip to each peer in etcd's own histogram, and the histogram that it was taken from.
    pub(super) smoothed: BTreeMap<MemberId, ((u64, f64), Option<f64>)>,
    /// Whether the list names a member that could not be asked yet.
    unasked: bool,
    leader: Option<MemberId>,
    /// Changes of leader on the page of this node's member.
    changes: Option<u64>,
    /// When a leader was seen last.
    led: Option<Duration>,
    quorum_is_told: Option<bool>,
}

impl State {
    /// What is seen now.
    #[must_use]
    pub const fn sight(&self) -> &Sight {
        &self.sight
    }

    /// The members to ask: those of the last list.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.list.iter().flat_map(|list| list.members.values().cloned()).collect()
    }

    /// Takes note that there is no etcd. Nothing that was known of one is kept.
    pub fn miss(&mut self, reason: &'static str) {
        *self = Self { sight: Sight::Absent(reason), ..Self::default() };
    }

    /// Takes a round, and says what of it is news.
    pub fn observe(&mut self, round: Round) -> Vec<Occurrence> {
        let mut news = Vec::new();
        self.take_list(&round, &mut news);
        self.take_answers(&round);
        self.take_page(&round);
        self.judge(&round);
        self.compare(&round);
        self.tell_members(&round, &mut news);
        self.tell_leader(&round, &mut news);
        self.tell_quorum(&round, &mut news);
        self.tell_alarms(&round, &mut news);
        self.sight = Sight::Seen(Box::new(round));
        news
    }

    /// The name of a member, for people.
    pub(super) fn name(&self, id: MemberId) -> String {
        let member = self.list.as_ref().and_then(|list| list.members.get(&id));
        member
            .filter(|member| !member.name.is_empty())
            .map_or_else(|| id.to_string(), |member| member.name.clone())
    }

    fn take_list(&mut self, round: &Round, news: &mut Vec<Occurrence>) {
        self.unasked = false;
        let Some(told) = round.best_list() else { return };
        let members = told.iter().take(crate::source::etcd::MOST_MEMBERS);
        let members: BTreeMap<MemberId, Member> = members.map(|member| (member.id, member.clone())).collect();
        if let Some(before) = &self.list {
            news.extend(events::of_lists(&before.members, &members, round.time));
        }
        let before = self.list.as_ref().map(|list| &list.members);
        let is_new = |id: &MemberId| !before.is_some_and(|before| before.contains_key(id));
        self.unasked = members.values().any(|member| {
            !member.client_urls.is_empty() && is_new(&member.id) && !round.answers.contains_key(&member.id)
        });
        self.memories.retain(|id, _| members.contains_key(id));
        for (id, member) in &members {
            let memory = self.memories.entry(*id).or_default();
            let since = memory.learner_since.get_or_insert(round.time);
            memory.learner_since = Some(*since).filter(|_| member.is_learner);
        }
        self.list = Some(List { members, read: round.time });
    }

    fn take_answers(&mut self, round: &Round) {
        for (id, memory) in &mut self.memories {
            match (round.status(*id), round.failure(*id)) {
                (Some(status), _) => {
                    memory.answered = Some(round.time);
                    memory.late = 0;
                    if let Some(bytes) = status.database {
                        memory.growth.add(round.now, bytes);
                    }
                }
                (None, Some(_)) => memory.late = memory.late.saturating_add(1),
                (None, None) => {}
            }
        }
    }

    fn take_page(&mut self, round: &Round) {
        let Ok(page) = &round.page else { return };
        if let Some(fsync) = &page.wal_fsync {
            self.disk.add(round.now, fsync);
        }
        if let (Some(id), Some(bytes), None) = (page.member, page.database, &self.list) {
            self.memories.entry(id).or_default().growth.add(round.now, bytes);
        }
        self.smoothed.retain(|id, _| page.peers.contains_key(id));
        for (id, Peer { round_trips, .. }) in &page.peers {
            let Some(now) = *round_trips else { continue };
            let last = self.smoothed.get(id).and_then(|(before, last)| newest(*before, now).or(*last));
            self.smoothed.insert(*id, (now, last));
        }
    }

    fn judge(&mut self, round: &Round) {
        let Some(list) = &self.list else {
            self.judgement = None;
            let page = round.page.as_ref().ok();
            self.has_quorum = page.and_then(|page| page.has_leader);
            return;
        };
        if self.unasked {
            // Who is in the list for the first time is asked in the next round: until then nothing is said of it.
            return;
        }
        let patience = patience(round);
        let views = |memories: &BTreeMap<MemberId, Memory>| -> Vec<View<'_>> {
            let view = |member| view(member, round, memories);
            list.members.values().map(view).collect()
        };
        let leader = judge(&views(&self.memories), patience).leader;
        for (id, memory) in &mut self.memories {
            let is_apart =
                round.status(*id).is_some_and(|status| leader.is_some() && status.leader != leader);
            let since = *memory.apart_since.get_or_insert(round.now);
            memory.apart_since = Some(since).filter(|_| is_apart);
        }
        let judgement = judge(&views(&self.memories), patience);
        if judgement.leader.is_some() {
            self.led = Some(round.now);
        }
        // Before the first leader was seen the time counts from the first round.
        let led = *self.led.get_or_insert(round.now);
        let is_led = judgement.leader.is_some() || round.now.saturating_sub(led) < patience;
        self.has_quorum = Some(judgement.margin() >= 0 && is_led);
        self.judgement = Some(judgement);
    }

    fn compare(&mut self, round: &Round) {
        let differ = differences(round.statuses(), round.lists());
        self.disagreement = differ.intersection(&self.differed).copied().collect();
        self.differed = differ;
    }

    /// The 99th percentile of fsync in the last minute, in seconds.
    pub(super) fn fsync_percentile(&self) -> Option<f64> {
        self.disk.percentile(&WAL_FSYNC_BOUNDS)
    }

    fn tell_members(&mut self, round: &Round, news: &mut Vec<Occurrence>) {
        let Some(list) = &self.list else { return };
        for (id, member) in &list.members {
            let Some(memory) = self.memories.get_mut(id) else { continue };
            let failure = round.failure(*id);
            let is_lost = failure.is_some_and(|error| is_lost(&error.cause, memory.late));
            // What has never answered is no loss, and is seen in the series.
            if is_lost && !memory.is_told && memory.answered.is_some() {
                memory.is_told = true;
                news.extend(failure.map(|error| events::member_lost(member, error, round.time)));
            } else if failure.is_none() && round.status(*id).is_some() && memory.is_told {
                memory.is_told = false;
                news.push(events::member_back(member, round.time));
            }
        }
    }

    fn tell_leader(&mut self, round: &Round, news: &mut Vec<Occurrence>) {
        let term = round.statuses().map(|status| status.term).max();
        if let Some(leader) = self.judgement.as_ref().and_then(|judgement| judgement.leader) {
            if let Some(before) = self.leader.filter(|before| *before != leader) {
                let (was, is) = (self.name(before), self.name(leader));
                news.push(events::leader_changed(&is, &was, term, round.time));
            }
            self.leader = Some(leader);
            return;
        }
        let Ok(Page { leader_changes: Some(changes), member, .. }) = &round.page else { return };
        if self.list.is_none() && self.changes.is_some_and(|before| *changes > before) {
            let subject = member.map_or_else(|| "etcd".to_owned(), |id| id.to_string());
            news.push(events::leader_changed_somewhere(subject, round.time));
        }
        self.changes = Some(*changes);
    }

    /// What is told waits where an answer is only late; what is shown does not.
    fn tell_quorum(&mut self, round: &Round, news: &mut Vec<Occurrence>) {
        let Some(has_quorum) = self.has_quorum else { return };
        let is_sure =
            has_quorum || self.list.is_none() || self.sure_margin(round).is_none_or(|margin| margin < 0);
        let is_unled = self.judgement.as_ref().is_some_and(|judgement| judgement.margin() >= 0);
        if !is_sure && !is_unled {
            return;
        }
        match self.quorum_is_told.replace(has_quorum) {
            Some(before) if before != has_quorum => {
                news.push(events::quorum(has_quorum, self.judgement.as_ref(), round.time));
            }
            _ => {}
        }
    }

    /// The margin if whoever is late once were well.
    fn sure_margin(&self, round: &Round) -> Option<i64> {
        let (list, judgement) = (self.list.as_ref()?, self.judgement.as_ref()?);
        let doubtful = list.members.values().filter(|member| !member.is_learner).filter(|member| {
            let late = self.memories.get(&member.id).map_or(0, |memory| memory.late);
            round.failure(member.id).is_some_and(|error| !is_lost(&error.cause, late))
        });
        Some(judgement.margin() + i64::try_from(doubtful.count()).unwrap_or(i64::MAX))
    }

    fn tell_alarms(&mut self, round: &Round, news: &mut Vec<Occurrence>) {
        if round.statuses().next().is_none() {
            return;
        }
        let alarms: BTreeSet<(MemberId, Alarm)> =
            round.statuses().flat_map(|status| status.alarms.iter().copied()).collect();
        for (id, alarm) in alarms.difference(&self.alarms) {
            news.push(events::alarm(true, &self.name(*id), *alarm, round.time));
        }
        for (id, alarm) in self.alarms.difference(&alarms) {
            news.push(events::alarm(false, &self.name(*id), *alarm, round.time));
        }
        self.alarms = alarms;
    }
}

/// How long an election may take.
fn patience(round: &Round) -> Duration {
    round.election_timeout.map_or(USUAL_ELECTION, |timeout| timeout.length) * ELECTIONS
}

fn view<'a>(member: &'a Member, round: &'a Round, memories: &BTreeMap<MemberId, Memory>) -> View<'a> {
    let since = memories.get(&member.id).and_then(|memory| memory.apart_since);
    View {
        member,
        status: round.status(member.id),
        apart: since.map_or(Duration::ZERO, |since| round.now.saturating_sub(since)),
    }
}

/// Whether a member that does not answer is lost: it is when it says so, and when it is late more than once.
fn is_lost(cause: &Cause, late: u32) -> bool {
    !matches!(cause, Cause::Late(_)) || late >= LATE_IS_LOST
}

/// The mean of what was added to a histogram: one smoothed round trip, or a few.
#[expect(clippy::cast_precision_loss, reason = "one is added in 30 seconds")]
fn newest((count, sum): (u64, f64), (count_now, sum_now): (u64, f64)) -> Option<f64> {
    let added = count_now.checked_sub(count).filter(|added| *added > 0)?;
    Some((sum_now - sum) / added as f64)
}
