//! The real operator of Prometheus: what it makes of the monitors and rules of a cluster is what a Prometheus of the lab
//! runs with.
//!
//! It is a process on the switch, and so is its Prometheus, which has a service account of its own: a pod for it would need
//! images of Prometheus and of the reloader. What the reloader does in a pod is done here: it fills in which one of several
//! the pod is. Debian's Prometheus has no discovery by Kubernetes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Prometheus, Release, directory};
use crate::cluster::Lab;
use crate::kubernetes::Kubernetes;
use crate::service::Service;
use crate::{process, tools};

/// The time in which the operator must have seen what has changed, on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

const NAMESPACE: &str = "monitoring";
/// Where a pod of Prometheus has its rules.
const RULES: &str = "/etc/prometheus/rules";
/// What the reloader fills in.
const BLANKS: [(&str, &str); 2] = [("$(POD_NAME)", "prometheus-lab-0"), ("$(SHARD)", "0")];

/// Who a Prometheus is, and what it may ask to find its targets.
const ACCESS: &str = r#"---
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus}
rules:
- {apiGroups: [""], resources: [services, endpoints, pods], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: monitoring}]
"#;

/// By which objects the targets of a monitor of services are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// What the operator takes if nothing is said.
    Endpoints,
    /// What Kubernetes 1.33 and newer ask for.
    EndpointSlice,
}

impl Discovery {
    const ALL: [Self; 2] = [Self::Endpoints, Self::EndpointSlice];

    /// The name of the Prometheus that finds its targets so.
    fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslice",
        }
    }
}

/// The running operator. Dropping it kills it.
#[derive(Debug)]
pub struct Operator<'lab> {
    lab: &'lab Lab,
    cluster: &'lab Kubernetes,
    service: Service,
}

impl<'lab> Operator<'lab> {
    /// Makes the kinds of the operator known to the cluster, and a Prometheus for each discovery, which takes all monitors and
    /// rules; starts the operator, and does not wait for it.
    pub fn start(lab: &'lab Lab, cluster: &'lab Kubernetes) -> Result<Self> {
        let crds = tools::operator_crds()?;
        let crds = crds.to_str().context("the path of the definitions is no UTF-8")?;
        // New kinds keep the API servers busy, and a proxy cuts the connections of one that answers late.
        let kubectl = |arguments: &[&str]| {
            process::insist(&format!("kubectl {}", arguments[0]), LIMIT, || cluster.kubectl(arguments))
        };
        // Too large for the annotation that kubectl would keep them in.
        kubectl(&["apply", "--server-side", "--filename", crds])?;
        kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        process::insist("the rights of Prometheus", LIMIT, || cluster.apply(ACCESS))?;
        let switch = lab.switch()?;
        let token = switch.scratch().join("prometheus-token");
        let said = kubectl(&["create", "token", "prometheus", "--namespace", NAMESPACE])?;
        fs::write(&token, said.trim()).with_context(|| format!("write {}", token.display()))?;
        let objects = Discovery::ALL.map(|discovery| object(discovery, cluster, &token));
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        process::insist("the objects of the operator", LIMIT, || cluster.apply(&objects))?;

        let mut command = Command::new(tools::prometheus_operator()?);
        command.arg("--web.listen-address=127.0.0.1:8080").env("KUBECONFIG", cluster.admin_kubeconfig());
        Ok(Self { lab, cluster, service: switch.service("prometheus-operator", &mut command)? })
    }

    /// Waits until the operator has made a configuration with that job and no other, and starts a Prometheus 3 with it, for
    /// which it does not wait.
    pub fn start_prometheus(&mut self, discovery: Discovery, job: &str) -> Result<Prometheus<'lab>> {
        let directory = directory(self.lab, Release::Three)?;
        // Series of another configuration would be found for five minutes.
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
        }
        // Rules first: their files are named in the configuration.
        let rules = self.rules(discovery)?;
        let config = self.configuration(discovery, job)?;
        furnish(&directory, &config, &rules).with_context(|| format!("write {}", directory.display()))?;
        Prometheus::start_furnished(self.lab, Release::Three)
    }

    fn configuration(&mut self, discovery: Discovery, job: &str) -> Result<String> {
        let (cluster, mut last) = (self.cluster, Ok(String::new()));
        let waited = self.service.wait_until(&format!("the configuration with {job}"), LIMIT, || {
            last = configuration(cluster, discovery);
            last.as_ref().is_ok_and(|config| jobs(config) == [job] && config.contains(RULES))
        });
        waited.with_context(|| format!("configuration: {last:#?}"))?;
        last
    }

    /// Waits until the operator has taken all rules of the cluster.
    fn rules(&mut self, discovery: Discovery) -> Result<Vec<RuleFile>> {
        let (cluster, mut last) = (self.cluster, Ok(Vec::new()));
        let waited = self.service.wait_until("the operator to take all rules", LIMIT, || {
            last = rules(cluster, discovery);
            let count = cluster.get(&["prometheusrules", "--all-namespaces"]);
            let count = count.ok().and_then(|list| list["items"].as_array().map(Vec::len));
            last.as_ref().is_ok_and(|files| Some(files.len()) == count)
        });
        waited.with_context(|| format!("rules: {last:#?}"))?;
        last
    }
}

