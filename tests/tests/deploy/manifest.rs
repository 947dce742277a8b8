//! What the manifests ask of a cluster: exactly what the agent needs, and on each node only what belongs there.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use lab::tools;
use serde_json::{Value, json};

use crate::{deploy, mounts, needed, object, render, shipped, with};

/// The mounts of every pod, with their places in the container.
const EVERYWHERE: [&str; 2] = ["/sys/fs/cgroup", "/var/log/pods"];

/// Files of etcd that only the control plane has.
const ETCD: [&str; 6] = [
    "/etc/kubernetes/manifests",
    "/etc/kubernetes/pki/etcd/ca.crt",
    "/etc/kubernetes/pki/etcd/healthcheck-client.crt",
    "/etc/kubernetes/pki/etcd/healthcheck-client.key",
    "/etc/kubernetes/pki/etcd/peer.crt",
    "/etc/kubernetes/pki/etcd/server.crt",
];

/// Files of the etcd of k3s, on its servers.
const K3S_ETCD: [&str; 6] = [
    "/var/lib/rancher/k3s/server/db/etcd/config",
    "/var/lib/rancher/k3s/server/tls/etcd/client.crt",
    "/var/lib/rancher/k3s/server/tls/etcd/client.key",
    "/var/lib/rancher/k3s/server/tls/etcd/peer-server-client.crt",
    "/var/lib/rancher/k3s/server/tls/etcd/server-ca.crt",
    "/var/lib/rancher/k3s/server/tls/etcd/server-client.crt",
];

/// Paths that are the same on the host and in the container.
fn same(paths: &[&str]) -> BTreeSet<(String, String)> {
    paths.iter().map(|path| ((*path).to_owned(), (*path).to_owned())).collect()
}

fn texts(value: &Value) -> BTreeSet<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn every_shipped_directory_is_rendered() -> Result<()> {
    let mut overlays = 0;
    for entry in fs::read_dir(deploy().join("kustomize/overlays"))? {
        let objects = render(&entry?.path())?;
        object(&objects, "DaemonSet", "leadline")?;
        object(&objects, "Namespace", "leadline")?;
        overlays += 1;
    }
    ensure!(overlays >= 2, "{overlays} overlays");
    for entry in fs::read_dir(deploy().join("kustomize/components"))? {
        let name = entry?.file_name().into_string().ok().context("a component's name is no UTF-8")?;
        with(&["control-plane", name.as_str()][usize::from(name == "control-plane")..])
            .with_context(|| name.clone())?;
    }
    Ok(())
}

#[test]
fn the_pod_may_do_what_the_agent_needs_and_nothing_else() -> Result<()> {
    let objects = shipped("base")?;
    let daemon_set = object(&objects, "DaemonSet", "leadline")?;
    let pod = &daemon_set["spec"]["template"]["spec"];
    let context = &pod["containers"][0]["securityContext"];
    ensure!(texts(&context["capabilities"]["add"]) == needed(), "{context}");
    ensure!(context["capabilities"]["drop"] == json!(["ALL"]), "{context}");
    ensure!(context["runAsUser"] == 0 && context["privileged"] == false, "{context}");
    ensure!(context["allowPrivilegeEscalation"] == false, "{context}");
    ensure!(context["readOnlyRootFilesystem"] == true, "{context}");
    ensure!(pod["securityContext"] == json!({"seccompProfile": {"type": "RuntimeDefault"}}));
    ensure!(pod["hostNetwork"] == true && pod["dnsPolicy"] == "ClusterFirstWithHostNet");
    ensure!(
        pod.get("hostPID").is_none() && pod.get("hostIPC").is_none() && pod.get("initContainers").is_none()
    );
    ensure!(pod["containers"].as_array().is_some_and(|containers| containers.len() == 1));
    ensure!(mounts(daemon_set)? == same(&EVERYWHERE), "{:?}", mounts(daemon_set)?);
    Ok(())
}

/// What the roles allow, all of it by `list` and `watch`: resources with their namespace.
fn granted(objects: &[Value]) -> Result<BTreeSet<String>> {
    let mut granted = BTreeSet::new();
    for role in objects.iter().filter(|object| object["kind"] == "ClusterRole" || object["kind"] == "Role") {
        for rule in role["rules"].as_array().context("no rules")? {
            ensure!(rule["verbs"] == json!(["list", "watch"]), "{rule}");
            let place = role["metadata"]["namespace"].as_str().unwrap_or("every namespace");
            let resources = texts(&rule["resources"]).into_iter();
            granted.extend(resources.map(|resource| format!("{resource} in {place}")));
        }
    }
    Ok(granted)
}

