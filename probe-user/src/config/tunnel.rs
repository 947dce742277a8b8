//! How Tailscale on this node is asked, checked as it is read.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::value;

/// How tailscaled is asked; what is not given is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tunnel {
    /// The socket of tailscaled. Default: none, it is looked for.
    #[serde(deserialize_with = "read_socket")]
    pub socket: Option<PathBuf>,
    /// Time between two questions, 100 milliseconds to a minute. Default: 1 second.
    #[serde(deserialize_with = "value::read_probe_interval")]
    pub poll_interval: Duration,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { socket: None, poll_interval: Duration::from_secs(1) }
    }
}

/// A socket in the file system.
///
/// # Errors
/// When it is no absolute path.
pub fn tunnel_socket(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    Err(format!("`{text}` is no absolute path such as /run/tailscale/tailscaled.sock"))
}

fn read_socket<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| tunnel_socket(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_an_absolute_path() {
        assert_eq!(tunnel_socket("/run/t.sock"), Ok(PathBuf::from("/run/t.sock")));
        for text in ["", "run/t.sock", "tailscaled.sock", "http://127.0.0.1"] {
            assert!(tunnel_socket(text).unwrap_err().contains("/run/tailscale"), "{text}");
        }
    }
}