/// A file of rules, below the directory that a pod of Prometheus has them in.
#[derive(Debug)]
struct RuleFile {
    path: PathBuf,
    text: String,
}

/// Writes the files that a pod of Prometheus would be given.
fn furnish(directory: &Path, config: &str, rules: &[RuleFile]) -> Result<()> {
    let home = directory.join("rules");
    for rule in rules {
        let path = home.join(&rule.path);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs::write(path, &rule.text)?;
    }
    let filled = BLANKS.iter().fold(config.to_owned(), |text, (blank, with)| text.replace(blank, with));
    let config = filled.replace(RULES, home.to_str().context("the path of the rules is no UTF-8")?);
    fs::write(directory.join("prometheus.yaml"), config)?;
    Ok(())
}

/// A Prometheus of the operator, for which it makes no pods.
fn object(discovery: Discovery, cluster: &Kubernetes, token: &Path) -> Value {
    let (host, authority) = cluster.api();
    let mut spec = json!({
        "replicas": 0,
        "serviceAccountName": "prometheus",
        "apiserverConfig": {
            "host": host,
            "authorization": {"credentialsFile": token},
            "tlsConfig": {"caFile": authority},
        },
    });
    for kind in ["serviceMonitor", "podMonitor", "rule"] {
        spec[format!("{kind}Selector")] = json!({});
        spec[format!("{kind}NamespaceSelector")] = json!({});
    }
    if discovery == Discovery::EndpointSlice {
        spec["serviceDiscoveryRole"] = json!("EndpointSlice");
    }
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "Prometheus",
        "metadata": {"name": discovery.name(), "namespace": NAMESPACE},
        "spec": spec,
    })
}

/// What the operator has made for a Prometheus so far.
fn configuration(cluster: &Kubernetes, discovery: Discovery) -> Result<String> {
    let secret = format!("prometheus-{}", discovery.name());
    let secret = cluster.get(&["secret", "--namespace", NAMESPACE, &secret])?;
    let packed = secret["data"]["prometheus.yaml.gz"].as_str().context("no configuration in the secret")?;
    process::run_with_input(Command::new("sh").args(["-ec", "base64 --decode | gzip --decompress"]), packed)
}

/// The names of the jobs of a configuration.
fn jobs(config: &str) -> Vec<&str> {
    config.lines().filter_map(|line| line.trim_start_matches("- ").strip_prefix("job_name: ")).collect()
}

/// The files of rules that the operator has made for a Prometheus so far.
fn rules(cluster: &Kubernetes, discovery: Discovery) -> Result<Vec<RuleFile>> {
    let selector = format!("prometheus-name={}", discovery.name());
    let maps = cluster.get(&["configmaps", "--namespace", NAMESPACE, "--selector", &selector])?;
    let mut files = Vec::new();
    for map in maps["items"].as_array().context("no list of maps")? {
        let name = map["metadata"]["name"].as_str().context("a map without a name")?;
        for (file, text) in map["data"].as_object().into_iter().flatten() {
            let text = text.as_str().with_context(|| format!("{file} is no text"))?;
            files.push(RuleFile { path: Path::new(name).join(file), text: text.to_owned() });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_named_at_the_beginning_of_their_lists() {
        let config = "global:\n  scrape_interval: 30s\nscrape_configs:\n- job_name: podMonitor/a/b/0\n  honor_labels: \
                      true\n- job_name: serviceMonitor/a/b/0\n";
        assert_eq!(jobs(config), ["podMonitor/a/b/0", "serviceMonitor/a/b/0"]);
        assert!(jobs("scrape_configs: []\n").is_empty());
    }
}
