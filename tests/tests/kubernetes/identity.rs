//! Names of pods and nodes as agents learn them from the API, against what kubectl says.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::Samples;
use lab::{Agent, AgentOptions, Kubernetes, Lab, Node, Part, Place};

use super::{deployment, start, text};

/// The time for what the cluster and the agents notice by themselves.
const LIMIT: Duration = Duration::from_mins(1);
/// What the agents ask for: resources with their verbs.
const RIGHTS: [[&str; 2]; 6] = [
    ["pods", "list"],
    ["pods", "watch"],
    ["nodes", "list"],
    ["nodes", "watch"],
    ["leases", "list"],
    ["leases", "watch"],
];
const USER: &str = "leadline";

/// Namespace, name, UID, workload and its kind.
pub(crate) type Pod = [String; 5];

/// The rights of the agents' user.
fn role(rights: &[[&str; 2]]) -> String {
    let rule = |[resource, verb]: &[&str; 2]| {
        let group = if *resource == "leases" { "coordination.k8s.io" } else { "\"\"" };
        format!("- {{apiGroups: [{group}], resources: [{resource}], verbs: [{verb}]}}\n")
    };
    let rules: String = rights.iter().map(rule).collect();
    format!(
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {USER}}}\nrules:\n{rules}---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: {USER}}}\nroleRef: \
         {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {USER}}}\nsubjects: [{{kind: User, name: \
         {USER}}}]\n"
    )
}

fn agent(cluster: &Kubernetes, node: &Node) -> Result<Agent> {
    let kubeconfig = cluster.log_in(node, USER)?;
    let arguments =
        vec![format!("--kubernetes.kubeconfig={kubeconfig}"), "--kubernetes.leases=true".to_owned()];
    Agent::start(node, &AgentOptions { arguments, limit: LIMIT, ..AgentOptions::default() })
}

fn agents(lab: &Lab, cluster: &Kubernetes) -> Result<Vec<Agent>> {
    lab.nodes().iter().map(|node| agent(cluster, node)).collect()
}

pub(crate) fn shown(page: &Samples) -> BTreeSet<Pod> {
    let infos = page.all().iter().filter(|sample| sample.name == "leadline_pod_info");
    let label = |name: &'static str| {
        move |sample: &lab::scrape::Sample| sample.label(name).unwrap_or_default().to_owned()
    };
    infos
        .map(|sample| {
            ["namespace", "pod", "uid", "workload", "workload_kind"].map(|name| label(name)(sample))
        })
        .collect()
}

/// What kubectl says of the pods of a node. The workloads of this test are deployments, whose pods have the names of
/// their replica sets, and those have names that end with a hash.
pub(crate) fn told(cluster: &Kubernetes, node: &Node) -> Result<BTreeSet<Pod>> {
    let selector = format!("spec.nodeName={}", node.name());
    let list = cluster.get(&["pods", "--all-namespaces", "--field-selector", &selector])?;
    let pods = list["items"].as_array().context("no list of pods")?;
    pods.iter()
        .map(|pod| {
            let owner = pod.pointer("/metadata/ownerReferences/0");
            let (kind, name) = match owner {
                None => ("", ""),
                Some(owner) => (text(owner, "/kind")?, text(owner, "/name")?),
            };
            let [kind, name] = match kind {
                "ReplicaSet" => ["Deployment", name.rsplit_once('-').context("no hash")?.0],
                other => [other, name],
            };
            let of_pod = |path: &str| text(pod, path).map(str::to_owned);
            let [namespace, pod, uid] =
                ["namespace", "name", "uid"].map(|field| of_pod(&format!("/metadata/{field}")));
            Ok([namespace?, pod?, uid?, name.to_owned(), kind.to_owned()])
        })
        .collect()
}

/// Waits until an agent shows the pods of its node as kubectl does.
fn wait_pods(cluster: &Kubernetes, agent: &Agent, node: &Node) -> Result<BTreeSet<Pod>> {
    let truth = RefCell::new(BTreeSet::new());
    let waited = agent.wait_page("the pods of the node", LIMIT, "leadline_pod_info", |page| {
        *truth.borrow_mut() = told(cluster, node).unwrap_or_default();
        !truth.borrow().is_empty() && shown(page) == *truth.borrow()
    });
    waited.with_context(|| format!("kubectl: {:?}", truth.borrow()))?;
    Ok(truth.into_inner())
}

