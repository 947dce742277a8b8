//! How paths between nodes are probed.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::value;

/// The port of reflectors. That of STAMP, 862, takes a capability that the agent does not have.
const PORT: u16 = 9862;
/// What `path.interval` may be.
const INTERVAL: [Duration; 2] = [Duration::from_millis(2), Duration::from_mins(1)];

/// How paths between nodes are probed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Path {
    /// The UDP port on which the agents of all nodes answer. Default: 9862.
    #[serde(deserialize_with = "value::read_port")]
    pub port: u16,
    /// Time between two probes of one path, 2 milliseconds to a minute. Default: 1 second.
    #[serde(deserialize_with = "read_interval")]
    pub interval: Duration,
    /// The file with the key that all agents share. Default: none, nothing is authenticated.
    #[serde(deserialize_with = "read_key_file")]
    pub key_file: Option<PathBuf>,
}

impl Default for Path {
    fn default() -> Self {
        Self { port: PORT, interval: Duration::from_secs(1), key_file: None }
    }
}

/// The time between two probes of a path.
///
/// # Errors
/// When it is no duration, or too short or too long a one.
pub fn path_interval(text: &str) -> Result<Duration, String> {
    value::within(text, INTERVAL)
}

/// The file with the key of the probes.
///
/// # Errors
/// When it is no absolute path.
pub fn path_key_file(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    Err(format!("`{text}` is no absolute path such as /etc/leadline/path.key"))
}

fn read_key_file<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| path_key_file(&text).map_err(serde::de::Error::custom)).transpose()
}

fn read_interval<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    path_interval(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_bounds() {
        assert_eq!(path_interval("2ms"), Ok(Duration::from_millis(2)));
        assert_eq!(path_interval("1m"), Ok(Duration::from_mins(1)));
        for text in ["1ms", "61s", "1"] {
            assert!(path_interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_file_is_an_absolute_path() {
        assert_eq!(path_key_file("/etc/k"), Ok(PathBuf::from("/etc/k")));
        for text in ["", "path.key", "etc/k"] {
            assert!(path_key_file(text).unwrap_err().contains("/etc/leadline/path.key"), "{text}");
        }
    }
}
