//! What is known of etcd, as samples. What a member has answered is shown only while it answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::descriptor as of;
use super::judge::{Subject, lag, newest_index};
use super::round::Round;
use super::state::State;
use crate::event::Timestamp;
use crate::kernel::PortCount;
use crate::metric::sink::Sink;
use crate::metric::{Buckets, Descriptor, Value};
use crate::source::etcd::{
    Alarm, BACKEND_COMMIT_BOUNDS, Cause, Histogram, Member, MemberId, Page, Status, WAL_FSYNC_BOUNDS,
};

/// Where members listen for each other where no list says so.
const PEER_PORT: u16 = 2380;

/// Writes everything.
pub(super) fn write(state: &State, round: &Round, counts: &[PortCount], sink: &mut Sink<'_>) {
    write_list(state, sink);
    write_members(state, round, sink);
    write_judgement(state, sink);
    write_statuses(state, round, sink);
    write_sizes(state, round, sink);
    write_reads(round, sink);
    if let Ok(page) = &round.page {
        write_health(page, round.health, sink);
        write_page(state, page, sink);
    }
    write_budget(state, round, counts, sink);
}

/// A family, and which part of a `T` it shows.
type Column<T, V> = (&'static Descriptor, fn(&T) -> V);

fn one(sink: &mut Sink<'_>, descriptor: &'static Descriptor, labels: &[&str], value: Value) {
    sink.family(descriptor).value(labels, value);
}

fn flag(is: bool) -> Value {
    Value::Integer(is.into())
}

fn count(count: usize) -> Value {
    Value::Integer(u64::try_from(count).unwrap_or(u64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "half a microsecond of a time since 1970")]
fn seconds(time: Timestamp) -> Value {
    Value::Float(time.unix_nanos() as f64 / 1e9)
}

fn write_list(state: &State, sink: &mut Sink<'_>) {
    let Some(list) = &state.list else { return };
    let mut family = sink.family(&of::INFO);
    for (id, member) in &list.members {
        family.value(&[&id.to_string(), &member.name, &peer_address(member)], Value::Integer(1));
    }
    let mut family = sink.family(&of::MEMBERS);
    let learners = list.members.values().filter(|member| member.is_learner).count();
    family.value(&["voter"], count(list.members.len() - learners));
    family.value(&["learner"], count(learners));
    one(sink, &of::LIST_TIME, &[], seconds(list.read));
    let mut family = sink.family(&of::VOTER);
    for (id, member) in &list.members {
        family.value(&[&id.to_string()], flag(!member.is_learner));
    }
    let mut family = sink.family(&of::LEARNER_SINCE);
    for (id, memory) in &state.memories {
        if let Some(since) = memory.learner_since {
            family.value(&[&id.to_string()], seconds(since));
        }
    }
}

/// The host of the first peer URL, an address in its shortest form.
fn peer_address(member: &Member) -> String {
    let bare = authority(member).map_or("", |(host, _)| host.trim_start_matches('[').trim_end_matches(']'));
    bare.parse::<IpAddr>().map_or_else(|_| bare.to_owned(), |address| address.to_string())
}

/// Host and port of the first peer URL.
fn authority(member: &Member) -> Option<(&str, u16)> {
    let url = member.peer_urls.first()?;
    let (host, port) = url.split_once("://")?.1.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

fn write_members(state: &State, round: &Round, sink: &mut Sink<'_>) {
    let Some((list, judgement)) = state.list.as_ref().zip(state.judgement.as_ref()) else { return };
    let mut family = sink.family(&of::HEALTHY);
    for id in list.members.keys() {
        family.value(&[&id.to_string()], flag(judgement.healthy.contains(id)));
    }
    let mut family = sink.family(&of::FAILURE);
    for id in list.members.keys() {
        let failure = round.failure(*id).map(|error| error.cause.as_str());
        for reason in Cause::REASONS {
            family.value(&[&id.to_string(), reason], flag(failure == Some(reason)));
        }
    }
    let mut family = sink.family(&of::ANSWERED);
    for (id, memory) in &state.memories {
        if let Some(answered) = memory.answered {
            family.value(&[&id.to_string()], seconds(answered));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a margin is a number of members")]
fn write_judgement(state: &State, sink: &mut Sink<'_>) {
    if let Some(judgement) = &state.judgement {
        one(sink, &of::HEALTHY_VOTERS, &[], count(judgement.healthy_voters));
        one(sink, &of::QUORUM, &[], count(judgement.quorum));
        one(sink, &of::MARGIN, &[], Value::Float(judgement.margin() as f64));
        one(sink, &of::EVEN, &[], flag(judgement.voters.is_multiple_of(2)));
        let mut family = sink.family(&of::DISAGREEMENT);
        for subject in Subject::ALL {
            family.value(&[subject.as_str()], flag(state.disagreement.contains(&subject)));
        }
    }
    if let Some(has_quorum) = state.has_quorum {
        one(sink, &of::HAS_QUORUM, &[], flag(has_quorum));
    }
}

fn write_statuses(state: &State, round: &Round, sink: &mut Sink<'_>) {
    let statuses: Vec<&Status> = round.statuses().collect();
    let ids: Vec<MemberId> = state.memories.keys().copied().collect();
    let mut family = sink.family(&of::LEADER);
    for status in &statuses {
        for leader in &ids {
            let labels = [&*status.member.to_string(), &leader.to_string()];
            family.value(&labels, flag(status.leader == Some(*leader)));
        }
    }
    let mut family = sink.family(&of::HAS_LEADER);
    for status in &statuses {
        family.value(&[&status.member.to_string()], flag(status.leader.is_some()));
    }
    if let (true, Ok(Page { member: Some(id), has_leader: Some(has), .. })) =
        (statuses.is_empty(), &round.page)
    {
        family.value(&[&id.to_string()], flag(*has));
    }
    let columns: [Column<Status, u64>; 3] =
        [(&of::TERM, |of| of.term), (&of::INDEX, |of| of.index), (&of::APPLIED, |of| of.applied)];
    for (descriptor, read) in columns {
        let mut family = sink.family(descriptor);
        for status in &statuses {
            family.value(&[&status.member.to_string()], Value::Integer(read(status)));
        }
    }
    if let Some(newest) = newest_index(statuses.iter().copied()) {
        let mut family = sink.family(&of::LAG);
        for status in &statuses {
            family.value(&[&status.member.to_string()], Value::Integer(lag(status, newest)));
        }
        let mut family = sink.family(&of::ALARM);
        for id in &ids {
            for alarm in Alarm::ALL {
                let stands = state.alarms.contains(&(*id, alarm));
                family.value(&[&id.to_string(), alarm.as_str()], flag(stands));
            }
        }
    }
}

/// What a member has on its disk, from whoever says so.
#[derive(Clone, Copy)]
struct Sizes {
    id: MemberId,
    database: Option<u64>,
    in_use: Option<u64>,
    quota: Option<u64>,
}

fn sizes(round: &Round) -> Vec<Sizes> {
    let page = round.page.as_ref().ok();
    let of_page = page.and_then(|page| {
        Some(Sizes { id: page.member?, database: page.database, in_use: page.in_use, quota: page.quota })
    });
    let mut all: Vec<Sizes> = round
        .statuses()
        .map(|status| Sizes {
            id: status.member,
            database: status.database,
            in_use: status.in_use,
            quota: status.quota.or_else(|| of_page.filter(|page| page.id == status.member)?.quota),
        })
        .collect();
    // A learner, or a member that has not answered in time, may still have shown its page.
    all.extend(of_page.filter(|page| round.status(page.id).is_none()));
    all
}

fn write_sizes(state: &State, round: &Round, sink: &mut Sink<'_>) {
    let all = sizes(round);
    let columns: [Column<Sizes, Option<u64>>; 3] =
        [(&of::DATABASE, |of| of.database), (&of::IN_USE, |of| of.in_use), (&of::QUOTA, |of| of.quota)];
    for (descriptor, read) in columns {
        let mut family = sink.family(descriptor);
        for sizes in &all {
            if let Some(bytes) = read(sizes) {
                family.value(&[&sizes.id.to_string()], Value::Integer(bytes));
            }
        }
    }
    let mut family = sink.family(&of::TIME_TO_FULL);
    for sizes in &all {
        let growth = state.memories.get(&sizes.id).map(|memory| &memory.growth);
        if let Some(time) = growth.zip(sizes.quota).and_then(|(growth, quota)| growth.time_to(quota)) {
            family.value(&[&sizes.id.to_string()], Value::Float(time));
        }
    }
}

fn write_reads(round: &Round, sink: &mut Sink<'_>) {
    let mut family = sink.family(&of::READ_SUCCESS);
    for (consistency, read) in &round.reads {
        family.value(&[consistency.as_str()], flag(read.outcome.is_ok()));
    }
    let mut family = sink.family(&of::READ_DURATION);
    for (consistency, read) in &round.reads {
        if let Ok(took) = &read.outcome {
            family.value(&[consistency.as_str()], Value::Float(took.as_secs_f64()));
        }
    }
}

fn write_health(page: &Page, health: Option<bool>, sink: &mut Sink<'_>) {
    if let (Some(id), Some(is_healthy)) = (page.member, health) {
        one(sink, &of::HEALTH, &[&id.to_string()], flag(is_healthy));
    }
}

fn write_page(state: &State, page: &Page, sink: &mut Sink<'_>) {
    let Some(id) = page.member else { return };
    let id = id.to_string();
    let columns = [
        (&of::LEADER_CHANGES, page.leader_changes),
        (&of::HEARTBEAT_FAILURES, page.heartbeat_failures),
        (&of::PROPOSALS_FAILED, page.proposals_failed),
        (&of::PROPOSALS_PENDING, page.proposals_pending),
    ];
    for (descriptor, value) in columns {
        if let Some(value) = value {
            one(sink, descriptor, &[&id], Value::Integer(value));
        }
    }
    write_histogram(sink, &of::WAL_FSYNC, &id, page.wal_fsync.as_ref(), &WAL_FSYNC_BOUNDS);
    write_histogram(sink, &of::BACKEND_COMMIT, &id, page.backend_commit.as_ref(), &BACKEND_COMMIT_BOUNDS);
    let mut family = sink.family(&of::PEER_ACTIVE);
    for (peer_id, peer) in &page.peers {
        if let Some(is_active) = peer.is_active {
            family.value(&[&id, &peer_id.to_string()], flag(is_active));
        }
    }
    let mut family = sink.family(&of::PEER_SEND_FAILURES);
    // etcd shows the counter from the first failure on; it was 0 before.
    for (peer_id, peer) in page.peers.iter().filter(|(_, peer)| peer.is_active.is_some()) {
        family.value(&[&id, &peer_id.to_string()], Value::Integer(peer.send_failures.unwrap_or(0)));
    }
    let mut family = sink.family(&of::PEER_SMOOTHED);
    for (peer_id, (_, last)) in &state.smoothed {
        if let Some(last) = last {
            family.value(&[&id, &peer_id.to_string()], Value::Float(*last));
        }
    }
}

fn write_histogram(
    sink: &mut Sink<'_>,
    descriptor: &'static Descriptor,
    member: &str,
    histogram: Option<&Histogram>,
    bounds: &[f64],
) {
    if let Some(Histogram { counts, sum }) = histogram {
        sink.family(descriptor).histogram(&[member], &Buckets { bounds, counts, sum: *sum });
    }
}

fn write_budget(state: &State, round: &Round, counts: &[PortCount], sink: &mut Sink<'_>) {
    let Some(timeout) = round.election_timeout else { return };
    let length = timeout.length.as_secs_f64();
    one(sink, &of::ELECTION_TIMEOUT, &[timeout.origin.as_str()], Value::Float(length));
    let mut family = sink.family(&of::BUDGET);
    for (part, time) in [("wal_fsync", state.fsync_percentile()), ("round_trip", round_trip(state, counts))] {
        if let Some(time) = time {
            family.value(&[part], Value::Float(time / length));
        }
    }
}

/// The least round trip to the peer that is farthest away, in seconds, among those at the ports of members.
fn round_trip(state: &State, counts: &[PortCount]) -> Option<f64> {
    let members = state.list.iter().flat_map(|list| list.members.values());
    let mut ports: BTreeSet<u16> = members.filter_map(|member| Some(authority(member)?.1)).collect();
    if ports.is_empty() {
        ports.insert(PEER_PORT);
    }
    let least = counts
        .iter()
        .filter(|count| ports.contains(&count.port))
        .filter_map(|count| count.least_microseconds);
    least.max().map(|microseconds| f64::from(microseconds) / 1e6)
}
