//! The shipped monitors, as the operator of Prometheus understands them and Prometheus 3 scrapes by them, against what the agents show themselves and what kubectl says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::agent::ADDRESS;
use lab::process::{insist, wait_for};
use lab::prometheus::{Discovery, Operator};
use lab::{Kubernetes, Lab, Node, Place as _, Prometheus};
use serde_json::Value;

use super::identity::{Pod, told};
use super::manifests::{NAMESPACE, apply, page};
use super::text;

/// For what is scraped every five seconds.
const LIMIT: Duration = Duration::from_secs(30);
/// A target that is not there is told by the rule that the selector of jobs is for.
const DOWN: &str = "LeadlineAgentDown";
const INFO: &str = "leadline_pod_info";
/// How many differences an error names.
const SHOWN: usize = 5;

/// A component that is shipped.
struct Monitor {
    component: &'static str,
    kind: &'static str,
    /// What the operator calls its job in the configuration.
    scrape: &'static str,
    /// The label `job` of what is scraped.
    job: &'static str,
    discoveries: &'static [Discovery],
}

const MONITORS: [Monitor; 2] = [
    Monitor {
        component: "service-monitor",
        kind: "servicemonitor",
        scrape: "serviceMonitor/leadline/leadline/0",
        job: "leadline",
        discoveries: &[Discovery::Endpoints, Discovery::EndpointSlice],
    },
    Monitor {
        component: "prometheus-operator",
        kind: "podmonitor",
        scrape: "podMonitor/leadline/leadline/0",
        job: "leadline/leadline",
        // Pods are found by themselves.
        discoveries: &[Discovery::Endpoints],
    },
];

/// Name of a family, namespace and pod.
type OfPod = [String; 3];

/// Where Prometheus finds the agent of a node.
fn instance(node: &Node) -> Result<String> {
    Ok(SocketAddr::new(node.address(false)?, ADDRESS.port()).to_string())
}

fn label<'a>(series: &'a Value, name: &str) -> &'a str {
    series["metric"][name].as_str().unwrap_or_default()
}

/// What the page of a node says of pods. A label without a value is none to Prometheus.
fn shown(node: &Node) -> Result<BTreeSet<OfPod>> {
    let page = page(node)?;
    let of_pods = page.all().iter().filter_map(|sample| {
        let of = |name| sample.label(name).unwrap_or_default().to_owned();
        sample.label("pod").map(|pod| [sample.name.clone(), of("namespace"), pod.to_owned()])
    });
    Ok(of_pods.collect())
}

/// What is wrong with the series of a node's agent.
fn faults(cluster: &Kubernetes, node: &Node, series: &[Value]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let (name, instance) = (node.name(), instance(node)?);
    let own: Vec<_> = series.iter().filter(|one| label(one, "instance") == instance).collect();
    let is_wrong = |one: &&&Value| {
        let labels = one["metric"].as_object();
        let is_renamed = labels.is_none_or(|all| all.keys().any(|label| label.starts_with("exported_")));
        is_renamed || label(one, "node") != name
    };
    let wrong: Vec<_> = own.iter().filter(is_wrong).collect();
    if let Some(first) = wrong.first() {
        faults.push(format!("{} series of {name} such as {}", wrong.len(), first["metric"]));
    }
    let page = shown(node)?;
    let families: BTreeSet<&str> = page.iter().map(|[family, ..]| family.as_str()).collect();
    let of_pods = own.iter().filter(|one| families.contains(label(one, "__name__")));
    let found = of_pods.map(|one| ["__name__", "namespace", "pod"].map(|name| label(one, name).to_owned()));
    let found: BTreeSet<OfPod> = found.collect();
    if page.is_empty() || found != page {
        let [only_here, only_there] = [found.difference(&page), page.difference(&found)]
            .map(|rest| rest.take(SHOWN).collect::<Vec<_>>());
        faults.push(format!("of {name}, only Prometheus has {only_here:?}, only the page {only_there:?}"));
    }
    let infos = own.iter().filter(|one| label(one, "__name__") == INFO);
    let pods = infos.map(|one| {
        ["namespace", "pod", "uid", "workload", "workload_kind"].map(|name| label(one, name).to_owned())
    });
    let (pods, truth): (BTreeSet<Pod>, _) = (pods.collect(), told(cluster, node)?);
    if pods != truth {
        faults.push(format!("{name} has {pods:?}, kubectl has {truth:?}"));
    }
    Ok(faults)
}

