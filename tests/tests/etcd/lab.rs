//! The lab tests itself: clusters come up, fail as they are told to, and etcd's own interfaces say so.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use lab::etcd::{Layout, Reach, Role, Status, Validity};
use lab::{Etcd, EtcdOptions, Lab, LabOptions, Place as _, wait_until};

use crate::{LIMIT, VERSIONS, of, start};

/// A quota that is used up soon.
const QUOTA: u64 = 4 << 20;

fn follower(etcd: &Etcd) -> Result<u8> {
    etcd.followers()?.first().copied().context("no follower")
}

/// Waits until a member's own status is as it should be, and returns it.
fn await_status(etcd: &Etcd, member: u8, what: &str, holds: impl Fn(&Status) -> bool) -> Result<Status> {
    let mut last = None;
    wait_until(&format!("node{member} to show {what}"), LIMIT, || {
        last = etcd.status(member).ok();
        last.as_ref().is_some_and(&holds)
    })
    .with_context(|| format!("last status: {last:?}"))?;
    last.context("no status")
}

fn check_members(etcd: &Etcd) -> Result<()> {
    let listed = etcd.listed()?;
    assert_eq!(listed.len(), usize::from(etcd.options().members));
    let leader = etcd.wait_leader(LIMIT)?;
    let leader = etcd.status(leader)?.id;
    for member in etcd.numbers() {
        let status = etcd.status(member)?;
        assert!(status.version.starts_with(etcd.options().version.prefix()), "{status:?}");
        assert_eq!((status.errors.as_slice(), status.is_learner), (&[][..], false), "{status:?}");
        assert_eq!(status.leader.as_ref(), Some(&leader));
        let own = listed.iter().find(|listed| listed.id == status.id).context("not in the list")?;
        assert_eq!(own.name, format!("node{member}"));
        assert_eq!(etcd.page(member, "/health")?.status, 200);
        assert_eq!(etcd.metrics(member)?.count("etcd_server_has_leader", &[]), Some(1));
    }
    Ok(())
}

#[test]
fn a_cluster_becomes_healthy() -> Result<()> {
    for version in VERSIONS {
        let lab = Lab::start(&LabOptions { nodes: 3, flannel: None })?;
        let began = Instant::now();
        let etcd = Etcd::start(&lab, &of(version))?;
        println!("{version:?} healthy after {:?}", began.elapsed());
        check_members(&etcd)?;
        drop(etcd);
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn clusters_of_other_sizes_become_healthy() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 7, flannel: None })?;
    for (version, members) in VERSIONS.into_iter().cycle().zip([1, 2, 4, 5, 7]) {
        let began = Instant::now();
        let etcd = Etcd::start(&lab, &EtcdOptions { members, ..of(version) })?;
        println!("{members} members of {version:?} healthy after {:?}", began.elapsed());
        check_members(&etcd)?;
    }
    lab.shutdown()
}

#[test]
fn members_reach_each_other_over_ipv6_and_by_name() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: None })?;
    for version in VERSIONS {
        for (reach, host) in [(Reach::Ipv6, "[fd56::11]"), (Reach::Names, "node1")] {
            let etcd = Etcd::start(&lab, &EtcdOptions { reach, ..of(version) })?;
            check_members(&etcd)?;
            let id = etcd.status(1)?.id;
            let listed = etcd.listed()?;
            let first = listed.iter().find(|listed| listed.id == id).context("not in the list")?;
            assert_eq!(first.peer_urls, [format!("https://{host}:2380")]);
            assert_eq!(first.client_urls, [format!("https://{host}:2379")]);
        }
    }
    lab.shutdown()
}

