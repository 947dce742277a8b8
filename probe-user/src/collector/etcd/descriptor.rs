//! The families of etcd.

use crate::metric::{Descriptor, Kind, Profile};

const STATUS: &str = "Maintenance.Status of each member over gRPC";
const LIST: &str = "Cluster.MemberList of the leader over gRPC, else of whoever has applied most";
const PAGE: &str = "the page of metrics of this node's member, 127.0.0.1:2381";

/// Template: a gauge of the cluster.
const CLUSTER: Descriptor = Descriptor {
    name: "",
    kind: Kind::Gauge,
    unit: None,
    help: "",
    labels: &[],
    profile: Profile::Minimal,
    source: LIST,
    witness: "etcdctl member list and endpoint status at each stage of a failure: difference 0",
};

/// Template: a gauge of a member, from its status.
const MEMBER: Descriptor = Descriptor {
    labels: &["member"],
    source: STATUS,
    witness: "etcdctl endpoint status at the same stage: difference 0",
    ..CLUSTER
};

/// Template: a family of this node's member, from its page.
const LOCAL: Descriptor =
    Descriptor { source: PAGE, witness: "the same family on etcd's own page: difference 0", ..MEMBER };

pub(super) static INFO: Descriptor = Descriptor {
    name: "leadline_etcd_member_info",
    help: "A member of the list, 1: member is its identity as etcd writes it, name its name, peer_address the host of its first peer URL, under which leadline_tcp_port_* know it. Every observer exports it: max by, never sum.",
    labels: &["member", "name", "peer_address"],
    ..CLUSTER
};

pub(super) static MEMBERS: Descriptor = Descriptor {
    name: "leadline_etcd_members",
    help: "Members of the list, by role: voter or learner. From the member list, never from who answers. Every observer exports it: max by, never sum.",
    labels: &["role"],
    ..CLUSTER
};

pub(super) static LIST_TIME: Descriptor = Descriptor {
    name: "leadline_etcd_member_list_timestamp_seconds",
    unit: Some("seconds"),
    help: "When the member list was read last. It is kept while nobody tells it.",
    witness: "the clock of the test: within 2 s",
    ..CLUSTER
};

pub(super) static VOTER: Descriptor = Descriptor {
    name: "leadline_etcd_member_voter",
    help: "Whether a member of the list votes; 0 for a learner. Every observer exports it: max by, never sum.",
    labels: &["member"],
    ..CLUSTER
};

pub(super) static HEALTHY: Descriptor = Descriptor {
    name: "leadline_etcd_member_healthy",
    help: "Whether a member of the list answers this node in time and follows the same leader as the others; one that follows nobody, or somebody else, for three election timeouts does not take part. Every observer exports it: max by, never sum.",
    witness: "what the test has killed, frozen and cut off",
    ..MEMBER
};

pub(super) static FAILURE: Descriptor = Descriptor {
    name: "leadline_etcd_member_failure",
    help: "Why a member of the list does not answer this node, 1 for the reason it is; all 0 while it answers. late: not within etcd.timeout; other_ca, other_name, server_certificate_expired: its certificate; client_certificate_refused, client_certificate_unusable: that of the agent; other_member: another one answers at its address.",
    labels: &["member", "reason"],
    witness: "what the test has done to the member",
    ..MEMBER
};

pub(super) static ANSWERED: Descriptor = Descriptor {
    name: "leadline_etcd_member_last_answer_timestamp_seconds",
    unit: Some("seconds"),
    help: "When a member answered this node last. Absent where it never has.",
    witness: "the time of the kill in a test: within poll interval and timeout",
    ..MEMBER
};

pub(super) static LEARNER_SINCE: Descriptor = Descriptor {
    name: "leadline_etcd_member_learner_since_timestamp_seconds",
    unit: Some("seconds"),
    help: "Since when a member is seen as a learner, for those that are. One that stays is never promoted: it cannot follow.",
    witness: "the time of etcdctl member add --learner in a test: within 2 s",
    labels: &["member"],
    ..CLUSTER
};