#[test]
fn the_account_lists_pods_nodes_and_what_cilium_has_of_them_and_on_the_control_plane_leases() -> Result<()> {
    let everywhere =
        ["ciliumnodes", "nodes", "pods"].map(|resource| format!("{resource} in every namespace"));
    let objects = shipped("base")?;
    ensure!(granted(&objects)? == BTreeSet::from(everywhere.clone()), "{:?}", granted(&objects)?);
    let subjects = objects.iter().filter_map(|object| object.get("subjects"));
    let account = json!([{"kind": "ServiceAccount", "name": "leadline", "namespace": "leadline"}]);
    ensure!(subjects.clone().count() == 1 && subjects.clone().all(|subject| *subject == account));

    let objects = with(&["control-plane"])?;
    let mut expected = BTreeSet::from(everywhere);
    expected.insert("leases in kube-system".to_owned());
    ensure!(granted(&objects)? == expected, "{:?}", granted(&objects)?);
    let mut subjects = objects.iter().filter_map(|object| object.get("subjects"));
    ensure!(subjects.all(|subject| *subject == account), "{account}");
    let follows = |name: &str| -> Result<bool> {
        let container = &object(&objects, "DaemonSet", name)?["spec"]["template"]["spec"]["containers"][0];
        let wanted = json!({"name": "LEADLINE_KUBERNETES_LEASES", "value": "true"});
        Ok(container["env"].as_array().context("no env")?.contains(&wanted))
    };
    ensure!(!follows("leadline")? && follows("leadline-control-plane")?, "who follows leases");
    Ok(())
}

#[test]
fn every_selector_finds_its_own_pods_only() -> Result<()> {
    let objects = with(&["control-plane", "prometheus-operator"])?;
    let labels = |name: &str| -> Result<Value> {
        Ok(object(&objects, "DaemonSet", name)?["spec"]["template"]["metadata"]["labels"].clone())
    };
    let matches = |selector: &Value, labels: &Value| {
        selector.as_object().is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
    };
    let names = ["leadline", "leadline-control-plane"];
    for owner in names {
        let selector = &object(&objects, "DaemonSet", owner)?["spec"]["selector"]["matchLabels"];
        for name in names {
            ensure!(matches(selector, &labels(name)?) == (name == owner), "{owner} and pods of {name}");
        }
    }
    for name in names {
        let labels = labels(name)?;
        ensure!(matches(&object(&objects, "Service", "leadline")?["spec"]["selector"], &labels));
        let monitor = object(&objects, "PodMonitor", "leadline")?;
        ensure!(matches(&monitor["spec"]["selector"]["matchLabels"], &labels));
    }
    Ok(())
}

#[test]
fn what_belongs_to_the_control_plane_is_on_no_worker() -> Result<()> {
    let objects = shipped("overlays/kubeadm-ha")?;
    let worker = object(&objects, "DaemonSet", "leadline")?;
    let control_plane = object(&objects, "DaemonSet", "leadline-control-plane")?;
    let pod = |daemon_set: &Value| daemon_set["spec"]["template"]["spec"].clone();
    ensure!(mounts(worker)? == same(&EVERYWHERE), "{:?}", mounts(worker)?);
    ensure!(
        mounts(control_plane)? == same(&[&EVERYWHERE[..], &ETCD].concat()),
        "{:?}",
        mounts(control_plane)?
    );
    ensure!(pod(worker).get("hostPID").is_none() && pod(control_plane)["hostPID"] == true);
    for (daemon_set, operator) in [(worker, "DoesNotExist"), (control_plane, "Exists")] {
        let affinity = &pod(daemon_set)["affinity"]["nodeAffinity"];
        let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        let role = json!({"key": "node-role.kubernetes.io/control-plane", "operator": operator});
        ensure!(*terms == json!([{"matchExpressions": [role]}]), "{terms}");
    }
    Ok(())
}

#[test]
fn sockets_and_files_of_others_are_mounted_where_they_were_asked_for() -> Result<()> {
    for (component, path) in [("flannel", "/run/flannel"), ("tailscale-socket", "/run/tailscale")] {
        let objects = with(&["control-plane", component])?;
        for name in ["leadline", "leadline-control-plane"] {
            let found = mounts(object(&objects, "DaemonSet", name)?)?;
            ensure!(found == same(&[&EVERYWHERE[..], &[path]].concat()), "{name}: {found:?}");
        }
    }
    Ok(())
}

#[test]
fn what_only_servers_have_is_mounted_there_alone() -> Result<()> {
    let components: [(&str, &[&str]); 3] = [
        ("k3s-etcd-certs", &K3S_ETCD),
        ("haproxy-config", &["/etc/haproxy/haproxy.cfg"]),
        ("haproxy-socket", &["/run/haproxy"]),
    ];
    for (component, paths) in components {
        let objects = with(&["control-plane", component])?;
        let found = mounts(object(&objects, "DaemonSet", "leadline")?)?;
        ensure!(found == same(&EVERYWHERE), "{component}: {found:?}");
        let found = mounts(object(&objects, "DaemonSet", "leadline-control-plane")?)?;
        ensure!(found == same(&[&EVERYWHERE[..], paths].concat()), "{component}: {found:?}");
    }
    Ok(())
}