#[test]
fn a_killed_leader_is_replaced() -> Result<()> {
    for version in VERSIONS {
        let (lab, mut etcd) = start(3, &of(version))?;
        let leader = etcd.wait_leader(LIMIT)?;
        let before = etcd.status(leader)?;
        let began = Instant::now();
        etcd.kill(leader)?;
        let successor = etcd.wait_leader(LIMIT)?;
        println!("{version:?} another leader after {:?}", began.elapsed());
        assert_ne!(successor, leader);
        assert!(etcd.status(successor)?.raft_term > before.raft_term);
        etcd.put("key", "value")?;
        let metrics = etcd.metrics(successor)?;
        assert_eq!(metrics.count("etcd_server_is_leader", &[]), Some(1));
        let dead = [("Local", etcd.status(successor)?.id), ("Remote", before.id)];
        let dead = dead.each_ref().map(|(name, id)| (*name, id.as_str()));
        let active = || etcd.metrics(successor).ok()?.count("etcd_network_active_peers", &dead);
        wait_until("the dead peer to be inactive", LIMIT, || active() == Some(0))?;
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn without_a_quorum_only_serializable_reads_succeed() -> Result<()> {
    for version in VERSIONS {
        let (lab, mut etcd) = start(3, &of(version))?;
        etcd.put("key", "value")?;
        let left = etcd.wait_leader(LIMIT)?;
        for member in etcd.followers()? {
            etcd.kill(member)?;
        }
        let status = await_status(&etcd, left, "no leader", |status| status.leader.is_none())?;
        assert_eq!(status.errors, ["etcdserver: no leader"]);
        assert_eq!(etcd.leader(), None);
        let error = format!("{:#}", etcd.etcdctl(&["get", "key"]).unwrap_err());
        ensure!(error.contains("deadline exceeded") || error.contains("timed out"), "{error}");
        assert_eq!(etcd.etcdctl(&["get", "--consistency=s", "--print-value-only", "key"])?, "value\n");
        let health = etcd.page(left, "/health")?;
        println!("{version:?} {} {}", health.status, health.text()?.trim());
        assert_eq!(health.status, 503);
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn a_killed_member_returns_with_its_data() -> Result<()> {
    for version in VERSIONS {
        let (lab, mut etcd) = start(3, &of(version))?;
        let member = follower(&etcd)?;
        let id = etcd.status(member)?.id;
        etcd.kill(member)?;
        etcd.put("key", "while it was away")?;
        etcd.restart(member)?;
        etcd.wait_healthy(LIMIT)?;
        assert_eq!(etcd.status(member)?.id, id);
        let get = ["get", "--consistency=s", "--print-value-only", "key"];
        let caught_up = || etcd.etcdctl_at(member, &get).is_ok_and(|value| value == "while it was away\n");
        wait_until("the member to catch up", LIMIT, caught_up)?;
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn a_frozen_leader_is_replaced_and_follows_when_it_thaws() -> Result<()> {
    for version in VERSIONS {
        let (lab, mut etcd) = start(3, &of(version))?;
        let leader = etcd.wait_leader(LIMIT)?;
        etcd.freeze(leader)?;
        let successor = etcd.wait_leader(LIMIT)?;
        assert_ne!(successor, leader);
        let id = etcd.status(successor)?.id;
        etcd.thaw(leader)?;
        await_status(&etcd, leader, "the other leader", |status| status.leader.as_ref() == Some(&id))?;
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn the_leadership_is_handed_over() -> Result<()> {
    for version in VERSIONS {
        let (lab, mut etcd) = start(3, &of(version))?;
        let heir = follower(&etcd)?;
        etcd.move_leader(heir)?;
        assert_eq!(etcd.wait_leader(LIMIT)?, heir);
        let began = Instant::now();
        let status = etcd.stop(heir)?;
        println!("{version:?} a leader stopped within {:?} ({status})", began.elapsed());
        assert_ne!(etcd.wait_leader(LIMIT)?, heir);
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn a_full_data_base_raises_an_alarm_until_it_is_disarmed() -> Result<()> {
    for version in VERSIONS {
        let (lab, etcd) = start(3, &EtcdOptions { quota: Some(QUOTA), ..of(version) })?;
        let taken = etcd.fill_to_nospace()?;
        let health = etcd.page(1, "/health")?;
        println!("{version:?} full after {taken} values: {} {}", health.status, health.text()?.trim());
        for member in etcd.numbers() {
            let alarm = |status: &Status| status.errors.iter().any(|error| error.contains("alarm:NOSPACE"));
            let status = await_status(&etcd, member, "the alarm", alarm)?;
            assert!(status.db_size > QUOTA / 2, "{status:?}");
            assert_eq!(etcd.page(member, "/health")?.status, 503);
        }
        etcd.disarm()?;
        etcd.put("key", "value")?;
        for member in etcd.numbers() {
            let status = await_status(&etcd, member, "no alarm", |status| status.errors.is_empty())?;
            assert!(status.db_size < QUOTA / 2, "{status:?}");
            assert_eq!(etcd.page(member, "/health")?.status, 200);
        }
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn a_learner_is_promoted_and_a_removed_member_ends() -> Result<()> {
    for version in VERSIONS {
        let (lab, mut etcd) = start(4, &of(version))?;
        etcd.add_learner(lab.node(4)?)?;
        let learners = |etcd: &Etcd| -> Result<Vec<String>> {
            let listed = etcd.listed()?.into_iter();
            Ok(listed.filter(|listed| listed.is_learner).map(|listed| listed.name).collect())
        };
        assert_eq!(learners(&etcd)?, ["node4"]);
        assert_eq!(etcd.metrics(4)?.count("etcd_server_is_learner", &[]), Some(1));
        let began = Instant::now();
        etcd.promote(4)?;
        println!("{version:?} promoted within {:?}", began.elapsed());
        assert_eq!((learners(&etcd)?.len(), etcd.listed()?.len()), (0, 4));
        assert!(!await_status(&etcd, 4, "a vote", |status| !status.is_learner)?.is_learner);

        let member = follower(&etcd)?;
        let id = etcd.remove(member)?;
        assert!(etcd.listed()?.iter().all(|listed| listed.id != id));
        assert!(etcd.service(member)?.wait(LIMIT)?.success());
        lab.shutdown()?;
    }
    Ok(())
}

/// What a client of the node's own sees of the certificate on port 2379, by openssl.
struct Shown {
    /// When it ends, in seconds since 1970.
    until: Option<u64>,
    /// Why it is not trusted; `ok` if it is.
    verdict: String,
}

fn shown(etcd: &Etcd, member: u8) -> Result<Shown> {
    let layout = etcd.pki().layout();
    let file = |name: &str| format!("{}/{name}", layout.directory());
    let [certificate, key] = layout.pair(Role::Client).map(file);
    let script = format!(
        "openssl s_client -connect 127.0.0.1:2379 -CAfile {} -cert {certificate} -key {key} </dev/null 2>&1 || :",
        file(layout.authority(Role::Server))
    );
    let said = etcd.node(member)?.run(&["sh", "-c", &script])?;
    let verdict = said.lines().find_map(|line| line.trim().strip_prefix("Verify return code: "));
    let verdict = verdict.with_context(|| said.clone())?.to_owned();
    if !said.contains("BEGIN CERTIFICATE") {
        return Ok(Shown { until: None, verdict });
    }
    let file = etcd.node(member)?.machine().scratch().join("shown.pem");
    fs::write(&file, &said)?;
    let script = format!("openssl x509 -noout -enddate -in {} | cut -d= -f2 | date -f- +%s", file.display());
    let until = etcd.node(member)?.run(&["sh", "-c", &script])?.trim().parse()?;
    Ok(Shown { until: Some(until), verdict })
}

#[test]
fn a_replaced_certificate_is_shown_at_once() -> Result<()> {
    for version in VERSIONS {
        let (lab, etcd) = start(1, &EtcdOptions { members: 1, ..of(version) })?;
        let (node, pki) = (etcd.node(1)?, etcd.pki());
        let until = || pki.certificate(node, Role::Server).not_after();
        let check = |verdict: &str| -> Result<u64> {
            let (shown, until) = (shown(&etcd, 1)?, until()?);
            ensure!(shown.verdict.contains(verdict), "{} instead of {verdict}", shown.verdict);
            assert_eq!(shown.until, Some(until));
            Ok(until)
        };
        let first = check("(ok)")?;
        pki.reissue(node, Role::Server, Validity { from: -60, until: 600 })?;
        assert!(check("(ok)")? < first);
        pki.reissue(node, Role::Server, Validity::EXPIRED)?;
        check("certificate has expired")?;
        pki.reissue(node, Role::Server, Validity::FUTURE)?;
        check("certificate is not yet valid")?;
        pki.reissue_by_stranger(node, Role::Server)?;
        check("unable to verify the first certificate")?;
        // The client's trust, here.
        pki.replace_authority(node, Role::Server)?;
        check("(ok)")?;
        pki.replace_key(node, Role::Server)?;
        assert_eq!(shown(&etcd, 1)?.until, None);

        pki.install(node)?;
        check("(ok)")?;
        etcd.etcdctl(&["endpoint", "health"])?;
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn a_replaced_authority_counts_from_the_next_start() -> Result<()> {
    for version in VERSIONS {
        let (lab, mut etcd) = start(1, &EtcdOptions { members: 1, ..of(version) })?;
        let node = etcd.node(1)?.clone();
        etcd.pki().replace_authority(&node, Role::Client)?;
        etcd.put("key", "value")?;
        etcd.restart(1)?;
        let health = || etcd.page(1, "/health").is_ok_and(|page| page.status == 200);
        wait_until("etcd to be healthy by itself", LIMIT, health)?;
        assert!(etcd.put("key", "value").is_err());
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn the_files_lie_where_k3s_has_them() -> Result<()> {
    for version in VERSIONS {
        let (lab, etcd) = start(3, &EtcdOptions { layout: Layout::K3s, ..of(version) })?;
        check_members(&etcd)?;
        let listing = etcd.node(1)?.run(&["ls", "/var/lib/rancher/k3s/server/tls/etcd"])?;
        let expected = [
            "client.crt",
            "client.key",
            "peer-ca.crt",
            "peer-server-client.crt",
            "peer-server-client.key",
            "server-ca.crt",
            "server-client.crt",
            "server-client.key",
        ];
        assert_eq!(listing.lines().collect::<Vec<_>>(), expected);
        assert!(etcd.node(1)?.path("/var/lib/rancher/k3s/server/db/etcd/member/wal").is_dir());
        lab.shutdown()?;
    }
    Ok(())
}

#[test]
fn the_certificates_of_a_node_are_not_the_machines() -> Result<()> {
    let machines = fs::exists("/etc/kubernetes")?;
    let (lab, etcd) = start(1, &EtcdOptions { members: 1, ..EtcdOptions::default() })?;
    let node = etcd.node(1)?;
    assert!(node.path("/etc/kubernetes/pki/etcd/server.crt").is_file());
    assert_eq!(node.run(&["cat", "/etc/passwd"])?, fs::read_to_string("/etc/passwd")?);
    lab.shutdown()?;
    assert_eq!(fs::exists("/etc/kubernetes")?, machines);
    Ok(())
}
