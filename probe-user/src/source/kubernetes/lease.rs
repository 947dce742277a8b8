//! Leases by which parts of the control plane agree who works: pure.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

use super::object::Pruned;

/// The namespace in which the control plane elects its leaders; kube-vip does so as well.
pub(super) const NAMESPACE: &str = "kube-system";
/// On the leases of API servers, which all work: each says that it lives, and nobody is elected.
const IDENTITY: &str = "apiserver.kubernetes.io/identity";

/// A lease for which candidates compete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterLease {
    /// Its name: `kube-controller-manager`, `kube-scheduler`, `plndr-cp-lock` (kube-vip).
    pub name: String,
    /// Who holds it, mostly a node; none once it was given back.
    pub holder: Option<String>,
    /// How often it has got another holder.
    pub transitions: Option<u64>,
    /// When it was last renewed, in nanoseconds since 1970 by the holder's clock.
    pub renewed: Option<u64>,
    /// For how long others wait from then on.
    pub duration: Option<Duration>,
}

impl Pruned for ClusterLease {
    type Object = Lease;

    fn prune(object: &Self::Object) -> Option<Self> {
        let name = object.metadata.name.clone()?;
        let is_identity = object.metadata.labels.as_ref().is_some_and(|all| all.contains_key(IDENTITY));
        let spec = object.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().map(candidate).filter(|holder| !holder.is_empty());
        (!is_identity).then(|| Self {
            name,
            holder: holder.map(str::to_owned),
            transitions: spec.lease_transitions.and_then(|count| count.try_into().ok()),
            renewed: spec.renew_time.and_then(|time| time.0.as_nanosecond().try_into().ok()),
            duration: spec
                .lease_duration_seconds
                .and_then(|seconds| seconds.try_into().ok())
                .map(Duration::from_secs),
        })
    }

    fn key(&self) -> &str {
        &self.name
    }
}

/// Client-go adds to the name of the host a UUID of the process (`node1_0b9a...`). No host has such a sign in its name.
fn candidate(identity: &str) -> &str {
    identity.split_once('_').map_or(identity, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lease(metadata: &Value, spec: &Value) -> Option<ClusterLease> {
        ClusterLease::prune(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    #[test]
    fn the_holder_is_the_host_without_the_uuid_of_its_process() {
        let spec = json!({
            "holderIdentity": "node1_0b9a6a45-6a3c-4d53-9a64-6a1b6de0d3a1",
            "leaseDurationSeconds": 15,
            "leaseTransitions": 4,
            "renewTime": "1970-01-01T00:01:40.000005Z",
        });
        let expected = ClusterLease {
            name: "kube-scheduler".to_owned(),
            holder: Some("node1".to_owned()),
            transitions: Some(4),
            renewed: Some(100_000_005_000),
            duration: Some(Duration::from_secs(15)),
        };
        assert_eq!(lease(&json!({"name": "kube-scheduler"}), &spec), Some(expected));
    }

    #[test]
    fn a_lease_that_was_given_back_has_no_holder() {
        let found = lease(&json!({"name": "plndr-cp-lock"}), &json!({"holderIdentity": ""})).unwrap();
        assert_eq!((found.holder, found.transitions, found.renewed), (None, None, None));
        let found = lease(&json!({"name": "plndr-cp-lock"}), &json!({"holderIdentity": "node2"})).unwrap();
        assert_eq!(found.holder.as_deref(), Some("node2"));
    }

    #[test]
    fn nobody_is_elected_by_the_lease_of_an_api_server() {
        let labels = json!({"apiserver.kubernetes.io/identity": "kube-apiserver"});
        assert_eq!(lease(&json!({"name": "apiserver-x", "labels": labels}), &json!({})), None);
    }
}