#[test]
fn the_operator_gets_every_rule_and_a_monitor_that_keeps_the_labels_of_pods() -> Result<()> {
    for (component, kind, endpoints) in [
        ("prometheus-operator", "PodMonitor", "podMetricsEndpoints"),
        ("service-monitor", "ServiceMonitor", "endpoints"),
    ] {
        let objects = with(&[component])?;
        let spec = &object(&objects, kind, "leadline")?["spec"];
        let [endpoint] = &spec[endpoints].as_array().context("no endpoints")?[..] else {
            bail!("not one endpoint: {spec}")
        };
        ensure!(endpoint["honorLabels"] == true, "{endpoint}");
        let node = json!([{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}]);
        ensure!(endpoint["relabelings"] == node, "{endpoint}");
        let pod = &object(&objects, "DaemonSet", "leadline")?["spec"]["template"];
        let port = &pod["spec"]["containers"][0]["ports"][0];
        ensure!(port["containerPort"] == lab::agent::ADDRESS.port(), "{port}");
        let service = object(&objects, "Service", "leadline")?;
        ensure!(
            [&port["name"], &service["spec"]["ports"][0]["name"]] == [&endpoint["port"]; 2],
            "{endpoint}"
        );
        let labels = if kind == "PodMonitor" { &pod["metadata"] } else { &service["metadata"] };
        let wanted = spec["selector"]["matchLabels"].as_object().context("no selector")?;
        ensure!(wanted.iter().all(|(key, value)| labels["labels"][key] == *value), "{kind}: {wanted:?}");
        check_rendered(&objects, "PrometheusRule", "prometheusrule")?;
    }
    Ok(())
}

#[test]
fn two_monitors_of_the_same_agents_are_refused() {
    let error = with(&["prometheus-operator", "service-monitor"]).err().map(|error| format!("{error:#}"));
    assert!(error.as_ref().is_some_and(|error| error.contains("PrometheusRule")), "{error:?}");
}

#[test]
fn the_sidecar_of_grafana_gets_every_board() -> Result<()> {
    let objects = with(&["dashboards"])?;
    check_rendered(&objects, "ConfigMap", "configmap")?;
    let boards = objects.iter().filter(|object| object["kind"] == "ConfigMap");
    for board in boards {
        let metadata = &board["metadata"];
        ensure!(
            metadata["namespace"] == "leadline" && metadata["labels"]["grafana_dashboard"] == "1",
            "{metadata}"
        );
    }
    Ok(())
}

/// The objects of a kind are those of the rendered files.
fn check_rendered(objects: &[Value], kind: &str, folder: &str) -> Result<()> {
    let found = objects.iter().filter(|object| object["kind"] == kind);
    let found: BTreeSet<_> = found.filter_map(|object| object["metadata"]["name"].as_str()).collect();
    let files = fs::read_dir(tools::workspace().join("dashboards/rendered").join(folder))?;
    let files = files.map(|file| Ok(file?.path().file_stem().context("a file has a name")?.to_owned()));
    let files = files.collect::<Result<Vec<_>>>()?;
    let files = files.iter().filter_map(|name| name.to_str()).filter(|name| *name != "kustomization");
    let files: BTreeSet<_> = files.collect();
    ensure!(found == files && !files.is_empty(), "{found:?}, and the files are {files:?}");
    Ok(())
}

#[test]
fn every_agent_probes_the_others_with_the_key_of_a_secret() -> Result<()> {
    let env = |objects: &[Value], name: &str, variable: &str| -> Result<Option<String>> {
        let container = &object(objects, "DaemonSet", name)?["spec"]["template"]["spec"]["containers"][0];
        let found = container["env"].as_array().context("no env")?.iter().find(|one| one["name"] == variable);
        Ok(found.and_then(|found| found["value"].as_str()).map(str::to_owned))
    };
    let [mode, key] = ["LEADLINE_COLLECTOR_PATH", "LEADLINE_PATH_KEY_FILE"];
    let (plain, sealed) = (with(&["control-plane", "path"])?, with(&["control-plane", "path", "path-key"])?);
    for name in ["leadline", "leadline-control-plane"] {
        for objects in [&plain, &sealed] {
            ensure!(env(objects, name, mode)?.as_deref() == Some("on"), "{name}");
        }
        ensure!(env(&plain, name, key)?.is_none(), "{name} has a key");
        let file = env(&sealed, name, key)?.with_context(|| format!("{name} has no key"))?;
        let pod = &object(&sealed, "DaemonSet", name)?["spec"]["template"]["spec"];
        let of = |list: &str| pod[list].as_array().cloned().unwrap_or_default();
        let volume = of("volumes").into_iter().find(|volume| volume["name"] == "path-key");
        // For the owner alone: the agent takes no key that everybody may read.
        let expected = json!({"secretName": "leadline-path", "defaultMode": 0o400});
        ensure!(volume.as_ref().map(|volume| &volume["secret"]) == Some(&expected), "{volume:?}");
        let mounts = pod["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
        let mount = mounts.iter().find(|mount| mount["name"] == "path-key").context("it is not mounted")?;
        let path = mount["mountPath"].as_str().context("no path")?;
        ensure!(mount["readOnly"] == true && file == format!("{path}/key"), "{mount} and {file}");
    }
    Ok(())
}