/// Every target is an agent with the name of its node, and every series is of what it measures.
fn check_series(lab: &Lab, cluster: &Kubernetes, prometheus: &Prometheus, job: &str) -> Result<()> {
    let mut last = None;
    let read = || -> Result<Vec<String>> {
        let series = prometheus.query(&format!("{{job=\"{job}\"}}"))?;
        let each = lab.nodes().iter().map(|node| faults(cluster, node, &series));
        Ok(each.collect::<Result<Vec<_>>>()?.concat())
    };
    let waited = wait_for("series without faults", LIMIT, || {
        last = Some(read());
        matches!(&last, Some(Ok(faults)) if faults.is_empty()).then_some(())
    });
    waited.with_context(|| format!("{last:#?}"))
}

fn check_targets(lab: &Lab, prometheus: &Prometheus, job: &str) -> Result<()> {
    let targets = prometheus.targets()?;
    ensure!(targets.len() == lab.nodes().len(), "{targets:#?}");
    for node in lab.nodes() {
        let instance = instance(node)?;
        let target = targets.iter().find(|target| target["labels"]["instance"] == instance);
        let labels = &target.with_context(|| format!("{instance} is no target of {targets:#?}"))?["labels"];
        ensure!(labels["node"] == node.name() && labels["job"] == job, "{labels:#}");
    }
    Ok(())
}

/// The rules are those of the cluster, all of them can be asked, and the one that looks for jobs finds them.
fn check_rules(cluster: &Kubernetes, prometheus: &Prometheus) -> Result<usize> {
    let list = cluster.get(&["prometheusrules", "--all-namespaces"])?;
    let list = list["items"].as_array().context("no list of rules")?;
    let groups = list.iter().flat_map(|one| one["spec"]["groups"].as_array().into_iter().flatten());
    let shipped = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let shipped = shipped.map(|rule| text(rule, "/alert")).collect::<Result<BTreeSet<_>>>()?;
    let rules = prometheus.rules()?;
    let loaded = rules.iter().map(|rule| text(rule, "/name")).collect::<Result<BTreeSet<_>>>()?;
    ensure!(loaded == shipped && shipped.contains(DOWN), "{loaded:?} and {shipped:?}");
    for rule in &rules {
        let found = prometheus.query(text(rule, "/query")?)?;
        ensure!(found.is_empty() || text(rule, "/name")? != DOWN, "{DOWN}: {found:#?}");
    }
    Ok(rules.len())
}

/// Applies each monitor in turn, and looks at what the operator and Prometheus make of it.
pub(crate) fn check_monitors(lab: &Lab, cluster: &Kubernetes) -> Result<()> {
    let mut operator = Operator::start(lab, cluster)?;
    for monitor in &MONITORS {
        // API servers are busy with the new kinds, and a proxy cuts the connections of one that answers late.
        insist("the component", LIMIT, || apply(lab, cluster, &[monitor.component]))?;
        for discovery in monitor.discoveries {
            let begun = Instant::now();
            let mut prometheus = operator.start_prometheus(*discovery, monitor.scrape)?;
            let said = || format!("{} by {discovery:?}", monitor.component);
            let rules = check(lab, cluster, &mut prometheus, monitor.job).with_context(said)?;
            println!("{}: {rules} rules, {:.1?}", said(), begun.elapsed());
        }
        let delete = ["delete", monitor.kind, "leadline", "--ignore-not-found", "--namespace", NAMESPACE];
        insist("the end of the monitor", LIMIT, || cluster.kubectl(&delete))?;
    }
    Ok(())
}

fn check(lab: &Lab, cluster: &Kubernetes, prometheus: &mut Prometheus, job: &str) -> Result<usize> {
    prometheus.wait_scraping(lab.nodes().len())?;
    let version = prometheus.version()?;
    ensure!(version.starts_with("3."), "Prometheus is {version}");
    check_targets(lab, prometheus, job)?;
    check_series(lab, cluster, prometheus, job)?;
    insist("the rules", LIMIT, || check_rules(cluster, prometheus))
}
