//! How etcd is asked, checked as it is read.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::haproxy::{MetricsUrl, read_metrics_url};
use super::value::{self, within};

/// The shortest and the longest `etcd.timeout`.
const TIMEOUT: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(10)];
/// The shortest and the longest `etcd.election_timeout`: what etcd itself takes.
const ELECTION_TIMEOUT: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(50)];

/// How etcd is asked; what is not given is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// Endpoints of gRPC to begin with. Default: none, they are looked for.
    #[serde(deserialize_with = "read_endpoints")]
    pub endpoints: Vec<String>,
    /// The client certificate. Default: none, it is looked for.
    pub credentials: Option<EtcdCredentials>,
    /// The page of metrics. Default: none, it is looked for at 127.0.0.1:2381.
    #[serde(deserialize_with = "read_metrics_url")]
    pub metrics_url: Option<MetricsUrl>,
    /// The election timeout of the cluster. Default: none, it is read where it can be.
    #[serde(deserialize_with = "read_election_timeout")]
    pub election_timeout: Option<Duration>,
    /// Time between two questions, 100 milliseconds to a minute. Default: 1 second.
    #[serde(deserialize_with = "value::read_probe_interval")]
    pub poll_interval: Duration,
    /// Time for an answer, 10 milliseconds to 10 seconds. Default: 500 milliseconds.
    #[serde(deserialize_with = "read_timeout")]
    pub timeout: Duration,
}

/// The files of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdCredentials {
    /// The CA that has signed the certificates of the members.
    pub ca: PathBuf,
    /// The client certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            credentials: None,
            metrics_url: None,
            election_timeout: None,
            poll_interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
        }
    }
}

/// An endpoint of etcd: a URL with host and port and without a path.
///
/// # Errors
/// When it is none.
pub fn etcd_endpoint(text: &str) -> Result<String, String> {
    let refused = || format!("`{text}` is no endpoint of etcd such as https://192.0.2.1:2379");
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(refused)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or_else(refused)?;
    let is_host = !host.is_empty()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':'))
        && (host.starts_with('[') == host.contains(':'));
    match port.parse::<u16>() {
        Ok(1..) if is_host => Ok(text.strip_suffix('/').unwrap_or(text).to_owned()),
        _ => Err(refused()),
    }
}

/// Three files: CA, certificate and key.
///
/// # Errors
/// When they are not three.
pub fn etcd_credentials(text: &str) -> Result<EtcdCredentials, String> {
    let files: Vec<&str> = text.split(',').map(str::trim).filter(|file| !file.is_empty()).collect();
    match files[..] {
        [ca, certificate, key] => {
            Ok(EtcdCredentials { ca: ca.into(), certificate: certificate.into(), key: key.into() })
        }
        _ => Err(format!("`{text}` is not three files: CA, certificate and key, with commas between")),
    }
}

/// The time for an answer.
///
/// # Errors
/// When it is no duration, or too short or too long a one.
pub fn etcd_timeout(text: &str) -> Result<Duration, String> {
    within(text, TIMEOUT)
}

/// The election timeout of the cluster.
///
/// # Errors
/// When it is no duration, or one that etcd does not take.
pub fn election_timeout(text: &str) -> Result<Duration, String> {
    within(text, ELECTION_TIMEOUT)
}

fn read_endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| etcd_endpoint(text).map_err(serde::de::Error::custom)).collect()
}

fn read_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    etcd_timeout(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn read_election_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| election_timeout(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_a_host_and_a_port() {
        for text in ["https://192.0.2.1:2379", "http://[2001:db8::1]:2379", "https://etcd-0.etcd:2379"] {
            assert_eq!(etcd_endpoint(text), Ok(text.to_owned()));
        }
        assert_eq!(etcd_endpoint("https://a:1/"), Ok("https://a:1".to_owned()));
        for text in [
            "",
            "192.0.2.1:2379",
            "https://a",
            "https://:1",
            "https://a:0",
            "https://a:1/b",
            "https://::1:2379",
        ] {
            assert!(etcd_endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_client_certificate_is_three_files() {
        let files = etcd_credentials("/a/ca.crt,/a/c.crt,/a/c.key").unwrap();
        assert_eq!(files.key, PathBuf::from("/a/c.key"));
        for text in ["", "/a", "/a,/b", "/a,/b,/c,/d"] {
            assert!(etcd_credentials(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!(etcd_timeout("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(election_timeout("5s"), Ok(Duration::from_secs(5)));
        for text in ["9ms", "11s", "5"] {
            assert!(etcd_timeout(text).is_err(), "{text}");
        }
        assert!(election_timeout("51s").unwrap_err().contains("10ms to 50s"));
    }
}
