//! Whether etcd is found, and what is said where it is not, or may not be asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::etcd::{Layout, Pki, Role, Validity, Version};
use lab::{Agent, EtcdOptions, Lab, LabOptions, Node, Place as _};

use crate::stage::{agent, failure, has_margin, of_cluster, wait_agreement, wait_page};
use crate::{LIMIT, of, start};

fn wait_support(agent: &Agent, level: &str, reason: &str) -> Result<()> {
    agent.wait_support("etcd", level, reason, LIMIT)
}

fn series(agent: &Agent) -> Result<usize> {
    let page = agent.scrape()?;
    Ok(page.all().iter().filter(|sample| sample.name.starts_with("leadline_etcd_")).count())
}

fn single(version: Version) -> EtcdOptions {
    EtcdOptions { members: 1, ..of(version) }
}

#[test]
fn without_etcd_there_is_a_reason_and_no_series() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let observer = agent(lab.node(1)?, &[])?;
    wait_support(&observer, "no", "no etcd on this node")?;
    ensure!(series(&observer)? == 0);
    lab.shutdown()
}

#[test]
fn k3s_with_sqlite_has_no_quorum_to_lose() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let node = lab.node(1)?;
    node.run(&["mkdir", "-p", "/var/lib/rancher/k3s/server/db", "/var/lib/rancher/k3s/server/tls/etcd"])?;
    node.run(&["touch", "/var/lib/rancher/k3s/server/db/state.db"])?;
    node.run(&["touch", "/var/lib/rancher/k3s/server/tls/etcd/client.crt"])?;
    let observer = agent(node, &[])?;
    wait_support(&observer, "no", "no etcd: k3s keeps its state in sqlite")?;
    ensure!(series(&observer)? == 0);
    lab.shutdown()
}

#[test]
fn the_files_of_k3s_are_found() -> Result<()> {
    let (lab, etcd) = start(1, &EtcdOptions { layout: Layout::K3s, ..single(Version::V3_6) })?;
    let observer = agent(lab.node(1)?, &[])?;
    wait_agreement(&observer, &etcd)?;
    wait_support(&observer, "supported", "")?;
    lab.shutdown()
}

