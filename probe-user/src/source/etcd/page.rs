//! The page of metrics that kubeadm and k3s have etcd serve without TLS on loopback.

use std::time::Duration;

use super::{Histogram, MemberId, Page, Peer};
use crate::config::MetricsUrl;
use crate::source::exposition::Sample;
use crate::source::fetch::{self, FetchError};

/// What is read of a page: one of etcd 3.6 has 0.1 MiB; that of k3s, where several programs share it, more.
const LONGEST: usize = 8 << 20;

/// The upper bounds of `etcd_disk_wal_fsync_duration_seconds`: 1 ms, doubled 13 times.
pub const WAL_FSYNC_BOUNDS: [f64; 14] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];
/// The upper bounds of `etcd_disk_backend_commit_duration_seconds`: the same ones.
pub const BACKEND_COMMIT_BOUNDS: [f64; 14] = WAL_FSYNC_BOUNDS;

/// Reads the page of a member.
///
/// # Errors
/// When it is not served, or not whole within `patience`. A page without a word of etcd is an empty one.
pub async fn read_page(url: &MetricsUrl, patience: Duration) -> Result<Page, FetchError> {
    let response = fetch::get(&url.authority, &url.path, patience, LONGEST).await?;
    if response.status != 200 {
        return Err(FetchError::NoHttp);
    }
    Ok(parse_page(&String::from_utf8_lossy(&response.body)))
}

/// Whether a member calls itself healthy (`/health` beside the page): it knows a leader, a majority has answered a read,
/// and no alarm stands. Nothing where it says neither.
pub async fn read_health(url: &MetricsUrl, patience: Duration) -> Option<bool> {
    match fetch::get(&url.authority, "/health", patience, LONGEST).await.ok()?.status {
        200 => Some(true),
        503 => Some(false),
        _ => None,
    }
}

/// What a page says. Lines that cannot be read are as if they were not there.
#[must_use]
pub fn parse_page(text: &str) -> Page {
    let mut page = Page::default();
    let mut fsync = Cumulative::default();
    let mut commit = Cumulative::default();
    for line in text.lines().filter(|line| line.starts_with("etcd_")) {
        let Some(sample) = Sample::parse(line) else { continue };
        if let Some(part) = sample.name.strip_prefix("etcd_disk_wal_fsync_duration_seconds_") {
            fsync.add(part, &sample);
        } else if let Some(part) = sample.name.strip_prefix("etcd_disk_backend_commit_duration_seconds_") {
            commit.add(part, &sample);
        } else if sample.name.starts_with("etcd_network_") {
            add_peer(&mut page, &sample);
        } else {
            add_member(&mut page, &sample);
        }
    }
    page.wal_fsync = fsync.histogram(&WAL_FSYNC_BOUNDS);
    page.backend_commit = commit.histogram(&BACKEND_COMMIT_BOUNDS);
    page
}

fn add_member(page: &mut Page, sample: &Sample<'_>) {
    let flag = || sample.integer().map(|value| value > 0);
    let count = || sample.integer();
    match sample.name {
        "etcd_server_id" if sample.integer() == Some(1) => {
            page.member = sample.label("server_id").and_then(|id| id.parse().ok());
        }
        "etcd_server_version" => page.version = sample.label("server_version").map(str::to_owned),
        "etcd_server_has_leader" => page.has_leader = flag(),
        "etcd_server_is_leader" => page.is_leader = flag(),
        "etcd_server_is_learner" => page.is_learner = flag(),
        "etcd_server_leader_changes_seen_total" => page.leader_changes = count(),
        "etcd_server_heartbeat_send_failures_total" => page.heartbeat_failures = count(),
        "etcd_server_proposals_pending" => page.proposals_pending = count(),
        "etcd_server_proposals_failed_total" => page.proposals_failed = count(),
        "etcd_mvcc_db_total_size_in_bytes" => page.database = count(),
        "etcd_mvcc_db_total_size_in_use_in_bytes" => page.in_use = count(),
        // 0 stands for the default of etcd only in its flags; the metric has what is in force.
        "etcd_server_quota_backend_bytes" => page.quota = count().filter(|bytes| *bytes > 0),
        _ => {}
    }
}

fn add_peer(page: &mut Page, sample: &Sample<'_>) {
    let id = sample.label("Remote").or_else(|| sample.label("To")).and_then(|id| id.parse::<MemberId>().ok());
    let Some(id) = id else { return };
    if page.peers.len() >= super::MOST_MEMBERS && !page.peers.contains_key(&id) {
        return;
    }
    let read = |peer: &mut Peer| match sample.name {
        "etcd_network_active_peers" => peer.is_active = sample.integer().map(|streams| streams > 0),
        "etcd_network_peer_sent_failures_total" => peer.send_failures = sample.integer(),
        "etcd_network_peer_round_trip_time_seconds_count" => {
            peer.round_trips.get_or_insert_default().0 = sample.integer().unwrap_or_default();
        }
        "etcd_network_peer_round_trip_time_seconds_sum" => {
            peer.round_trips.get_or_insert_default().1 = sample.float().unwrap_or_default();
        }
        _ => {}
    };
    let known = [
        "etcd_network_active_peers",
        "etcd_network_peer_sent_failures_total",
        "etcd_network_peer_round_trip_time_seconds_count",
        "etcd_network_peer_round_trip_time_seconds_sum",
    ];
    if known.contains(&sample.name) {
        read(page.peers.entry(id).or_default());
    }
}

