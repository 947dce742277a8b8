//! Asks one member. The library balances over endpoints, so that a client of several would not say which one answered:
//! there is one client for each.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, TlsOptions};
use tokio::time::timeout;

use super::{Alarm, Answer, AskError, Cause, CredentialError, Material, Member, MemberId, Read, Status};

/// The key that is read. It need not exist; etcd's own health check reads the same one.
const KEY: &str = "health";
/// A connection that has not answered so many times in a row is given up, and so is each later one after as many more:
/// the way may be open again while its segments wait for their retransmission.
const GIVE_UP: u32 = 4;

/// How far an answer must be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consistency {
    /// By a majority of the members.
    Linearizable,
    /// By nobody: the member's own copy.
    Serializable,
}

impl Consistency {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Linearizable, Self::Serializable];

    /// The value of the `consistency` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Serializable => "serializable",
        }
    }
}

/// Asks one endpoint, over a connection that is kept.
pub struct Asker {
    endpoint: String,
    client: Option<Client>,
    /// Answers that are missing in a row.
    missed: u32,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Asker {
    /// Asks here; nothing is connected yet.
    #[must_use]
    pub const fn new(endpoint: String) -> Self {
        Self { endpoint, client: None, missed: 0 }
    }

    /// Whom it asks.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What the member says of itself and of the others, within `patience`.
    pub async fn ask(&mut self, material: Option<&Material>, patience: Duration) -> Answer {
        let client = match self.client(material, patience).await {
            Ok(client) => client,
            Err(cause) => {
                return Answer { status: Err(self.error(cause.clone())), list: Err(self.error(cause)) };
            }
        };
        let (mut maintenance, mut cluster) = (client.maintenance_client(), client.cluster_client());
        let status = answer(maintenance.status(), patience);
        let list = answer(cluster.member_list(), patience);
        let (status, list) = tokio::join!(status, list);
        let without_header = || Cause::Other("the answer has no header".to_owned());
        let status = status.and_then(|response| read_status(&response).ok_or_else(without_header));
        self.judge(status.as_ref().err());
        Answer {
            status: status.map_err(|cause| self.error(cause)),
            list: list
                .map(|response| response.members().iter().map(read_member).collect())
                .map_err(|cause| self.error(cause)),
        }
    }

    /// Reads a key in both ways, within `patience`.
    pub async fn read(
        &mut self,
        material: Option<&Material>,
        patience: Duration,
    ) -> BTreeMap<Consistency, Read> {
        let outcomes = match self.client(material, patience).await {
            Ok(client) => {
                let read = |consistency| read_key(&client, consistency, patience);
                let (linearizable, serializable) =
                    tokio::join!(read(Consistency::Linearizable), read(Consistency::Serializable));
                [(Consistency::Linearizable, linearizable), (Consistency::Serializable, serializable)]
            }
            Err(cause) => Consistency::ALL.map(|consistency| (consistency, Err(cause.clone()))),
        };
        let read =
            |outcome: Result<Duration, Cause>| Read { outcome: outcome.map_err(|cause| self.error(cause)) };
        outcomes.into_iter().map(|(consistency, outcome)| (consistency, read(outcome))).collect()
    }

    /// The client, which connects when it is used.
    async fn client(&mut self, material: Option<&Material>, patience: Duration) -> Result<Client, Cause> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        // The time of a call is ours: what ends it otherwise would not say that it was late.
        let options = ConnectOptions::new().with_connect_timeout(patience);
        let options = match material.filter(|_| self.endpoint.starts_with("https://")) {
            Some(material) => options.with_tls(
                TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(&material.ca))
                    .identity(Identity::from_pem(&material.certificate, &material.key)),
            ),
            None => options,
        };
        let client = Client::connect([&self.endpoint], Some(options)).await;
        // Nothing is connected yet: what fails here are the certificate, the key or the CA.
        let client = client.map_err(|error| match Cause::of(&error, patience) {
            Cause::Other(text) => Cause::Credentials(CredentialError::Unusable(text)),
            Cause::Tls(error) => Cause::Credentials(CredentialError::Unusable(error.to_string())),
            cause => cause,
        })?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Keeps a connection that works or may work again.
    fn judge(&mut self, cause: Option<&Cause>) {
        self.missed = match cause {
            None | Some(Cause::Unserved(_) | Cause::Denied) => 0,
            Some(_) => self.missed.saturating_add(1),
        };
        if self.missed > 0 && self.missed.is_multiple_of(GIVE_UP) {
            self.client = None;
        }
    }

