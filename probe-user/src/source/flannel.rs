//! What flanneld writes for the CNI plugin: `/run/flannel/subnet.env`. It names the networks and this node's part
//! of them; it does not name the backend (`peer` decides that from links and routes).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

/// Path of the file below the root.
const SUBNET_ENV: &str = "run/flannel/subnet.env";

/// The content of `subnet.env`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlannelFacts {
    /// The pod networks of the cluster (`FLANNEL_NETWORK`, `FLANNEL_IPV6_NETWORK`).
    pub networks: Vec<IpNet>,
    /// This node's pod prefixes (`FLANNEL_SUBNET`, `FLANNEL_IPV6_SUBNET`).
    pub subnets: Vec<IpNet>,
    /// MTU of pods (`FLANNEL_MTU`).
    pub mtu: Option<u32>,
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FlannelError {
    /// It exists but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A line is not what flanneld writes.
    #[error("{}: {key} is {value:?}, which is not {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The variable.
        key: String,
        /// Its text.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
}

/// Reads the file below `root`; `None` when there is none, which is the case on nodes without flannel.
///
/// # Errors
/// When the file exists but cannot be read or holds something else.
pub fn read_flannel(root: &Path) -> Result<Option<FlannelFacts>, FlannelError> {
    let path = root.join(SUBNET_ENV);
    match fs::read_to_string(&path) {
        Ok(text) => parse_subnet_env(&text).map(Some).map_err(|bad| bad.at(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FlannelError::Read { path, source }),
    }
}

/// A variable whose value cannot be used.
#[derive(Debug, PartialEq, Eq)]
struct BadValue {
    key: String,
    value: String,
    expected: &'static str,
}

impl BadValue {
    fn at(self, path: PathBuf) -> FlannelError {
        FlannelError::Value { path, key: self.key, value: self.value, expected: self.expected }
    }
}

fn parse_subnet_env(text: &str) -> Result<FlannelFacts, BadValue> {
    let mut facts = FlannelFacts::default();
    for (key, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
        let bad = |expected| BadValue { key: key.to_owned(), value: value.to_owned(), expected };
        match key {
            // flanneld can be given several networks, separated by commas.
            "FLANNEL_NETWORK" | "FLANNEL_IPV6_NETWORK" => {
                facts.networks.extend(parse_prefixes(value).ok_or_else(|| bad("a list of prefixes"))?);
            }
            "FLANNEL_SUBNET" | "FLANNEL_IPV6_SUBNET" => {
                facts.subnets.extend(parse_prefixes(value).ok_or_else(|| bad("a prefix"))?);
            }
            "FLANNEL_MTU" => facts.mtu = Some(value.parse().ok().ok_or_else(|| bad("a number"))?),
            _ => {}
        }
    }
    Ok(facts)
}

/// The host part is cut off: `FLANNEL_SUBNET` holds the bridge's address with the prefix length.
fn parse_prefixes(value: &str) -> Option<Vec<IpNet>> {
    value.split(',').map(|part| part.trim().parse::<IpNet>().ok().map(|net| net.trunc())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_dual_stack_node_is_read() {
        let text = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\n\
            FLANNEL_IPV6_NETWORK=fd00:42::/56\nFLANNEL_IPV6_SUBNET=fd00:42:0:1::1/64\n\
            FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let facts = parse_subnet_env(text).unwrap();
        let networks: Vec<_> = facts.networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.42.0.0/16", "fd00:42::/56"]);
        let subnets: Vec<_> = facts.subnets.iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.42.1.0/24", "fd00:42:0:1::/64"]);
        assert_eq!(facts.mtu, Some(1450));
    }

    #[test]
    fn what_is_not_there_is_absent() {
        assert_eq!(parse_subnet_env("# empty\n").unwrap(), FlannelFacts::default());
        assert!(read_flannel(Path::new("/nonexistent/root")).unwrap().is_none());
    }

    #[test]
    fn a_broken_value_is_named() {
        let bad = parse_subnet_env("FLANNEL_MTU=big\n").unwrap_err().at("/run/flannel/subnet.env".into());
        assert_eq!(
            bad.to_string(),
            r#"/run/flannel/subnet.env: FLANNEL_MTU is "big", which is not a number"#
        );
        assert_eq!(parse_subnet_env("FLANNEL_NETWORK=10.42.0.0/33\n").unwrap_err().key, "FLANNEL_NETWORK");
    }
}
