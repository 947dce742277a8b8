//! How the Kubernetes API is asked, checked as it is read.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

/// How the Kubernetes API is asked; what is not given is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// The name of this node in the API. Default: none, the host's name in lower case, as the kubelet has it.
    #[serde(deserialize_with = "read_node")]
    pub node: Option<String>,
    /// A file with the address of the API and credentials. Default: none, the service account of the agent's pod.
    #[serde(deserialize_with = "read_kubeconfig")]
    pub kubeconfig: Option<PathBuf>,
    /// Whether the leases of the control plane are followed: by its nodes, since each is renewed every two seconds.
    /// Default: no.
    pub leases: bool,
}

/// The name of a node.
///
/// # Errors
/// When no node can be called that (RFC 1123 subdomain).
pub fn kubernetes_node(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no name of a node such as worker-1 (lower case letters, digits, - and .)"))
}

/// A kubeconfig.
///
/// # Errors
/// When it is no absolute path.
pub fn kubeconfig(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    Err(format!("`{text}` is no absolute path such as /etc/leadline/kubeconfig"))
}

fn read_node<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| kubernetes_node(&text).map_err(serde::de::Error::custom)).transpose()
}

fn read_kubeconfig<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| kubeconfig(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_name_of_a_host() {
        for good in ["node1", "worker-1.example.net", "7"] {
            assert_eq!(kubernetes_node(good).as_deref(), Ok(good));
        }
        for bad in ["", "Node1", "a_b", "-a", "a-", "a..b", &"a".repeat(254)] {
            assert!(kubernetes_node(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_kubeconfig_is_an_absolute_path() {
        assert_eq!(kubeconfig("/etc/k"), Ok(PathBuf::from("/etc/k")));
        assert!(kubeconfig("k").unwrap_err().contains("/etc/leadline/kubeconfig"));
    }
}
