//! What etcdctl says, as values.

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A member as etcd shows it: in hexadecimal digits, without leading zeros.
fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// What a member says about itself, which needs no quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The id of the member, in hexadecimal digits.
    pub id: String,
    /// The id of the leader that the member follows; none if it knows of none.
    pub leader: Option<String>,
    /// The version of etcd, such as `3.4.23`.
    pub version: String,
    /// The raft term.
    pub raft_term: u64,
    /// The index of the last committed entry that the member knows of.
    pub raft_index: u64,
    /// The index of the last entry that the member has applied.
    pub raft_applied_index: u64,
    /// The size of the data base in bytes, and what of it is in use.
    pub db_size: u64,
    /// What of the data base is in use, in bytes.
    pub db_size_in_use: u64,
    /// Whether the member does not vote yet.
    pub is_learner: bool,
    /// Standing alarms, and that there is no leader.
    pub errors: Vec<String>,
    /// The revision of the store.
    pub revision: u64,
}

impl Status {
    /// Whether the member takes itself for the leader.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leader.as_ref() == Some(&self.id)
    }
}

/// A member of the list that the cluster keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The id of the member, in hexadecimal digits.
    pub id: String,
    /// Its name; empty as long as an added member has not been started.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Whether the member does not vote yet.
    pub is_learner: bool,
}

// etcdctl leaves out what is zero, false or empty.

#[derive(Deserialize)]
struct EndpointStatus {
    #[serde(rename = "Status")]
    status: StatusResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusResponse {
    header: Header,
    version: String,
    #[serde(default)]
    db_size: u64,
    #[serde(default)]
    leader: u64,
    #[serde(default)]
    raft_index: u64,
    #[serde(default)]
    raft_term: u64,
    #[serde(default)]
    raft_applied_index: u64,
    #[serde(default)]
    errors: Vec<String>,
    #[serde(default)]
    db_size_in_use: u64,
    #[serde(default)]
    is_learner: bool,
}

#[derive(Deserialize)]
struct Header {
    member_id: u64,
    #[serde(default)]
    revision: u64,
}

#[derive(Deserialize)]
struct MemberList {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    #[serde(rename = "ID")]
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", default)]
    client_urls: Vec<String>,
    #[serde(rename = "isLearner", default)]
    is_learner: bool,
}

/// Reads the output of `etcdctl endpoint status -w json` for one endpoint.
pub(super) fn status(json: &str) -> Result<Status> {
    let statuses: Vec<EndpointStatus> =
        serde_json::from_str(json).with_context(|| format!("read the status in {json}"))?;
    let [EndpointStatus { status }] = <[EndpointStatus; 1]>::try_from(statuses)
        .map_err(|other| anyhow::anyhow!("{} statuses instead of one: {json}", other.len()))?;
    Ok(Status {
        id: hex(status.header.member_id),
        leader: (status.leader != 0).then(|| hex(status.leader)),
        version: status.version,
        raft_term: status.raft_term,
        raft_index: status.raft_index,
        raft_applied_index: status.raft_applied_index,
        db_size: status.db_size,
        db_size_in_use: status.db_size_in_use,
        is_learner: status.is_learner,
        errors: status.errors,
        revision: status.header.revision,
    })
}

/// Reads the output of `etcdctl member list -w json`.
pub(super) fn members(json: &str) -> Result<Vec<Listed>> {
    let list: MemberList =
        serde_json::from_str(json).with_context(|| format!("read the members in {json}"))?;
    let members = list.members.into_iter().map(|member| Listed {
        id: hex(member.id),
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    });
    Ok(members.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LEADER: &str = r#"[{"Endpoint":"https://192.168.56.11:2379","Status":{"header":{"cluster_id":14841639068965178418,
        "member_id":10276657743932975437,"revision":7,"raft_term":3},"version":"3.4.23","dbSize":20480,"raftIndex":12,
        "raftTerm":3,"raftAppliedIndex":12,"errors":["etcdserver: no leader"],"dbSizeInUse":16384}}]"#;

    #[test]
    fn a_status_without_a_leader_has_none() {
        let status = status(NO_LEADER).unwrap();
        assert_eq!((status.id.as_str(), &status.leader), ("8e9e05c52164694d", &None));
        assert_eq!((status.raft_term, status.revision, status.db_size_in_use), (3, 7, 16_384));
        assert!(!status.leads() && !status.is_learner);
        assert_eq!(status.errors, ["etcdserver: no leader"]);
    }

    #[test]
    fn the_leader_is_who_follows_itself() {
        let json = NO_LEADER.replace("\"raftIndex\"", "\"leader\":10276657743932975437,\"raftIndex\"");
        assert!(status(&json).unwrap().leads());
    }

    #[test]
    fn no_status_is_an_error() {
        assert!(status("[]").unwrap_err().to_string().contains("0 statuses"));
    }

    #[test]
    fn a_learner_that_has_not_been_started_has_no_name() {
        let json = r#"{"header":{"member_id":1},"members":[{"ID":2,"name":"node1","peerURLs":["https://a:2380"],
            "clientURLs":["https://a:2379"]},{"ID":255,"peerURLs":["https://b:2380"],"isLearner":true}]}"#;
        let members = members(json).unwrap();
        assert_eq!((members[0].name.as_str(), members[0].is_learner), ("node1", false));
        assert_eq!((members[1].id.as_str(), members[1].name.as_str()), ("ff", ""));
        assert!(members[1].is_learner && members[1].client_urls.is_empty());
    }
}
