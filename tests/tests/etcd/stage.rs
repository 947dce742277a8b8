//! Agents beside the members of a cluster, and what they show against what etcdctl says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::Samples;
use lab::{Agent, AgentOptions, Etcd, Node};

use crate::LIMIT;

/// An agent on a node, with further arguments.
pub(crate) fn agent(node: &Node, arguments: &[&str]) -> Result<Agent> {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Agent::start(node, &AgentOptions { arguments, limit: Duration::from_secs(30), ..AgentOptions::default() })
}

/// Waits until the page of an agent is as it should be; answers with it and the time that it took.
pub(crate) fn wait_page(
    agent: &Agent,
    what: &str,
    holds: impl Fn(&Samples) -> bool,
) -> Result<(Samples, Duration)> {
    agent.wait_page(what, LIMIT, "leadline_etcd_", holds)
}

/// A value of the whole cluster.
pub(crate) fn of_cluster(page: &Samples, name: &str) -> Option<f64> {
    page.value(&format!("leadline_etcd_{name}"), &[])
}

/// Whether the cluster has that margin.
pub(crate) fn has_margin(page: &Samples, margin: i32) -> bool {
    of_cluster(page, "quorum_margin") == Some(margin.into())
}

/// A number of a member by its identity.
pub(crate) fn of_member(page: &Samples, name: &str, id: &str) -> Option<u64> {
    page.count(&format!("leadline_etcd_{name}"), &[("member", id)])
}

/// The reason that is 1 among those why a member does not answer.
pub(crate) fn failure(page: &Samples, member: &str) -> Option<String> {
    let mut found = page.of("leadline_etcd_member_failure", |sample| {
        sample.label("member") == Some(member) && sample.count() == Some(1)
    });
    found.next()?.label("reason").map(str::to_owned)
}

/// Whether a page says of every working member, and of the list, what etcdctl says.
pub(crate) fn check(page: &Samples, etcd: &Etcd) -> Result<()> {
    let listed = etcd.listed()?;
    let voters = listed.iter().filter(|member| !member.is_learner).count();
    let count = |count: usize| u64::try_from(count).ok();
    let members = |role| page.count("leadline_etcd_members", &[("role", role)]);
    ensure!(members("voter") == count(voters), "voters: {:?}, {listed:?}", members("voter"));
    ensure!(
        members("learner") == count(listed.len() - voters),
        "learners: {:?}, {listed:?}",
        members("learner")
    );
    for member in &listed {
        let info = page.only("leadline_etcd_member_info", &[("member", &member.id)]);
        let info = info.with_context(|| format!("{} has no info", member.id))?;
        ensure!(info.label("name") == Some(&member.name), "{info:?} {member:?}");
        let address = info.label("peer_address").unwrap_or_default();
        ensure!(!address.is_empty() && member.peer_urls[0].contains(address), "{info:?} {member:?}");
        ensure!(of_member(page, "member_voter", &member.id) == Some(u64::from(!member.is_learner)));
    }
    let working = etcd.working();
    let mut healthy = 0;
    for member in &working {
        let told = etcd.status(*member)?;
        let of = |name| of_member(page, name, &told.id);
        healthy += u64::from(!told.is_learner);
        ensure!(of("member_healthy") == Some(1), "{told:?} is not healthy");
        ensure!(of("term") == Some(told.raft_term), "term {:?}: {told:?}", of("term"));
        ensure!(of("database_bytes") == Some(told.db_size), "database {:?}: {told:?}", of("database_bytes"));
        let in_use = of("database_in_use_bytes");
        ensure!(in_use == Some(told.db_size_in_use), "in use {in_use:?}: {told:?}");
        ensure!(of("raft_index") == Some(told.raft_index), "index {:?}: {told:?}", of("raft_index"));
        ensure!(
            of("applied_index") == Some(told.raft_applied_index),
            "applied {:?}: {told:?}",
            of("applied_index")
        );
        ensure!(of("has_leader") == Some(u64::from(told.leader.is_some())), "{told:?}");
        for leader in &listed {
            let follows = page.count("leadline_etcd_leader", &[("member", &told.id), ("leader", &leader.id)]);
            let should = told.leader.as_ref() == Some(&leader.id);
            ensure!(follows == Some(should.into()), "{} follows {}: {follows:?}", told.id, leader.id);
        }
    }
    ensure!(page.count("leadline_etcd_healthy_voters", &[]) == Some(healthy), "{working:?} work");
    Ok(())
}

/// Waits until an agent says the same as etcdctl.
pub(crate) fn wait_agreement(agent: &Agent, etcd: &Etcd) -> Result<Samples> {
    let mut last = Ok(());
    let waited = wait_for("agent and etcdctl to agree", LIMIT, || {
        let page = agent.scrape().ok()?;
        last = check(&page, etcd);
        last.is_ok().then_some(page)
    });
    waited.with_context(|| last.err().map(|error| format!("{error:#}")).unwrap_or_default())
}

/// The identity of a member.
pub(crate) fn id(etcd: &Etcd, member: u8) -> Result<String> {
    Ok(etcd.status(member)?.id)
}