fn up(page: &Samples, expected: u64) -> bool {
    let of = |resource| page.count("leadline_kubernetes_watch_up", &[("resource", resource)]);
    ["pods", "nodes", "leases"].map(of) == [Some(expected); 3]
}

/// The labels `peer_node` of all families.
pub(crate) fn peers(page: &Samples) -> BTreeSet<&str> {
    page.all().iter().filter_map(|sample| sample.label("peer_node")).filter(|name| !name.is_empty()).collect()
}

/// The leases of leaders, by their names.
const LEADERS: [(&str, Part); 2] =
    [("kube-controller-manager", Part::ControllerManager), ("kube-scheduler", Part::Scheduler)];

/// Holder and transitions of a lease, and when it was renewed.
#[derive(Debug, PartialEq)]
struct Lease {
    holder: String,
    transitions: u64,
    renewed: f64,
}

fn lease_by_kubectl(cluster: &Kubernetes, name: &str) -> Result<Lease> {
    let lease = cluster.get(&["lease", "--namespace", "kube-system", name])?;
    let identity = text(&lease, "/spec/holderIdentity")?;
    let time = text(&lease, "/spec/renewTime")?;
    let seconds = lab::run(std::process::Command::new("date").args(["--date", time, "+%s.%N"]))?;
    Ok(Lease {
        holder: identity.split_once('_').context("no UUID in the identity")?.0.to_owned(),
        transitions: lease["spec"]["leaseTransitions"].as_u64().context("no transitions")?,
        renewed: seconds.trim().parse().context("date printed no number")?,
    })
}

fn lease_on(page: &Samples, name: &str) -> Option<Lease> {
    let of_lease = [("lease", name)];
    Some(Lease {
        holder: page.only("leadline_kubernetes_lease_holder_info", &of_lease)?.label("holder")?.to_owned(),
        transitions: page.count("leadline_kubernetes_lease_transitions_total", &of_lease)?,
        renewed: page.value("leadline_kubernetes_lease_renewed_timestamp_seconds", &of_lease)?,
    })
}

/// Waits until an agent shows a lease as kubectl does: it is renewed all the time, also between two questions.
fn wait_lease(
    cluster: &Kubernetes,
    agent: &Agent,
    name: &str,
    is_it: impl Fn(&str) -> bool,
) -> Result<Lease> {
    let mut last = None;
    let waited = wait_for("a lease as kubectl shows it", LIMIT, || {
        let before = lease_by_kubectl(cluster, name).ok()?;
        let shown = lease_on(&agent.scrape().ok()?, name);
        let after = lease_by_kubectl(cluster, name).ok()?;
        let is_same = shown.as_ref().is_some_and(|shown| {
            [&before, &after].map(|truth| (&truth.holder, truth.transitions))
                == [(&shown.holder, shown.transitions); 2]
                && (before.renewed - 1e-6..=after.renewed + 1e-6).contains(&shown.renewed)
        });
        let found = shown.filter(|shown| is_same && is_it(&shown.holder));
        last = Some([before, after]);
        found
    });
    waited.with_context(|| format!("{name}: {last:#?}"))
}

/// Kills each leader; every agent shows the next one, and tells that it is another.
fn check_leaders(cluster: &mut Kubernetes, lab: &Lab, agents: &[Agent]) -> Result<()> {
    let agent = agents.first().context("no agent")?;
    for (name, part) in LEADERS {
        let first = wait_lease(cluster, agent, name, |_| true)?;
        let node = lab.nodes().iter().find(|node| node.name() == first.holder);
        cluster.control_plane(node.with_context(|| format!("no node {}", first.holder))?)?.kill(part)?;
        let second = wait_lease(cluster, agent, name, |holder| holder != first.holder)?;
        println!("{name}: {first:?}, then {second:?}");
        assert_eq!(second.transitions, first.transitions + 1, "{name}");
        for agent in agents {
            let event = wait_for("the event", LIMIT, || {
                agent.events("lease_moved").ok()?.into_iter().find(|event| event["subject"] == name)
            })?;
            let expected = serde_json::json!({"from": first.holder, "to": second.holder});
            ensure!(event["details"] == expected, "{name}: {event:#}");
        }
    }
    Ok(())
}

