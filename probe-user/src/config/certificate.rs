//! Which certificates are looked at besides those in the usual places.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::value;

/// How many paths there may be.
const MOST_PATHS: usize = 64;

/// How many ports there may be: each is a handshake a minute.
const MOST_PORTS: usize = 32;

/// The ports of etcd, the API server, the kubelet, the controller manager and the scheduler.
const PORTS: [u16; 6] = [2379, 2380, 6443, 10250, 10257, 10259];

/// Which certificates are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificate {
    /// Files, and directories whose `*.crt` and `*.pem` are read, besides the usual ones. Default: none.
    #[serde(deserialize_with = "read_paths")]
    pub paths: Vec<PathBuf>,
    /// Ports of this node whose server is asked for its certificate. Default: those of etcd and of Kubernetes.
    #[serde(deserialize_with = "read_ports")]
    pub ports: Vec<u16>,
}

impl Default for Certificate {
    fn default() -> Self {
        Self { paths: Vec::new(), ports: PORTS.to_vec() }
    }
}

/// A path from the root.
///
/// # Errors
/// When it begins elsewhere.
pub fn certificate_path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    Err(format!("`{text}` is no absolute path such as /etc/etcd/server.crt"))
}

fn read_paths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = value::read_certificate_paths(from)?;
    bounded(paths, MOST_PATHS)
}

fn read_ports<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u16>, D::Error> {
    bounded(value::read_ports(from)?, MOST_PORTS)
}

fn bounded<T, E: serde::de::Error>(list: Vec<T>, most: usize) -> Result<Vec<T>, E> {
    if list.len() > most {
        return Err(E::custom(format!("the list has {} entries: at most {most}", list.len())));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded() {
        let ports = |count: usize| format!("ports: [{}]", vec!["1"; count].join(", "));
        assert_eq!(serde_yaml_ng::from_str::<Certificate>(&ports(32)).unwrap().ports.len(), 32);
        let refused = serde_yaml_ng::from_str::<Certificate>(&ports(33)).unwrap_err().to_string();
        assert!(refused.contains("33 entries: at most 32"), "{refused}");
        let paths = format!("paths: [{}]", vec!["/a"; 65].join(", "));
        let refused = serde_yaml_ng::from_str::<Certificate>(&paths).unwrap_err().to_string();
        assert!(refused.contains("65 entries: at most 64"), "{refused}");
    }
}