pub(super) static HEALTHY_VOTERS: Descriptor = Descriptor {
    name: "leadline_etcd_healthy_voters",
    help: "Voters that leadline_etcd_member_healthy is 1 for. Every observer exports it: max by, never sum.",
    ..CLUSTER
};

pub(super) static QUORUM: Descriptor = Descriptor {
    name: "leadline_etcd_quorum",
    help: "Voters that must agree: more than half of them. Every observer exports it: max by, never sum.",
    ..CLUSTER
};

pub(super) static MARGIN: Descriptor = Descriptor {
    name: "leadline_etcd_quorum_margin",
    help: "Healthy voters minus quorum: how many more may fail. 0: one more failure loses the cluster; -1 and less: it is lost. As seen from this node: max by, never sum.",
    ..CLUSTER
};

pub(super) static HAS_QUORUM: Descriptor = Descriptor {
    name: "leadline_etcd_has_quorum",
    help: "Whether there are enough healthy voters and a leader; an election of up to three election timeouts does not count as a loss. Without a client certificate: whether this node's member knows a leader. As seen from this node: max by, never sum.",
    source: "the judgement of member list and statuses; without them etcd_server_has_leader of the page",
    witness: "etcdctl get with linearizable reads at each stage of a failure",
    ..CLUSTER
};

pub(super) static EVEN: Descriptor = Descriptor {
    name: "leadline_etcd_voters_even",
    help: "Whether the number of voters is even: one member less would tolerate as many failures.",
    ..CLUSTER
};

pub(super) static DISAGREEMENT: Descriptor = Descriptor {
    name: "leadline_etcd_disagreement",
    help: "Whether members said different things in two rounds in a row, of leader, term, members (who is in the list and votes) or cluster (a member of another cluster is in the list).",
    labels: &["subject"],
    source: "Maintenance.Status and Cluster.MemberList of each member",
    witness: "etcdctl against each member of a cluster that is cut in two",
    ..CLUSTER
};

pub(super) static LEADER: Descriptor = Descriptor {
    name: "leadline_etcd_leader",
    help: "Whether a member takes another one for the leader, for each pair of members of which the first answers.",
    labels: &["member", "leader"],
    ..MEMBER
};

pub(super) static HAS_LEADER: Descriptor = Descriptor {
    name: "leadline_etcd_has_leader",
    help: "Whether a member knows a leader.",
    source: "Maintenance.Status over gRPC; without a client certificate etcd_server_has_leader of this node's member",
    ..MEMBER
};

pub(super) static TERM: Descriptor =
    Descriptor { name: "leadline_etcd_term", help: "The term of raft that a member is in.", ..MEMBER };

pub(super) static INDEX: Descriptor = Descriptor {
    name: "leadline_etcd_raft_index",
    help: "The newest entry of the log that a member knows to be committed.",
    witness: "etcdctl endpoint status with no writes going on: difference 0",
    ..MEMBER
};

pub(super) static APPLIED: Descriptor = Descriptor {
    name: "leadline_etcd_applied_index",
    help: "The newest entry of the log that a member has applied.",
    witness: "etcdctl endpoint status with no writes going on: difference 0",
    ..MEMBER
};

pub(super) static LAG: Descriptor = Descriptor {
    name: "leadline_etcd_index_lag",
    help: "Entries of the log that a member has not applied, of those that any member has; the answers are some milliseconds apart.",
    witness: "etcdctl endpoint status while a member is kept behind",
    ..MEMBER
};

pub(super) static DATABASE: Descriptor = Descriptor {
    name: "leadline_etcd_database_bytes",
    unit: Some("bytes"),
    help: "Size of a member's database file; with the quota used up, nothing can be written.",
    source: "Maintenance.Status over gRPC; without a client certificate the page of this node's member",
    ..MEMBER
};