#[test]
fn pods_nodes_and_leaders_have_the_names_that_kubectl_shows() -> Result<()> {
    let (lab, mut cluster, _) = start()?;
    cluster.apply(&role(&RIGHTS))?;
    let agents = agents(&lab, &cluster)?;
    cluster.apply(&deployment(3))?;
    let by_hand = cluster.wait_pods("default", "app=idle", 3)?;
    let names: Vec<&str> = by_hand.iter().map(|pod| text(pod, "/metadata/name")).collect::<Result<_>>()?;
    for (agent, node) in agents.iter().zip(lab.nodes()) {
        let pods = wait_pods(&cluster, agent, node)?;
        let (page, _) = agent.wait_page("nodes and counts", LIMIT, "leadline_kubernetes_", |page| {
            let count = |resource| page.count("leadline_kubernetes_objects", &[("resource", resource)]);
            up(page, 1) && count("nodes") == Some(3) && count("pods") == Some(pods.len() as u64)
        })?;
        let others: BTreeSet<&str> =
            lab.nodes().iter().map(Place::name).filter(|name| *name != node.name()).collect();
        assert_eq!(peers(&page), others, "{}", node.name());
        let name = names[usize::from(node.index()) - 1];
        let labels = [("namespace", "default"), ("pod", name)];
        ensure!(
            page.all().iter().any(|sample| sample.name == "leadline_tcp_connects_total"
                && labels.iter().all(|(key, value)| sample.label(key) == Some(value))),
            "{name} has no series"
        );
        let (level, reason) = agent.support("kubernetes")?;
        ensure!(level == "supported", "{}: {reason}", node.name());
    }
    check_leaders(&mut cluster, &lab, &agents)?;
    drop((agents, cluster));
    lab.shutdown()
}

#[test]
fn names_stay_while_the_api_is_away() -> Result<()> {
    let (lab, mut cluster, _) = start()?;
    cluster.apply(&role(&RIGHTS))?;
    cluster.apply(&deployment(3))?;
    let pods = cluster.wait_pods("default", "app=idle", 3)?;
    let node = lab.node(1)?;
    let first = agent(&cluster, node)?;
    let truth = wait_pods(&cluster, &first, node)?;
    for node in lab.nodes() {
        cluster.control_plane(node)?.kill(Part::ApiServer)?;
    }
    let lost = |page: &Samples| up(page, 0);
    let (page, took) = first.wait_page("the loss", LIMIT, "leadline_kubernetes_", lost)?;
    println!("lost {took:.1?} after the last API server");
    assert_eq!(shown(&page), truth);
    first.wait_support("kubernetes", "degraded", "cannot be reached", LIMIT)?;
    ensure!(first.events("kubernetes_lost")?.len() == 3, "no event of the loss");
    first.sigterm()?;

    // One that starts now names the pods by their log directories.
    let second = agent(&cluster, node)?;
    let name = text(&pods[0], "/metadata/name")?;
    second.wait_page("a name without the API", LIMIT, "leadline_pod", |page| {
        page.all().iter().any(|sample| sample.label("pod") == Some(name)) && shown(page).is_empty()
    })?;
    for node in lab.nodes() {
        cluster.control_plane(node)?.run(Part::ApiServer)?;
    }
    let begun = std::time::Instant::now();
    for node in lab.nodes() {
        cluster.control_plane(node)?.wait_well(Part::ApiServer)?;
    }
    let ready = begun.elapsed();
    wait_pods(&cluster, &second, node)?;
    let (_, took) = second.wait_page("its return", LIMIT, "leadline_kubernetes_", |page| up(page, 1))?;
    println!("API servers ready after {ready:.1?}, known again {took:.1?} later");
    drop((second, cluster));
    lab.shutdown()
}

#[test]
fn a_right_that_is_missing_is_said() -> Result<()> {
    let (lab, cluster, _) = start()?;
    let node = lab.node(1)?;
    for missing in RIGHTS {
        let rights: Vec<[&str; 2]> = RIGHTS.into_iter().filter(|right| *right != missing).collect();
        cluster.apply(&role(&rights))?;
        let agent = agent(&cluster, node)?;
        agent
            .wait_support("kubernetes", "degraded", "RBAC", LIMIT)
            .with_context(|| format!("without {missing:?}"))?;
        let page = agent.scrape()?;
        let forbidden = |resource: &str| {
            page.count(
                "leadline_kubernetes_failures_total",
                &[("resource", resource), ("reason", "forbidden")],
            )
        };
        ensure!(forbidden(missing[0]) >= Some(1), "without {missing:?}: {:?}", forbidden(missing[0]));
        let other = if missing[0] == "pods" { "nodes" } else { "pods" };
        assert_eq!(forbidden(other), Some(0), "without {missing:?}");
    }
    drop(cluster);
    lab.shutdown()
}
