//! What one round of questions gave.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Timestamp;
use crate::source::etcd::{
    Answer, AskError, Consistency, ElectionTimeout, Member, MemberId, Page, Read, Status,
};

/// One round, asked of everybody at once.
#[derive(Debug)]
pub struct Round {
    /// When it was over, by a clock that only goes forward.
    pub now: Duration,
    /// The same by the clock on the wall.
    pub time: Timestamp,
    /// The page of this node's member, or why there is none.
    pub page: Result<Page, &'static str>,
    /// Whether this node's member calls itself healthy; asked only where there is no client certificate.
    pub health: Option<bool>,
    /// Whether there should be a page: this node has a member of its own, or the configuration names one.
    pub expects_page: bool,
    /// What the members answered, by who they are.
    pub answers: BTreeMap<MemberId, Answer>,
    /// What the endpoints said that were asked before anybody knew who they are, where they did not answer.
    pub strangers: Vec<AskError>,
    /// Reads of a key through one member.
    pub reads: BTreeMap<Consistency, Read>,
    /// Whether there is a client certificate, or endpoints without TLS.
    pub is_client: bool,
    /// The election timeout, where it is known.
    pub election_timeout: Option<ElectionTimeout>,
}

impl Round {
    /// What the members answered of themselves.
    pub(super) fn statuses(&self) -> impl Iterator<Item = &Status> {
        self.answers.values().filter_map(|answer| answer.status.as_ref().ok())
    }

    /// What a member answered of itself.
    pub(super) fn status(&self, id: MemberId) -> Option<&Status> {
        self.answers.get(&id)?.status.as_ref().ok()
    }

    /// Why a member that was asked did not answer.
    pub(super) fn failure(&self, id: MemberId) -> Option<&AskError> {
        self.answers.get(&id)?.status.as_ref().err()
    }

    /// The member lists that were told.
    pub(super) fn lists(&self) -> impl Iterator<Item = &[Member]> {
        self.answers.values().filter_map(|answer| answer.list.as_deref().ok())
    }

    /// The member list to go by: that of the leader, else of whoever has applied most.
    pub(super) fn best_list(&self) -> Option<&[Member]> {
        let told = self.answers.values().filter_map(|answer| {
            let (status, list) = (answer.status.as_ref().ok()?, answer.list.as_deref().ok()?);
            Some(((status.leader == Some(status.member), status.term, status.applied), list))
        });
        told.max_by_key(|(weight, _)| *weight).map(|(_, list)| list)
    }
}
