//! What an API server says of the manifests: it knows every field of them, and has nothing against the pods but what is
//! accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use lab::control_plane::Options;
use lab::etcd::Version;
use lab::{ControlPlane, Etcd, EtcdOptions, Kubectl, Lab, LabOptions, tools};
use serde_json::{Value, json};

use crate::objection::{ACCEPTED, AGENT, Accepted, Objection, PROFILES, objections};
use crate::{build, build_with, deploy, object, parse, shipped};

/// The pods of the nodes of the control plane.
const CONTROL_PLANE: &str = "leadline-control-plane";

/// The base, an overlay, or the base with a component.
struct Case {
    name: String,
    /// What it is made of.
    parts: BTreeSet<String>,
    text: String,
}

/// All that can be applied.
fn cases() -> Result<Vec<Case>> {
    let kustomize = deploy().join("kustomize");
    let base = build(&kustomize.join("base"))?;
    let mut cases = vec![Case { name: "base".into(), parts: BTreeSet::new(), text: base }];
    for overlay in names(&kustomize.join("overlays"))? {
        let directory = kustomize.join("overlays").join(&overlay);
        let (parts, text) = (components(&directory)?, build(&directory)?);
        cases.push(Case { name: overlay, parts, text });
    }
    for component in names(&kustomize.join("components"))? {
        // What is for the control plane alone has no pods to be added to otherwise.
        let parts = BTreeSet::from(["control-plane".to_owned(), component.clone()]);
        let text = build_with(&parts.iter().map(String::as_str).collect::<Vec<_>>())?;
        cases.push(Case { name: component, parts, text });
    }
    for case in &mut cases {
        case.parts.insert(AGENT.to_owned());
    }
    Ok(cases)
}

fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    entries.map(|entry| entry?.file_name().into_string().ok().context("a name is no UTF-8")).collect()
}