#[test]
fn without_a_client_certificate_the_page_of_the_member_is_known() -> Result<()> {
    for version in crate::VERSIONS {
        let (lab, mut etcd) = start(3, &of(version))?;
        let node = lab.node(1)?;
        node.run(&["rm", "/etc/kubernetes/pki/etcd/healthcheck-client.crt"])?;
        let observer = agent(node, &[])?;
        wait_support(&observer, "degraded", "no client certificate of etcd")?;
        let page = observer.scrape()?;
        ensure!(of_cluster(&page, "has_quorum") == Some(1.0));
        for unknown in ["quorum_margin", "quorum", "healthy_voters"] {
            ensure!(of_cluster(&page, unknown).is_none(), "{unknown} was made up");
        }
        // What the page says is what the agent says.
        let own = crate::stage::id(&etcd, 1)?;
        let told = etcd.metrics(1)?;
        for (ours, theirs) in [
            ("leader_changes_total", "etcd_server_leader_changes_seen_total"),
            ("proposals_failed_total", "etcd_server_proposals_failed_total"),
            ("database_bytes", "etcd_mvcc_db_total_size_in_bytes"),
            ("database_in_use_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes"),
            ("quota_bytes", "etcd_server_quota_backend_bytes"),
            ("heartbeat_send_failures_total", "etcd_server_heartbeat_send_failures_total"),
        ] {
            let ours = page.value(&format!("leadline_etcd_{ours}"), &[("member", &own)]);
            ensure!(ours.is_some() && ours == told.value(theirs, &[]), "{theirs}: {ours:?}");
        }
        let peers = page.sum("leadline_etcd_peer_active", |sample| sample.label("member") == Some(&own));
        ensure!(peers == Some(2), "{peers:?} of two peers are active");
        let health = |page: &lab::scrape::Samples| crate::stage::of_member(page, "health", &own);
        ensure!(health(&page) == Some(1) && etcd.page(1, "/health")?.status == 200);
        for other in [2, 3] {
            etcd.kill(other)?;
        }
        wait_page(&observer, "no quorum", |page| {
            health(page) == Some(0) && of_cluster(page, "has_quorum") == Some(0.0)
        })?;
        ensure!(etcd.page(1, "/health")?.status == 503);
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn the_histograms_are_those_of_the_page() -> Result<()> {
    let (lab, etcd) = start(1, &single(Version::V3_6))?;
    let observer = agent(lab.node(1)?, &["--etcd.election-timeout=1s"])?;
    for number in 0..50 {
        etcd.put(&format!("key/{number}"), "value")?;
    }
    let pairs = [
        ("leadline_etcd_wal_fsync_seconds", "etcd_disk_wal_fsync_duration_seconds"),
        ("leadline_etcd_backend_commit_seconds", "etcd_disk_backend_commit_duration_seconds"),
    ];
    wait_page(&observer, "the histograms of etcd's page", |page| {
        let Ok(told) = etcd.metrics(1) else { return false };
        pairs.iter().all(|(ours, theirs)| {
            ["_count", "_sum"].iter().all(|part| {
                let ours = page.value(&format!("{ours}{part}"), &[]);
                ours.is_some() && ours == told.value(&format!("{theirs}{part}"), &[])
            }) && (0..14_i32).all(|exponent| {
                let bound = (0.001 * 2_f64.powi(exponent)).to_string();
                let ours = page.count(&format!("{ours}_bucket"), &[("le", &bound)]);
                ours.is_some() && ours == told.count(&format!("{theirs}_bucket"), &[("le", &bound)])
            })
        })
    })?;
    let page = observer.scrape()?;
    let share = page.value("leadline_etcd_election_budget_ratio", &[("part", "wal_fsync")]);
    ensure!(share.is_some_and(|share| share > 0.0 && share < 1.0), "{share:?}");
    let timeout = page.value("leadline_etcd_election_timeout_seconds", &[("origin", "configuration")]);
    ensure!(timeout == Some(1.0), "{timeout:?}");
    lab.shutdown()
}

/// Spoils a file of a node.
type Fault = fn(&Pki, &Node) -> Result<()>;

#[test]
fn what_is_wrong_with_a_certificate_is_said_and_asked_rarely() -> Result<()> {
    let (lab, etcd) = start(1, &single(Version::V3_6))?;
    let node = lab.node(1)?;
    let mut observer = agent(node, &[])?;
    wait_support(&observer, "supported", "")?;
    let faults: [(&str, Fault); 4] = [
        ("etcd refuses the client certificate", |pki, node| {
            pki.reissue(node, Role::Client, Validity::EXPIRED)
        }),
        ("etcd refuses the client certificate", |pki, node| pki.reissue_by_stranger(node, Role::Client)),
        ("the client certificate of etcd cannot be used", |pki, node| pki.replace_key(node, Role::Client)),
        ("signed by another CA", |pki, node| pki.replace_authority(node, Role::Server)),
    ];
    for (reason, spoil) in &faults {
        spoil(etcd.pki(), node)?;
        wait_support(&observer, "degraded", reason)?;
        let page = observer.scrape()?;
        ensure!(of_cluster(&page, "quorum_margin") == Some(-1.0), "what does not answer is not healthy");
        // The way back: the files of the beginning.
        etcd.pki().install(node)?;
        wait_support(&observer, "supported", "")?;
        wait_page(&observer, "the margin", |page| has_margin(page, 0))?;
    }
    let log = observer.service().log()?;
    let told = log.lines().filter(|line| line.contains("etcd does not answer")).count();
    ensure!((faults.len()..=3 * faults.len()).contains(&told), "told {told} times:\n{log}");
    lab.shutdown()
}

#[test]
fn a_certificate_of_etcd_that_has_expired_is_said() -> Result<()> {
    let (lab, mut etcd) = start(1, &single(Version::V3_6))?;
    let node = lab.node(1)?;
    let observer = agent(node, &[])?;
    wait_support(&observer, "supported", "")?;
    etcd.pki().reissue(node, Role::Server, Validity::EXPIRED)?;
    // A connection that stands is not looked at again.
    etcd.restart(1)?;
    wait_support(&observer, "degraded", "the certificate of etcd has expired")?;
    etcd.pki().reissue(node, Role::Server, Validity::default())?;
    wait_support(&observer, "supported", "")?;
    wait_page(&observer, "the margin", |page| has_margin(page, 0))?;
    lab.shutdown()
}

#[test]
fn a_certificate_that_is_rotated_under_load_goes_unnoticed() -> Result<()> {
    let (lab, etcd) = start(3, &of(Version::V3_6))?;
    let node = lab.node(1)?;
    let observer = agent(node, &[])?;
    wait_page(&observer, "a margin of 1", |page| has_margin(page, 1))?;
    for role in [Role::Client, Role::Server, Role::Peer] {
        etcd.pki().reissue(node, role, Validity { from: -3_600, until: 3_600 })?;
    }
    let looked = Instant::now();
    let own = crate::stage::id(&etcd, 1)?;
    let mut failures = BTreeSet::new();
    // Two looks at the files.
    lab::process::wait_until("the new files to be used", LIMIT, || {
        failures.extend(observer.scrape().ok().and_then(|page| failure(&page, &own)));
        looked.elapsed() > Duration::from_secs(21)
    })?;
    failures.remove("late");
    ensure!(failures.is_empty(), "{failures:?}");
    ensure!(observer.events("etcd_member_lost")?.is_empty());
    wait_page(&observer, "a margin of 1", |page| has_margin(page, 1))?;
    lab.shutdown()
}
