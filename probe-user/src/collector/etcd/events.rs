//! The events of etcd, in the words of the timeline.

use std::collections::BTreeMap;
use std::error::Error as _;

use super::judge::Judgement;
use crate::event::{Kind, Occurrence, Timestamp};
use crate::source::etcd::{Alarm, AskError, Member, MemberId};

fn event(kind: Kind, subject: impl Into<String>, time: Timestamp) -> Occurrence {
    Occurrence::now(kind, subject).at(time)
}

/// The name of a member, or who it is where it has none yet.
fn name(member: &Member) -> String {
    if member.name.is_empty() { member.id.to_string() } else { member.name.clone() }
}

/// What changed from one member list to the next.
pub(super) fn of_lists(
    before: &BTreeMap<MemberId, Member>,
    after: &BTreeMap<MemberId, Member>,
    time: Timestamp,
) -> Vec<Occurrence> {
    let role = |member: &Member| if member.is_learner { "learner" } else { "voter" };
    let added = after.iter().filter(|(id, _)| !before.contains_key(id)).map(|(id, member)| {
        event(Kind::EtcdMemberAdded, name(member), time).with("id", id.to_string()).with("role", role(member))
    });
    let removed = before.iter().filter(|(id, _)| !after.contains_key(id)).map(|(id, member)| {
        event(Kind::EtcdMemberRemoved, name(member), time)
            .with("id", id.to_string())
            .with("role", role(member))
    });
    let promoted = after.iter().filter_map(|(id, member)| {
        let was_learner = before.get(id)?.is_learner;
        (was_learner && !member.is_learner)
            .then(|| event(Kind::EtcdMemberPromoted, name(member), time).with("id", id.to_string()))
    });
    added.chain(removed).chain(promoted).collect()
}

pub(super) fn member_lost(member: &Member, error: &AskError, time: Timestamp) -> Occurrence {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    event(Kind::EtcdMemberLost, name(member), time)
        .with("endpoint", error.endpoint.clone())
        .with("reason", error.cause.as_str())
        .with("cause", cause)
}

pub(super) fn member_back(member: &Member, time: Timestamp) -> Occurrence {
    event(Kind::EtcdMemberBack, name(member), time)
}

pub(super) fn leader_changed(is: &str, was: &str, term: Option<u64>, time: Timestamp) -> Occurrence {
    let event = event(Kind::EtcdLeaderChanged, is, time).with("was", was);
    match term {
        Some(term) => event.with("term", term.to_string()),
        None => event,
    }
}

/// The member of this node counts changes and does not say who leads.
pub(super) fn leader_changed_somewhere(observer: String, time: Timestamp) -> Occurrence {
    event(Kind::EtcdLeaderChanged, "etcd", time).with("seen_by", observer)
}

pub(super) fn quorum(is_back: bool, judgement: Option<&Judgement>, time: Timestamp) -> Occurrence {
    let event = event(if is_back { Kind::EtcdQuorumBack } else { Kind::EtcdQuorumLost }, "etcd", time);
    match judgement {
        Some(judged) => event
            .with("healthy", format!("{} of {}", judged.healthy_voters, judged.voters))
            .with("margin", judged.margin().to_string()),
        None => event,
    }
}

pub(super) fn alarm(is_raised: bool, member: &str, alarm: Alarm, time: Timestamp) -> Occurrence {
    let kind = if is_raised { Kind::EtcdAlarmRaised } else { Kind::EtcdAlarmCleared };
    event(kind, member, time).with("alarm", alarm.as_str())
}