/// The components of an overlay.
fn components(overlay: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(overlay.join("kustomization.yaml"))?;
    let text: Value = serde_yaml_ng::from_str(&text)?;
    let paths = text["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |path: &Value| Path::new(path.as_str()?).file_name()?.to_str().map(str::to_owned);
    paths.iter().map(|path| name(path).with_context(|| format!("no component: {path}"))).collect()
}

/// An API server, and where files for it are.
struct Scanner {
    kubectl: Kubectl,
    directory: PathBuf,
    judged: BTreeMap<String, BTreeSet<Objection>>,
}

impl Scanner {
    /// Makes what objects need that are taken: the kinds of the operator, and namespaces.
    fn new(plane: &ControlPlane, directory: PathBuf) -> Result<Self> {
        let kubectl = plane.kubectl()?;
        let crds = tools::operator_crds()?;
        let crds = crds.to_str().context("the path of the definitions is no UTF-8")?;
        // Too large for the annotation that kubectl would keep them in.
        kubectl.run(&["apply", "--server-side", "--filename", crds])?;
        kubectl.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        let shipped = object(&shipped("base")?, "Namespace", "leadline")?.clone();
        let judging = PROFILES.map(|profile| {
            let labels = json!({
                "pod-security.kubernetes.io/enforce": "privileged",
                "pod-security.kubernetes.io/warn": profile,
            });
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": profile, "labels": labels}})
        });
        let namespaces = [&[shipped], &judging[..]].concat();
        kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": namespaces}).to_string())?;
        lab::wait_until("the namespace of leases", lab::process::SHORT, || {
            kubectl.get(&["namespace", "kube-system"]).is_ok()
        })?;
        Ok(Self { kubectl, directory, judged: BTreeMap::new() })
    }

    fn file(&self, text: &str) -> Result<PathBuf> {
        let file = self.directory.join("scanned.yaml");
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }

    /// All objects are taken, and there is nothing to warn of.
    fn check_schema(&self, text: &str) -> Result<()> {
        let verdict = self.kubectl.dry_run(&self.file(text)?)?;
        let count = parse(text)?.len();
        ensure!(verdict.taken.len() == count && count > 0, "{count} objects, and {:#?}", verdict.taken);
        ensure!(verdict.warnings.is_empty(), "{:#?}", verdict.warnings);
        Ok(())
    }

    /// What a profile has against the pods of an object. Cases share most of theirs: each is judged once.
    fn judge(&mut self, daemon_set: &Value, profile: &'static str) -> Result<BTreeSet<Objection>> {
        let mut object = daemon_set.clone();
        object["metadata"]["namespace"] = json!(profile);
        let text = object.to_string();
        if let Some(known) = self.judged.get(&text) {
            return Ok(known.clone());
        }
        let verdict = self.kubectl.dry_run(&self.file(&text)?)?;
        let [warning] = &verdict.warnings[..] else { bail!("not one warning: {:#?}", verdict.warnings) };
        let found = objections(warning, profile)?;
        self.judged.insert(text, found.clone());
        Ok(found)
    }

    /// The differences between what profiles have against pods and what is accepted for them.
    fn differences(&mut self, case: &Case, daemon_set: &Value) -> Result<Vec<String>> {
        let name = daemon_set["metadata"]["name"].as_str().context("no name")?;
        let accepted: Vec<&Accepted> = ACCEPTED.iter().filter(|row| applies(row, case, name)).collect();
        let mut differences = Vec::new();
        for (index, profile) in PROFILES.iter().enumerate() {
            let found = self.judge(daemon_set, profile)?;
            let expected: BTreeSet<_> = accepted.iter().filter_map(|row| row.objection(index)).collect();
            let place = format!("{}: {name}: {profile}", case.name);
            let show = |(check, thing): &_, what| format!("{place}: {what}: {check} ({thing})");
            differences.extend(found.difference(&expected).map(|more| show(more, "not accepted")));
            differences.extend(expected.difference(&found).map(|less| show(less, "no longer reported")));
        }
        Ok(differences)
    }
}

fn applies(row: &Accepted, case: &Case, daemon_set: &str) -> bool {
    case.parts.contains(row.from) && (!row.is_for_control_plane || daemon_set == CONTROL_PLANE)
}

/// An API server that lets everything through would say nothing of the manifests.
fn check_refusals(scanner: &Scanner) -> Result<()> {
    let monitor = shipped_monitor()?;
    let mistakes: [(&Value, &str, Value); 3] = [
        (&monitor, "/spec/podMetricsEndpoints/0/honourLabels", json!(true)),
        (&monitor, "/spec/podMetricsEndpoints/0/interval", json!("often")),
        (
            &object(&shipped("base")?, "DaemonSet", "leadline")?.clone(),
            "/spec/template/spec/hostNet",
            json!(true),
        ),
    ];
    for (object, path, value) in mistakes {
        let (parent, field) = path.rsplit_once('/').context("no path")?;
        let mut wrong = object.clone();
        wrong.pointer_mut(parent).with_context(|| format!("no {parent}"))?[field] = value;
        let error = scanner.check_schema(&wrong.to_string()).err().map(|error| format!("{error:#}"));
        ensure!(error.as_ref().is_some_and(|error| error.contains(field)), "{path}: {error:?}");
    }
    Ok(())
}

fn shipped_monitor() -> Result<Value> {
    let objects = parse(&build_with(&["prometheus-operator"])?)?;
    object(&objects, "PodMonitor", "leadline").cloned()
}

#[test]
fn an_api_server_takes_every_manifest_and_has_only_what_is_accepted_against_the_pods() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let etcd =
        Etcd::start(&lab, &EtcdOptions { members: 1, version: Version::V3_6, ..EtcdOptions::default() })?;
    let plane = ControlPlane::start(lab.node(1)?, &etcd, &Options::default())?;
    let mut scanner = Scanner::new(&plane, lab.scratch().to_owned())?;
    check_refusals(&scanner)?;

    let (cases, mut differences) = (cases()?, Vec::new());
    let mut judged = BTreeSet::new();
    for case in &cases {
        scanner.check_schema(&case.text).with_context(|| case.name.clone())?;
        let objects = parse(&case.text)?;
        for daemon_set in objects.iter().filter(|object| object["kind"] == "DaemonSet") {
            let found = scanner.differences(case, daemon_set);
            differences.extend(found.with_context(|| case.name.clone())?);
            judged.extend(daemon_set["metadata"]["name"].as_str().map(str::to_owned));
        }
    }
    ensure!(judged == ["leadline", CONTROL_PLANE].map(str::to_owned).into(), "{judged:?}");
    let is_of_none = |row: &&Accepted| !cases.iter().any(|case| applies(row, case, CONTROL_PLANE));
    differences.extend(ACCEPTED.iter().filter(is_of_none).map(|row| format!("of no component: {row:?}")));
    differences.extend(ACCEPTED.iter().filter(|row| row.reason.is_empty()).map(|row| format!("{row:?}")));
    ensure!(differences.is_empty(), "{differences:#?}");
    drop((plane, etcd));
    lab.shutdown()
}