pub(super) static IN_USE: Descriptor = Descriptor {
    name: "leadline_etcd_database_in_use_bytes",
    unit: Some("bytes"),
    help: "Bytes of a member's database file that are in use: what is left of it after a defragmentation.",
    source: DATABASE.source,
    ..MEMBER
};

pub(super) static QUOTA: Descriptor = Descriptor {
    name: "leadline_etcd_quota_bytes",
    unit: Some("bytes"),
    help: "Bytes that a member's database file may have. Of other members than this node's own since etcd 3.6.",
    source: "Maintenance.Status since etcd 3.6, the page of this node's member",
    ..MEMBER
};

pub(super) static TIME_TO_FULL: Descriptor = Descriptor {
    name: "leadline_etcd_quota_exhausted_in_seconds",
    unit: Some("seconds"),
    help: "Time until a member's quota is used up if its database grows as in the last hour. Absent while it does not grow, or has not been watched for a minute.",
    source: "leadline_etcd_database_bytes over time",
    witness: "a cluster that is filled at a known rate: within a third",
    ..MEMBER
};

pub(super) static ALARM: Descriptor = Descriptor {
    name: "leadline_etcd_alarm",
    help: "Whether an alarm of a member stands: nospace or corrupt. From the errors of Status, since listing alarms would be written to the log.",
    labels: &["member", "alarm"],
    witness: "etcdctl alarm list, asked by the test",
    ..MEMBER
};

pub(super) static READ_SUCCESS: Descriptor = Descriptor {
    name: "leadline_etcd_read_success",
    help: "Whether a read of one key was answered in time, through this node's member where it has one: linearizable needs a majority, serializable only the member.",
    labels: &["consistency"],
    source: "KV.Range of a key that need not exist",
    witness: "etcdctl get --consistency l and s at each stage of a failure",
    ..CLUSTER
};

pub(super) static READ_DURATION: Descriptor = Descriptor {
    name: "leadline_etcd_read_duration_seconds",
    unit: Some("seconds"),
    help: "How long the last such read took. Absent where it was not answered.",
    labels: &["consistency"],
    source: "KV.Range of a key that need not exist",
    witness: "etcd behind a delay of known length: within 5 ms",
    ..CLUSTER
};

pub(super) static HEALTH: Descriptor = Descriptor {
    name: "leadline_etcd_health",
    help: "Whether this node's member calls itself healthy: it knows a leader, a majority has answered a read, and no alarm stands. Asked only where there is no client certificate, since etcd logs each time that it is not; with one leadline_etcd_read_success and leadline_etcd_alarm say more.",
    source: "/health beside the page of metrics of this node's member",
    witness: "the same page asked by the test, before and after a loss of the quorum",
    ..LOCAL
};

pub(super) static LEADER_CHANGES: Descriptor = Descriptor {
    name: "leadline_etcd_leader_changes_total",
    kind: Kind::Counter,
    help: "Changes of leader that this node's member has seen since it started.",
    ..LOCAL
};

pub(super) static HEARTBEAT_FAILURES: Descriptor = Descriptor {
    name: "leadline_etcd_heartbeat_send_failures_total",
    kind: Kind::Counter,
    help: "Heartbeats that this node's member was too slow to send as leader: overload or a slow disk.",
    ..LOCAL
};

pub(super) static PROPOSALS_FAILED: Descriptor = Descriptor {
    name: "leadline_etcd_proposals_failed_total",
    kind: Kind::Counter,
    help: "Proposals of this node's member that failed.",
    ..LOCAL
};

pub(super) static PROPOSALS_PENDING: Descriptor = Descriptor {
    name: "leadline_etcd_proposals_pending",
    help: "Proposals of this node's member that wait to be committed.",
    ..LOCAL
};

pub(super) static WAL_FSYNC: Descriptor = Descriptor {
    name: "leadline_etcd_wal_fsync_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "How long fsync of the write-ahead log took at this node's member; etcd wants the 99th percentile below 10 ms.",
    ..LOCAL
};

