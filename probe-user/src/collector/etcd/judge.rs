//! What the answers of the members mean together. Pure.
//!
//! The number of voters comes from a member list and never from who answers. A voter that answers and follows nobody,
//! or somebody else than the others, for longer than an election may take, does not count as healthy: it gives the
//! leader no vote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::source::etcd::{Member, MemberId, Status};

/// A member of the list, and what is known of it now.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Its entry in the list.
    pub member: &'a Member,
    /// What it answers now.
    pub status: Option<&'a Status>,
    /// For how long it has answered without following the leader of the others.
    pub apart: Duration,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Members that vote.
    pub voters: usize,
    /// Members that only learn.
    pub learners: usize,
    /// Members that answer and take part; of learners, those that answer.
    pub healthy: BTreeSet<MemberId>,
    /// Voters among them.
    pub healthy_voters: usize,
    /// How many voters must agree.
    pub quorum: usize,
    /// Whom most of the voters that answer follow; of two, the one of the later term.
    pub leader: Option<MemberId>,
}

impl Judgement {
    /// How many more voters may fail: 0 is the last moment before the loss, -1 and less the loss.
    #[must_use]
    pub fn margin(&self) -> i64 {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        signed(self.healthy_voters) - signed(self.quorum)
    }
}

/// Judges a member list with its answers; `patience` is how long an election may take.
#[must_use]
pub fn judge(views: &[View<'_>], patience: Duration) -> Judgement {
    let voters = views.iter().filter(|view| !view.member.is_learner).count();
    let takes_part =
        |view: &&View<'_>| view.status.is_some() && (view.member.is_learner || view.apart < patience);
    let healthy: BTreeSet<MemberId> = views.iter().filter(takes_part).map(|view| view.member.id).collect();
    let healthy_voters =
        views.iter().filter(|view| !view.member.is_learner && healthy.contains(&view.member.id)).count();
    Judgement {
        voters,
        learners: views.len() - voters,
        healthy,
        healthy_voters,
        quorum: voters / 2 + 1,
        leader: leader(views),
    }
}

fn leader(views: &[View<'_>]) -> Option<MemberId> {
    let mut named: BTreeMap<MemberId, (usize, u64)> = BTreeMap::new();
    for view in views.iter().filter(|view| !view.member.is_learner) {
        let Some(status) = view.status else { continue };
        let Some(leader) = status.leader else { continue };
        let (count, term) = named.entry(leader).or_default();
        *count += 1;
        *term = (*term).max(status.term);
    }
    named.into_iter().max_by_key(|(_, weight)| *weight).map(|(leader, _)| leader)
}

/// What the members may disagree about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Who leads.
    Leader,
    /// The term of raft.
    Term,
    /// Who is a member, and who votes.
    Members,
    /// Which cluster they are.
    Cluster,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Leader, Self::Term, Self::Members, Self::Cluster];

    /// The value of the `subject` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Term => "term",
            Self::Members => "members",
            Self::Cluster => "cluster",
        }
    }
}

/// What the members say differently of in one round. The answers are not of one moment: only what lasts is more than
/// that.
#[must_use]
pub fn differences<'a>(
    statuses: impl Iterator<Item = &'a Status>,
    lists: impl Iterator<Item = &'a [Member]>,
) -> BTreeSet<Subject> {
    let statuses: Vec<&Status> = statuses.collect();
    let voters = || statuses.iter().filter(|status| !status.is_learner);
    let mut found = BTreeSet::new();
    if count(voters().filter_map(|status| status.leader)) > 1 {
        found.insert(Subject::Leader);
    }
    if count(voters().map(|status| status.term)) > 1 {
        found.insert(Subject::Term);
    }
    if count(statuses.iter().map(|status| status.cluster)) > 1 {
        found.insert(Subject::Cluster);
    }
    let roles = |list: &[Member]| -> BTreeSet<_> {
        list.iter().map(|member| (member.id, member.is_learner)).collect()
    };
    if count(lists.map(roles)) > 1 {
        found.insert(Subject::Members);
    }
    found
}

/// Different values among these.
fn count<T: Ord>(values: impl Iterator<Item = T>) -> usize {
    values.collect::<BTreeSet<T>>().len()
}

/// Entries of the log that a member has not applied, of those that any member has.
#[must_use]
pub fn lag(status: &Status, newest: u64) -> u64 {
    newest.saturating_sub(status.applied)
}

