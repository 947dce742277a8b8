//! What is done to a cluster and asked of it through etcdctl.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::member::{self, CLIENT_PORT, Member, PEER_PORT};
use super::reading::{self, Listed, Status};
use super::{Etcd, LIMIT};
use crate::node::Node;
use crate::place::Place as _;
use crate::process;

/// How long etcdctl tries; the process ends a little later.
const TIMEOUTS: [&str; 2] = ["--command-timeout=3s", "--dial-timeout=2s"];

/// The length of a value that fills the data base. One argument of a command has at most 128 KiB.
const VALUE_LENGTH: usize = 100_000;

/// Where the keys begin that fill the data base.
const FILL_PREFIX: &str = "fill/";

impl Etcd {
    /// Runs etcdctl on the first working member's node, against all working members. The error carries what it said.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        let working = self.working();
        let first = *working.first().context("no member works")?;
        self.etcdctl_from(self.node(first)?, &working, arguments)
    }

    /// Runs etcdctl on a member's own node, against that member alone.
    pub fn etcdctl_at(&self, member: u8, arguments: &[&str]) -> Result<String> {
        self.etcdctl_from(self.node(member)?, &[member], arguments)
    }

    /// Runs etcdctl on any node, against those members.
    pub fn etcdctl_from(&self, node: &Node, members: &[u8], arguments: &[&str]) -> Result<String> {
        let endpoint = |member: &u8| self.options.reach.advertise(self.node(*member)?, CLIENT_PORT);
        let endpoints = members.iter().map(endpoint).collect::<Result<Vec<_>>>()?;
        let [certificate, key] = self.pki.witness_pair();
        let etcdctl = self.options.version.etcdctl()?;
        let mut command = node.command(etcdctl.to_str().context("the path of etcdctl is no UTF-8")?)?;
        command.args(TIMEOUTS).arg(format!("--endpoints={}", endpoints.join(",")));
        command.arg("--cacert").arg(self.pki.server_authority()).arg("--cert").arg(certificate);
        command.arg("--key").arg(key).args(arguments);
        process::run(&mut command).with_context(|| format!("etcdctl on {}", node.name()))
    }

    /// What a member says about itself.
    pub fn status(&self, member: u8) -> Result<Status> {
        reading::status(&self.etcdctl_at(member, &["endpoint", "status", "-w", "json"])?)
    }

    /// The members by the list that the cluster keeps.
    pub fn listed(&self) -> Result<Vec<Listed>> {
        reading::members(&self.etcdctl(&["member", "list", "-w", "json"])?)
    }

    /// The working member that takes itself for the leader; of several that with the highest term.
    #[must_use]
    pub fn leader(&self) -> Option<u8> {
        let working = self.working().into_iter();
        // A member that does not answer leads nobody.
        let statuses = working.filter_map(|member| Some((member, self.status(member).ok()?)));
        let leaders = statuses.filter(|(_, status)| status.leads());
        leaders.max_by_key(|(_, status)| status.raft_term).map(|(member, _)| member)
    }

    /// Waits until there is a leader, and returns it with its status.
    pub fn wait_leader(&self, limit: Duration) -> Result<u8> {
        process::wait_for("a leader of etcd", limit, || self.leader())
    }

    /// The working members that do not lead.
    pub fn followers(&self) -> Result<Vec<u8>> {
        let leader = self.wait_leader(LIMIT)?;
        Ok(self.working().into_iter().filter(|member| *member != leader).collect())
    }

    /// Hands the leadership over.
    pub fn move_leader(&self, to: u8) -> Result<()> {
        let leader = self.wait_leader(LIMIT)?;
        let id = self.status(to)?.id;
        self.etcdctl_at(leader, &["move-leader", &id]).map(drop)
    }

    /// Writes a value.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.etcdctl(&["put", key, value]).map(drop)
    }

    /// Writes until etcd takes no more: the quota of the options is used up, and the alarm is raised. Returns how many
    /// values it took.
    pub fn fill_to_nospace(&self) -> Result<u64> {
        let quota = self.options.quota.context("the cluster has been started without a quota")?;
        let value = "x".repeat(VALUE_LENGTH);
        for number in 0..=2 * quota / VALUE_LENGTH as u64 {
            match self.put(&format!("{FILL_PREFIX}{number}"), &value) {
                Ok(()) => {}
                Err(error) if format!("{error:#}").contains("database space exceeded") => return Ok(number),
                Err(error) => return Err(error),
            }
        }
        bail!("a quota of {quota} bytes is not used up")
    }

    /// Deletes what has filled the data base, gives the space back on all working members, and disarms the alarm.
    pub fn disarm(&self) -> Result<()> {
        self.etcdctl(&["del", "--prefix", FILL_PREFIX])?;
        let member = *self.working().first().context("no member works")?;
        let revision = self.status(member)?.revision.to_string();
        self.etcdctl(&["compact", "--physical", &revision])?;
        for member in self.working() {
            self.etcdctl_at(member, &["defrag"])?;
        }
        self.etcdctl(&["alarm", "disarm"]).map(drop)
    }

    /// Adds a member that does not vote, on a node that has none, and waits until it answers.
    pub fn add_learner(&mut self, node: &Node) -> Result<()> {
        let url = self.options.reach.advertise(node, PEER_PORT)?;
        self.furnish(node)?;
        self.list_learner(node.name(), &url)?;
        let known =
            self.members.values().filter(|member| !member.is_removed()).map(Member::node).chain([node]);
        let initial = known.map(|node| member::initial(node, &self.options)).collect::<Result<Vec<_>>>()?;
        let member = Member::start(node, &self.options, &initial.join(","), "existing")?;
        self.members.insert(node.index(), member);
        let what = format!("the learner on {} to answer", node.name());
        process::wait_until(&what, LIMIT, || self.status(node.index()).is_ok_and(|status| status.is_learner))
    }

    /// Puts a learner into the list that nobody has started.
    pub fn list_learner(&self, name: &str, peer_url: &str) -> Result<()> {
        let add = ["member", "add", name, "--learner", &format!("--peer-urls={peer_url}")];
        // Refused until all members have been connected for five seconds.
        insist(&format!("{name} to be added"), || self.etcdctl(&add))
    }

    /// Makes a learner vote, as soon as it has caught up with the leader.
    pub fn promote(&self, member: u8) -> Result<()> {
        let id = self.status(member)?.id;
        // Only voting members take the order.
        let voter = self.wait_leader(LIMIT)?;
        insist(&format!("node{member} to be promoted"), || {
            self.etcdctl_at(voter, &["member", "promote", &id])
        })
    }

    /// Takes a member out of the list while it runs; etcd then ends by itself. Returns the id it had.
    pub fn remove(&mut self, member: u8) -> Result<String> {
        let id = self.status(member)?.id;
        let others: Vec<u8> = self.working().into_iter().filter(|other| *other != member).collect();
        let first = *others.first().context("the only member cannot be removed")?;
        let remove = ["member", "remove", &id];
        // Refused like the adding until the members have been connected for five seconds.
        let order = || self.etcdctl_from(self.node(first)?, &others, &remove);
        insist(&format!("node{member} to be removed"), order)?;
        self.member_mut(member)?.set_removed();
        Ok(id)
    }
}

/// Repeats an order until it is carried out; the error carries what was said last.
fn insist(what: &str, mut order: impl FnMut() -> Result<String>) -> Result<()> {
    let mut last = Ok(String::new());
    let waited = process::wait_until(what, LIMIT, || {
        last = order();
        last.is_ok()
    });
    waited.with_context(|| last.err().map(|error| format!("{error:#}")).unwrap_or_default())
}