pub(super) static BACKEND_COMMIT: Descriptor = Descriptor {
    name: "leadline_etcd_backend_commit_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "How long a commit of the database took at this node's member; etcd wants the 99th percentile below 25 ms.",
    ..LOCAL
};

pub(super) static PEER_ACTIVE: Descriptor = Descriptor {
    name: "leadline_etcd_peer_active",
    help: "Whether this node's member has a stream with a peer. Compare both ends: of a way that is cut in one direction only one end says so.",
    labels: &["member", "peer_member"],
    ..LOCAL
};

pub(super) static PEER_SEND_FAILURES: Descriptor = Descriptor {
    name: "leadline_etcd_peer_send_failures_total",
    kind: Kind::Counter,
    help: "Messages that this node's member could not send to a peer.",
    labels: &["member", "peer_member"],
    ..LOCAL
};

pub(super) static PEER_SMOOTHED: Descriptor = Descriptor {
    name: "leadline_etcd_peer_smoothed_rtt_seconds",
    unit: Some("seconds"),
    help: "The last round trip to a peer in etcd's own histogram: smoothed, one in 30 seconds. leadline_tcp_port_rtt_seconds has those of the wire.",
    labels: &["member", "peer_member"],
    witness: "the sum of the same histogram on etcd's own page: difference 0",
    ..LOCAL
};

pub(super) static ELECTION_TIMEOUT: Descriptor = Descriptor {
    name: "leadline_etcd_election_timeout_seconds",
    unit: Some("seconds"),
    help: "How long a member waits for its leader before it calls an election, and who says so: configuration (of the agent), manifest (the flag of the static pod), k3s (its file), etcd_default (the manifest has no such flag). Absent where nothing says so.",
    labels: &["origin"],
    source: "the agent's configuration, /etc/kubernetes/manifests/etcd.yaml, db/etcd/config of k3s and RKE2",
    witness: "the flag that etcd was started with in a test",
    ..CLUSTER
};

pub(super) static BUDGET: Descriptor = Descriptor {
    name: "leadline_etcd_election_budget_ratio",
    unit: Some("ratio"),
    help: "What takes part of the election timeout, as a share of it: wal_fsync, the 99th percentile of fsync at this node's member in the last minute; round_trip, leadline_tcp_port_min_rtt_seconds to the farthest peer at the port of the members, absent while none is sampled. Near 1 elections begin by themselves.",
    labels: &["part"],
    source: "leadline_etcd_wal_fsync_seconds, leadline_tcp_port_min_rtt_seconds, leadline_etcd_election_timeout_seconds",
    witness: "a delay between members that a test inserts: within 5 %",
    ..CLUSTER
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &INFO,
    &MEMBERS,
    &LIST_TIME,
    &VOTER,
    &HEALTHY,
    &FAILURE,
    &ANSWERED,
    &LEARNER_SINCE,
    &HEALTHY_VOTERS,
    &QUORUM,
    &MARGIN,
    &HAS_QUORUM,
    &EVEN,
    &DISAGREEMENT,
    &LEADER,
    &HAS_LEADER,
    &TERM,
    &INDEX,
    &APPLIED,
    &LAG,
    &DATABASE,
    &IN_USE,
    &QUOTA,
    &TIME_TO_FULL,
    &ALARM,
    &READ_SUCCESS,
    &READ_DURATION,
    &HEALTH,
    &LEADER_CHANGES,
    &HEARTBEAT_FAILURES,
    &PROPOSALS_FAILED,
    &PROPOSALS_PENDING,
    &WAL_FSYNC,
    &BACKEND_COMMIT,
    &PEER_ACTIVE,
    &PEER_SEND_FAILURES,
    &PEER_SMOOTHED,
    &ELECTION_TIMEOUT,
    &BUDGET,
];