/// A histogram as it stands on the page: cumulative, in the order of its bounds.
#[derive(Default)]
struct Cumulative {
    buckets: Vec<(f64, u64)>,
    sum: Option<f64>,
}

impl Cumulative {
    fn add(&mut self, part: &str, sample: &Sample<'_>) {
        match part {
            "sum" => self.sum = sample.float(),
            "bucket" => {
                let bound = sample.label("le").and_then(|bound| bound.parse().ok());
                self.buckets.extend(bound.zip(sample.integer()));
            }
            _ => {}
        }
    }

    /// Nothing where the bounds are not those that are expected.
    fn histogram(self, bounds: &[f64]) -> Option<Histogram> {
        let expected = bounds.iter().copied().chain([f64::INFINITY]);
        let is_expected = self.buckets.len() == bounds.len() + 1
            && self.buckets.iter().zip(expected).all(|((is, _), must)| is.total_cmp(&must).is_eq());
        if !is_expected {
            return None;
        }
        let mut below = 0;
        let counts = self.buckets.iter().map(|(_, count)| {
            let own = count.saturating_sub(below);
            below = *count;
            own
        });
        Some(Histogram { counts: counts.collect(), sum: self.sum? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP etcd_server_id Server ID
etcd_server_id{server_id="8e9e05c52164694d"} 1
etcd_server_version{server_version="3.6.8"} 1
etcd_server_has_leader 1
etcd_server_is_leader 0
etcd_server_is_learner 0
etcd_server_leader_changes_seen_total 3
etcd_server_heartbeat_send_failures_total 2
etcd_server_proposals_pending 1
etcd_server_proposals_failed_total 0
etcd_server_quota_backend_bytes 2.147483648e+09
etcd_mvcc_db_total_size_in_bytes 20480
etcd_mvcc_db_total_size_in_use_in_bytes 16384
etcd_network_active_peers{Local="8e9e05c52164694d",Remote="a1"} 1
etcd_network_active_peers{Local="8e9e05c52164694d",Remote="b2"} 0
etcd_network_peer_sent_failures_total{To="b2"} 12
etcd_network_peer_round_trip_time_seconds_bucket{To="a1",le="0.0001"} 0
etcd_network_peer_round_trip_time_seconds_sum{To="a1"} 0.25
etcd_network_peer_round_trip_time_seconds_count{To="a1"} 5
etcd_network_client_grpc_received_bytes_total 17
etcd_server_broken{ 1
go_goroutines 100
"#;

    #[test]
    fn what_the_page_says_of_a_member_and_its_peers_is_read() {
        let page = parse_page(TEXT);
        assert_eq!(page.member, Some(MemberId(0x8e9e_05c5_2164_694d)));
        assert_eq!(page.version.as_deref(), Some("3.6.8"));
        assert_eq!(
            (page.has_leader, page.is_leader, page.is_learner),
            (Some(true), Some(false), Some(false))
        );
        assert_eq!((page.leader_changes, page.heartbeat_failures), (Some(3), Some(2)));
        assert_eq!((page.proposals_pending, page.proposals_failed), (Some(1), Some(0)));
        assert_eq!((page.database, page.in_use, page.quota), (Some(20480), Some(16384), Some(2 << 30)));
        let peer = |id| page.peers[&MemberId(id)].clone();
        assert_eq!(
            peer(0xa1),
            Peer { is_active: Some(true), send_failures: None, round_trips: Some((5, 0.25)) }
        );
        assert_eq!(peer(0xb2), Peer { is_active: Some(false), send_failures: Some(12), round_trips: None });
        assert_eq!(page.peers.len(), 2);
    }

    #[test]
    fn a_histogram_is_taken_apart_and_one_with_other_bounds_is_left_out() {
        let name = "etcd_disk_wal_fsync_duration_seconds";
        let bounds = WAL_FSYNC_BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        let mut lines: Vec<String> = bounds
            .enumerate()
            .map(|(at, bound)| format!("{name}_bucket{{le=\"{bound}\"}} {}", at * 2))
            .collect();
        lines.push(format!("{name}_sum 1.5"));
        let fsync = parse_page(&lines.join("\n")).wal_fsync.unwrap();
        assert_eq!((fsync.sum, fsync.counts.len(), fsync.counts[0], fsync.counts[14]), (1.5, 15, 0, 2));
        lines.remove(3);
        assert_eq!(parse_page(&lines.join("\n")).wal_fsync, None);
    }

    #[test]
    fn a_page_of_somebody_else_is_empty() {
        assert_eq!(parse_page("go_goroutines 100\nnode_load1 0\n"), Page::default());
    }
}
