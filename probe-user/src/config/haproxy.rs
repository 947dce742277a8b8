//! Where HAProxy tells about itself: the addresses of its stats socket and of its metrics page, checked as they are
//! read.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

const HTTP: &str = "http://";

/// How HAProxy is asked; what is not given is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Haproxy {
    /// The stats socket. Default: none, it is looked for.
    #[serde(deserialize_with = "read_stats_socket")]
    pub stats_socket: Option<StatsSocket>,
    /// The page of HAProxy's own exporter. Default: none, it is looked for.
    #[serde(deserialize_with = "read_metrics_url")]
    pub metrics_url: Option<MetricsUrl>,
}

/// A stats socket of HAProxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsSocket {
    /// In the file system.
    Unix(PathBuf),
    /// Over TCP.
    Tcp(SocketAddr),
}

impl fmt::Display for StatsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// A page over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsUrl {
    /// Host and port, as a connection is opened to and as the `Host` header names them.
    pub authority: String,
    /// Path and query, with the slash.
    pub path: String,
}

impl fmt::Display for MetricsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HTTP}{}{}", self.authority, self.path)
    }
}

/// A stats socket: an absolute path, or an IP:PORT.
///
/// # Errors
/// When it is neither.
pub fn stats_socket(text: &str) -> Result<StatsSocket, String> {
    let path = text.strip_prefix("unix@").unwrap_or(text);
    if path.starts_with('/') {
        return Ok(StatsSocket::Unix(PathBuf::from(path)));
    }
    let address = text.parse().map(StatsSocket::Tcp).ok();
    address.ok_or_else(|| {
        format!("`{text}` is no stats socket such as /run/haproxy/admin.sock or 127.0.0.1:9999")
    })
}

/// A page over plain HTTP; without a path it is /metrics.
///
/// # Errors
/// When it is none, has no port, or is for another protocol.
pub fn metrics_url(text: &str) -> Result<MetricsUrl, String> {
    let refused = || format!("`{text}` is no page such as http://127.0.0.1:8405/metrics");
    let rest = text.strip_prefix(HTTP).ok_or_else(refused)?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = authority.rsplit_once(':').ok_or_else(refused)?;
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '@' | '?');
    let is_host = !host.is_empty() && host.chars().all(is_plain);
    let is_path = path.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if !is_host || !is_path || port.parse::<u16>().is_err() {
        return Err(refused());
    }
    let path = if path.is_empty() { "/metrics" } else { path };
    Ok(MetricsUrl { authority: authority.to_owned(), path: path.to_owned() })
}

/// An optional text, checked.
fn read<'de, D: Deserializer<'de>, T>(
    from: D,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| parse(&text).map_err(serde::de::Error::custom)).transpose()
}

fn read_stats_socket<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StatsSocket>, D::Error> {
    read(from, stats_socket)
}

pub(super) fn read_metrics_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MetricsUrl>, D::Error> {
    read(from, metrics_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stats_socket_is_a_path_or_an_address() {
        let unix = |path: &str| Ok(StatsSocket::Unix(path.into()));
        assert_eq!(stats_socket("/run/haproxy/admin.sock"), unix("/run/haproxy/admin.sock"));
        assert_eq!(stats_socket("unix@/run/h.sock"), unix("/run/h.sock"));
        assert_eq!(stats_socket("127.0.0.1:9999").unwrap().to_string(), "127.0.0.1:9999");
        assert_eq!(stats_socket("[::1]:9999").unwrap().to_string(), "[::1]:9999");
        for text in ["", "run/h.sock", "localhost:9999", ":9999", "127.0.0.1", "fd@3"] {
            assert!(stats_socket(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_page_has_a_port_and_may_have_a_path() {
        let url = metrics_url("http://127.0.0.1:8405").unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("127.0.0.1:8405", "/metrics"));
        let url = metrics_url("http://[::1]:8405/own?scope=server").unwrap();
        assert_eq!(url.to_string(), "http://[::1]:8405/own?scope=server");
        assert!(metrics_url("http://localhost:8405/").is_ok());
        for text in
            ["", "127.0.0.1:8405", "https://a:1/", "http://a/", "http://:1/", "http://a:b/", "http://a:1/ b"]
        {
            assert!(metrics_url(text).is_err(), "{text}");
        }
    }
}
