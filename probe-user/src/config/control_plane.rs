//! How the Kubernetes control plane of this node is asked, checked as it is read.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::value::{self, within};

/// The shortest and the longest `control_plane.timeout`.
const TIMEOUT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(30)];
/// Endpoints that are asked at once.
const MOST_ENDPOINTS: usize = 8;

/// How the control plane is asked; what is not given is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlPlane {
    /// API servers. Default: none, this node's is looked for.
    #[serde(deserialize_with = "read_endpoints")]
    pub endpoints: Vec<SocketAddr>,
    /// Time between two questions, 100 milliseconds to a minute. Default: 1 second.
    #[serde(deserialize_with = "value::read_probe_interval")]
    pub poll_interval: Duration,
    /// Time for an answer, 100 milliseconds to 30 seconds, for that about readiness twice as long. Default: 3 seconds,
    /// since an API server gives its store two.
    #[serde(deserialize_with = "read_timeout")]
    pub timeout: Duration,
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self { endpoints: Vec::new(), poll_interval: Duration::from_secs(1), timeout: Duration::from_secs(3) }
    }
}

/// An API server: a URL with an address, a port and no path.
///
/// # Errors
/// When it is none.
pub fn api_endpoint(text: &str) -> Result<SocketAddr, String> {
    let rest = text.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let address: Option<SocketAddr> = rest.and_then(|rest| rest.parse().ok());
    let usable = address.filter(|address| address.port() != 0 && !address.ip().is_unspecified());
    usable.ok_or_else(|| format!("`{text}` is no endpoint of an API server such as https://192.0.2.1:6443"))
}

/// The time for an answer.
///
/// # Errors
/// When it is no duration, or too short or too long a one.
pub fn control_plane_timeout(text: &str) -> Result<Duration, String> {
    within(text, TIMEOUT)
}

fn read_endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    if texts.len() > MOST_ENDPOINTS {
        return Err(serde::de::Error::custom(format!("more than {MOST_ENDPOINTS} endpoints")));
    }
    texts.iter().map(|text| api_endpoint(text).map_err(serde::de::Error::custom)).collect()
}

fn read_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    control_plane_timeout(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_with_a_port() {
        for text in ["https://192.0.2.1:6443", "https://[2001:db8::1]:16443"] {
            assert_eq!(format!("https://{}", api_endpoint(text).unwrap()), text);
        }
        assert!(api_endpoint("https://127.0.0.1:6443/").is_ok());
        for text in [
            "",
            "192.0.2.1:6443",
            "http://192.0.2.1:6443",
            "https://api:6443",
            "https://192.0.2.1",
            "https://192.0.2.1:0",
            "https://0.0.0.0:6443",
            "https://192.0.2.1:6443/readyz",
        ] {
            assert!(api_endpoint(text).unwrap_err().contains("https://192.0.2.1:6443"), "{text}");
        }
    }

    #[test]
    fn the_time_for_an_answer_has_bounds() {
        assert_eq!(control_plane_timeout("2s"), Ok(Duration::from_secs(2)));
        for text in ["99ms", "31s", "2"] {
            assert!(control_plane_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn there_are_not_too_many_endpoints() {
        let read = |count: u32| {
            let list =
                (0..count).map(|n| format!("https://192.0.2.1:{}", n + 1)).collect::<Vec<_>>().join(", ");
            serde_yaml_ng::from_str::<ControlPlane>(&format!("endpoints: [{list}]"))
        };
        assert_eq!(read(8).unwrap().endpoints.len(), 8);
        assert!(read(9).unwrap_err().to_string().contains("more than 8 endpoints"));
    }
}
