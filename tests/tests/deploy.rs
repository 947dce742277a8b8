//! What is shipped for deployment: manifests as kustomize renders them and an API server takes them, and the unit as
//! systemd reads it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::{process, tools};
use leadline::host::Capability;
use serde_json::{Value, json};

#[path = "deploy/manifest.rs"]
mod manifest;
#[path = "deploy/objection.rs"]
mod objection;
#[path = "deploy/scan.rs"]
mod scan;
#[path = "deploy/unit.rs"]
mod unit;

fn deploy() -> PathBuf {
    tools::workspace().join("deploy")
}

/// A directory, as kustomize renders it.
fn build(directory: &Path) -> Result<String> {
    process::run(Command::new(tools::kustomize()?).arg("build").arg(directory))
}

/// The objects of what kustomize has rendered.
fn parse(text: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let objects = documents.map(serde::Deserialize::deserialize);
    objects.collect::<Result<_, _>>().context("kustomize renders no YAML")
}

/// The objects of a directory.
fn render(directory: &Path) -> Result<Vec<Value>> {
    parse(&build(directory)?).with_context(|| directory.display().to_string())
}

/// The objects of a directory of kustomize that is shipped.
fn shipped(directory: &str) -> Result<Vec<Value>> {
    render(&deploy().join("kustomize").join(directory))
}

/// The objects of the base with components.
fn with(components: &[&str]) -> Result<Vec<Value>> {
    parse(&build_with(components)?)
}

/// The base with components, as kustomize renders it. Paths in a kustomization are relative.
fn build_with(components: &[&str]) -> Result<String> {
    let overlay =
        tools::target_dir().join(format!("overlay-{}-{}", std::process::id(), components.join("-")));
    fs::create_dir_all(&overlay).with_context(|| format!("create {}", overlay.display()))?;
    let up = "../".repeat(overlay.canonicalize()?.components().count() - 1);
    let kustomize = deploy().join("kustomize").canonicalize()?;
    let kustomize = format!("{up}{}", kustomize.strip_prefix("/")?.display());
    let components: Vec<String> =
        components.iter().map(|component| format!("{kustomize}/components/{component}")).collect();
    let text = json!({"resources": [format!("{kustomize}/base")], "components": components});
    fs::write(overlay.join("kustomization.yaml"), text.to_string())?;
    let rendered = build(&overlay);
    fs::remove_dir_all(&overlay).with_context(|| format!("remove {}", overlay.display()))?;
    rendered
}

/// The object of a kind and name.
fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.with_context(|| format!("there is no {kind} {name}"))
}

/// The host's paths that the pods of a `DaemonSet` have, each with where it is in the container.
fn mounts(daemon_set: &Value) -> Result<BTreeSet<(String, String)>> {
    let pod = &daemon_set["spec"]["template"]["spec"];
    let list = |value: &Value| value.as_array().cloned().context("no list");
    let (volumes, mounts) = (list(&pod["volumes"])?, list(&pod["containers"][0]["volumeMounts"])?);
    ensure!(volumes.len() == mounts.len(), "each volume is mounted once");
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    let found = mounts.iter().map(|mount| {
        ensure!(mount["readOnly"] == true, "{mount} can be written to");
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
        let host = &volume.with_context(|| format!("{mount} mounts nothing"))?["hostPath"];
        // Without one of these two types what is not there would be made on the host.
        ensure!(host["type"] == "Directory" || host["type"] == "File", "{host}");
        Ok((text(&host["path"])?, text(&mount["mountPath"])?))
    });
    found.collect()
}

/// Names of the capabilities that the agent needs, without `CAP_`.
fn needed() -> BTreeSet<String> {
    Capability::NEEDED.iter().map(|needed| needed.name().to_owned()).collect()
}
