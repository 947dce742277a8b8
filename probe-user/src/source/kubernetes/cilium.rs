//! What Cilium has in the API of each node (`cilium.io/v2`, `CiliumNode`): pure. The kernel's tables do not say behind
//! which node a prefix is, since Cilium's programs know it by themselves.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::ClusterResourceScope;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

use super::object::Pruned;

/// The type of an address by which other nodes reach the node, and send what they encapsulate.
const INTERNAL: &str = "InternalIP";
/// The type of the address of `cilium_host`.
const OVERLAY: &str = "CiliumInternalIP";

/// The object, as far as it is read. What it does not have or has in another shape is absent.
#[derive(Clone, Debug, Deserialize)]
pub struct CiliumNode {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    ipam: Ipam,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    r#type: String,
    ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ipam {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    pools: Pools,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Pools {
    allocated: Vec<Allocation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Allocation {
    cidrs: Vec<String>,
}

impl Resource for CiliumNode {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "CiliumNode".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "cilium.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v2".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "ciliumnodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A node of the cluster, as Cilium has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterCiliumNode {
    /// Its name, the same as that of the node.
    pub name: Arc<str>,
    /// Where other nodes send what they encapsulate for it: over IPv4 where it has that, which is Cilium's default.
    pub endpoint: Option<IpAddr>,
    /// The addresses of its `cilium_host`.
    pub overlay: Vec<IpAddr>,
    /// Prefixes of its pods, by whatever IPAM of Cilium that gives nodes prefixes.
    pub pod_cidrs: Vec<IpNet>,
}

impl Pruned for ClusterCiliumNode {
    type Object = CiliumNode;

    fn prune(object: &Self::Object) -> Option<Self> {
        let Spec { addresses, ipam } = &object.spec;
        let of_type = |wanted: &str| -> Vec<IpAddr> {
            let wanted = addresses.iter().filter(|address| address.r#type == wanted);
            wanted.filter_map(|address| address.ip.parse().ok()).collect()
        };
        let pools = ipam.pools.allocated.iter().flat_map(|allocation| &allocation.cidrs);
        let mut pod_cidrs: Vec<IpNet> =
            ipam.pod_cidrs.iter().chain(pools).filter_map(|cidr| cidr.parse().ok()).collect();
        pod_cidrs.sort_unstable();
        pod_cidrs.dedup();
        Some(Self {
            name: object.metadata.name.as_deref()?.into(),
            endpoint: of_type(INTERNAL).into_iter().min_by_key(IpAddr::is_ipv6),
            overlay: of_type(OVERLAY),
            pod_cidrs,
        })
    }

    fn key(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pruned(spec: &Value) -> ClusterCiliumNode {
        let object = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "node2"}, "spec": spec});
        ClusterCiliumNode::prune(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_has_an_endpoint_and_inner_addresses_and_prefixes_of_each_family() {
        let found = pruned(&json!({
            "addresses": [
                {"ip": "2001:db8::2", "type": "InternalIP"},
                {"ip": "192.0.2.2", "type": "InternalIP"},
                {"ip": "192.0.2.22", "type": "InternalIP"},
                {"ip": "10.0.1.77", "type": "CiliumInternalIP"},
                {"ip": "fd00::177", "type": "CiliumInternalIP"},
                {"ip": "203.0.113.2", "type": "ExternalIP"},
            ],
            "ipam": {"podCIDRs": ["10.0.1.0/24", "fd00::100/120"]},
        }));
        assert_eq!(found.endpoint, ips(&["192.0.2.2"]).pop());
        assert_eq!(found.overlay, ips(&["10.0.1.77", "fd00::177"]));
        assert_eq!(
            found.pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.1.0/24", "fd00::100/120"]
        );
    }

    #[test]
    fn pools_give_prefixes_as_well() {
        let allocated = json!([{"pool": "default", "cidrs": ["10.0.1.0/24"]}, {"pool": "blue", "cidrs": ["10.9.0.16/28"]}, {"pool": "empty"}]);
        let found = pruned(&json!({"ipam": {"pools": {"allocated": allocated}}}));
        assert_eq!(
            found.pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.1.0/24", "10.9.0.16/28"]
        );
    }

    #[test]
    fn what_is_not_there_or_cannot_be_read_is_absent() {
        let empty = pruned(&json!({}));
        assert!(
            empty.endpoint.is_none() && empty.overlay.is_empty() && empty.pod_cidrs.is_empty(),
            "{empty:?}"
        );
        let odd = pruned(
            &json!({"addresses": [{"ip": "node2.example.org", "type": "InternalIP"}, {"type": "InternalIP"}], "ipam": {"podCIDRs": ["ten"], "pool": {}}}),
        );
        assert_eq!(odd, empty);
    }
}
