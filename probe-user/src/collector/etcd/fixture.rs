//! Members and answers for tests.

use std::collections::BTreeSet;

use crate::source::etcd::{Member, MemberId, Status};

/// A voter.
pub(super) fn member(id: u64) -> Member {
    Member {
        id: MemberId(id),
        name: format!("node{id}"),
        peer_urls: vec![format!("https://192.0.2.{id}:2380")],
        client_urls: vec![format!("https://192.0.2.{id}:2379")],
        is_learner: false,
    }
}

/// What it answers while member 1 leads.
pub(super) fn status(id: u64) -> Status {
    Status {
        member: MemberId(id),
        cluster: 7,
        version: "3.6.8".to_owned(),
        leader: Some(MemberId(1)),
        term: 3,
        index: 100,
        applied: 100,
        database: Some(20_480),
        in_use: Some(16_384),
        quota: Some(2 << 30),
        is_learner: false,
        alarms: BTreeSet::new(),
    }
}