    fn error(&self, cause: Cause) -> AskError {
        AskError { endpoint: self.endpoint.clone(), cause }
    }
}

/// What a call gives within `patience`.
async fn answer<T>(
    call: impl Future<Output = Result<T, etcd_client::Error>>,
    patience: Duration,
) -> Result<T, Cause> {
    match timeout(patience, call).await {
        Ok(answer) => answer.map_err(|error| Cause::of(&error, patience)),
        Err(_elapsed) => Err(Cause::Late(patience)),
    }
}

/// How long it takes to read the key.
async fn read_key(client: &Client, consistency: Consistency, patience: Duration) -> Result<Duration, Cause> {
    let options = GetOptions::new().with_count_only();
    let options = match consistency {
        Consistency::Serializable => options.with_serializable(),
        Consistency::Linearizable => options,
    };
    let begun = Instant::now();
    match answer(client.kv_client().get(KEY, Some(options)), patience).await {
        // Who may not read has been answered, and would have been whatever the key is.
        Ok(_) | Err(Cause::Denied) => Ok(begun.elapsed()),
        Err(cause) => Err(cause),
    }
}

fn read_status(response: &etcd_client::StatusResponse) -> Option<Status> {
    let header = response.header()?;
    let bytes = |bytes: i64| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
    Some(Status {
        member: MemberId(header.member_id()),
        cluster: header.cluster_id(),
        version: response.version().to_owned(),
        leader: Some(response.leader()).filter(|id| *id != 0).map(MemberId),
        term: response.raft_term(),
        index: response.raft_index(),
        applied: response.raft_applied_index(),
        database: bytes(response.db_size()),
        in_use: bytes(response.raft_used_db_size()),
        quota: bytes(response.db_size_quota()),
        is_learner: response.is_learner(),
        alarms: response.errors().iter().filter_map(|text| read_alarm(text)).collect(),
    })
}

/// An error of Status that is a standing alarm: `memberID:123 alarm:NOSPACE `, with the number in decimal.
fn read_alarm(text: &str) -> Option<(MemberId, Alarm)> {
    let mut words = text.split_whitespace();
    let id = words.next()?.strip_prefix("memberID:")?.parse().ok()?;
    let alarm = match words.next()?.strip_prefix("alarm:")? {
        "NOSPACE" => Alarm::NoSpace,
        "CORRUPT" => Alarm::Corrupt,
        _ => return None,
    };
    Some((MemberId(id), alarm))
}

fn read_member(member: &etcd_client::Member) -> Member {
    Member {
        id: MemberId(member.id()),
        name: member.name().to_owned(),
        peer_urls: member.peer_urls().to_vec(),
        client_urls: member.client_urls().to_vec(),
        is_learner: member.is_learner(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_alarm_is_an_error_of_status() {
        let alarm = read_alarm("memberID:9372538179322589801 alarm:NOSPACE ");
        assert_eq!(alarm, Some((MemberId(9_372_538_179_322_589_801), Alarm::NoSpace)));
        assert_eq!(read_alarm("memberID:7 alarm:CORRUPT "), Some((MemberId(7), Alarm::Corrupt)));
        for text in
            ["etcdserver: no leader", "", "memberID:7", "memberID:x alarm:NOSPACE", "memberID:7 alarm:OTHER"]
        {
            assert_eq!(read_alarm(text), None, "{text}");
        }
    }

    #[test]
    fn a_connection_that_stays_silent_is_given_up_now_and_then() {
        let mut asker = Asker::new("https://192.0.2.1:2379".to_owned());
        let late = Cause::Late(Duration::from_millis(1));
        for _ in 0..3 {
            asker.judge(Some(&late));
        }
        assert_eq!(asker.missed, 3);
        asker.judge(None);
        assert_eq!(asker.missed, 0);
    }
}