/// The newest index that any member has.
#[must_use]
pub fn newest_index<'a>(statuses: impl Iterator<Item = &'a Status>) -> Option<u64> {
    statuses.map(|status| status.index.max(status.applied)).max()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{member, status};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    /// Judges voters: None for one that does not answer, else whom it follows and for how long it was apart.
    fn voters(answers: &[Option<(Option<u64>, u64)>]) -> Judgement {
        let members: Vec<Member> = (1..).take(answers.len()).map(member).collect();
        let statuses: Vec<Option<Status>> = answers
            .iter()
            .zip(1..)
            .map(|(answer, id)| {
                answer.map(|(leader, _)| Status { leader: leader.map(MemberId), ..status(id) })
            })
            .collect();
        let views: Vec<View<'_>> = members
            .iter()
            .zip(&statuses)
            .zip(answers)
            .map(|((member, status), answer)| View {
                member,
                status: status.as_ref(),
                apart: Duration::from_secs(answer.map_or(0, |(_, apart)| apart)),
            })
            .collect();
        judge(&views, PATIENCE)
    }

    #[test]
    fn the_margin_falls_with_each_member_that_is_lost() {
        let well = Some((Some(1), 0));
        let margins = |of: &[Option<(Option<u64>, u64)>]| voters(of).margin();
        assert_eq!(margins(&[well]), 0);
        assert_eq!(margins(&[well, well]), 0);
        assert_eq!(margins(&[well, well, well]), 1);
        assert_eq!(margins(&[well, well, None]), 0);
        assert_eq!(margins(&[well, None, None]), -1);
        assert_eq!(margins(&[None, None, None]), -2);
        assert_eq!(margins(&[well; 4]), 1);
        assert_eq!(margins(&[well; 5]), 2);
        assert_eq!(margins(&[well; 7]), 3);
    }

    #[test]
    fn an_election_takes_nobody_out_and_a_partition_does() {
        let searching = Some((None, 1));
        assert_eq!(voters(&[None, searching, searching]).margin(), 0);
        assert_eq!(voters(&[None, searching, Some((Some(3), 0))]).margin(), 0);
        let well = Some((Some(1), 0));
        let judged = voters(&[well, well, Some((None, 4))]);
        assert_eq!((judged.margin(), judged.healthy.len()), (0, 2));
        assert_eq!(judged.leader, Some(MemberId(1)));
    }

    #[test]
    fn learners_answer_and_do_not_count() {
        let learner = Member { is_learner: true, ..member(2) };
        let (one, two) = (member(1), status(2));
        let first = status(1);
        let views = [
            View { member: &one, status: Some(&first), apart: Duration::ZERO },
            View { member: &learner, status: Some(&two), apart: Duration::from_hours(1) },
        ];
        let judged = judge(&views, PATIENCE);
        assert_eq!((judged.voters, judged.learners, judged.quorum, judged.margin()), (1, 1, 1, 0));
        assert_eq!((judged.healthy.len(), judged.healthy_voters), (2, 1));
    }

    #[test]
    fn of_two_leaders_the_one_of_the_later_term_leads() {
        let members = [member(1), member(2)];
        let old = Status { leader: Some(MemberId(1)), term: 4, ..status(1) };
        let new = Status { leader: Some(MemberId(2)), term: 5, ..status(2) };
        let view = |at: usize, status| View { member: &members[at], status, apart: Duration::ZERO };
        assert_eq!(judge(&[view(0, Some(&old)), view(1, Some(&new))], PATIENCE).leader, Some(MemberId(2)));
    }

    #[test]
    fn what_the_members_say_differently_is_named() {
        let (one, two) = (status(1), status(2));
        let lists = [vec![member(1), member(2)], vec![member(2), member(1)]];
        let of = |statuses: &[&Status], lists: &[Vec<Member>]| -> Vec<&str> {
            let found = differences(statuses.iter().copied(), lists.iter().map(Vec::as_slice));
            found.into_iter().map(Subject::as_str).collect()
        };
        assert_eq!(of(&[&one, &two], &lists), Vec::<&str>::new());
        let other = Status { leader: Some(MemberId(2)), term: 9, cluster: 8, ..two };
        assert_eq!(of(&[&one, &other], &lists), ["leader", "term", "cluster"]);
        let promoted = [vec![member(1)], vec![Member { is_learner: true, ..member(1) }]];
        assert_eq!(of(&[&one], &promoted), ["members"]);
        // Who follows nobody does not contradict.
        let silent = Status { leader: None, ..status(2) };
        assert_eq!(of(&[&one, &silent], &lists), Vec::<&str>::new());
    }

    #[test]
    fn a_member_lags_behind_what_any_has() {
        let ahead = Status { index: 110, applied: 100, ..status(1) };
        let behind = Status { index: 60, applied: 50, ..status(2) };
        let newest = newest_index([&ahead, &behind].into_iter());
        assert_eq!(newest, Some(110));
        assert_eq!((lag(&ahead, 110), lag(&behind, 110)), (10, 60));
        assert_eq!(newest_index(std::iter::empty()), None);
    }
}
