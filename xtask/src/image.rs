//! `cargo xtask image`: the agent as an OCI image of one file, in an archive that containerd, podman and docker load.
//!
//! No container tool and no network are needed for the image itself, and the same binary gives the same bytes.

mod elf;
mod oci;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    agent,
    process::{answer, repository, target_directory},
    progress::{heading, say},
    setup,
};
use elf::Architecture;
use oci::Image;

/// The name in the shipped manifests. `localhost` is no registry: nobody pulls a stranger's image by it.
const NAME: &str = "localhost/leadline";

/// What the agent is built for.
const TARGETS: [&str; 2] = [setup::ARM, "x86_64-unknown-linux-musl"];

/// Where the lab finds the image that it imports, below the target directory.
const TESTED: &str = "image/leadline-test.tar";

/// Arguments of `image`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Write the archive here [default: target/image/leadline-VERSION-ARCHITECTURES.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Build for this target: x86_64-unknown-linux-musl or aarch64-unknown-linux-musl; given twice, one image for both
    #[arg(long, value_name = "TRIPLE", default_values_t = [setup::TARGET.to_owned()])]
    target: Vec<String>,
    /// Build with this profile of Cargo; `release` is built faster
    #[arg(long, value_name = "NAME", default_value = "dist")]
    profile: String,
    /// Build nothing: take this binary, which must be static; given once for each architecture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["profile", "target"])]
    binary: Vec<PathBuf>,
}

/// Builds the agent, unless it is given, and writes the archive.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.binary.is_empty() {
        // What a given binary was built from, nobody knows here.
        return write(&arguments.binary, None, arguments.output.as_deref());
    }
    let targets: BTreeSet<&str> = arguments.target.iter().map(String::as_str).collect();
    targets.iter().try_for_each(|target| check_target(target))?;
    targets.iter().try_for_each(|target| setup::for_images(target))?;
    heading("build");
    let (revision, mut binaries) = (revision(), Vec::new());
    for target in targets {
        let binary = agent::build_for(target, &arguments.profile, revision.as_deref())?;
        agent::check_start(&binary, target)?;
        binaries.push(binary);
    }
    write(&binaries, revision, arguments.output.as_deref())
}

/// The agent under test, and the image of it that the lab imports.
pub(crate) fn for_tests() -> Result<()> {
    write(&[agent::build()?], None, Some(&target_directory().join(TESTED)))
}

/// Only musl's targets: their binaries need nothing, not even for resolving names.
fn check_target(target: &str) -> Result<()> {
    if !TARGETS.contains(&target) {
        bail!("no image for {target}: the targets are {}", TARGETS.join(" and "));
    }
    Ok(())
}

/// The commit that is built; nothing outside of a repository.
fn revision() -> Option<String> {
    let repository = repository();
    let commit = answer("git", &["-C", repository.to_str()?, "rev-parse", "HEAD"])?;
    let is_clean = answer("git", &["-C", repository.to_str()?, "status", "--porcelain"])?.is_empty();
    Some(if is_clean { commit } else { format!("{commit}-dirty") })
}

fn default_output(programs: &BTreeMap<Architecture, Vec<u8>>) -> PathBuf {
    let names: Vec<_> = programs.keys().map(|architecture| architecture.name()).collect();
    let file = format!("leadline-{}-{}.tar", env!("CARGO_PKG_VERSION"), names.join("-"));
    target_directory().join("image").join(file)
}

/// The binaries by their architecture.
fn read(binaries: &[PathBuf]) -> Result<BTreeMap<Architecture, Vec<u8>>> {
    let mut programs = BTreeMap::new();
    for binary in binaries {
        let bytes = fs::read(binary).with_context(|| format!("{} cannot be read", binary.display()))?;
        let architecture =
            elf::check(&bytes).with_context(|| format!("{} fits no image", binary.display()))?;
        if programs.insert(architecture, bytes).is_some() {
            bail!("{} is a second one for {}: give one for each", binary.display(), architecture.name());
        }
    }
    Ok(programs)
}

fn write(binaries: &[PathBuf], revision: Option<String>, output: Option<&Path>) -> Result<()> {
    let programs = read(binaries)?;
    heading("image");
    let output = output.map_or_else(|| default_output(&programs), Path::to_owned);
    let image = Image { name: NAME, tag: env!("CARGO_PKG_VERSION"), labels: labels(revision) };
    let archive = oci::archive(&image, &programs)?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    fs::write(&output, &archive.bytes).with_context(|| format!("{} cannot be written", output.display()))?;
    let names: Vec<_> = programs.keys().map(|architecture| architecture.name()).collect();
    say(format_args!("{NAME}:{} {} {}", image.tag, names.join(" "), archive.digest));
    say(format_args!("{} ({} bytes)", output.display(), archive.bytes.len()));
    say(format_args!("on each node: ctr --namespace k8s.io images import {}", output.display()));
    Ok(())
}

fn labels(revision: Option<String>) -> BTreeMap<&'static str, String> {
    let known = [
        ("org.opencontainers.image.title", "leadline"),
        ("org.opencontainers.image.description", env!("CARGO_PKG_DESCRIPTION")),
        ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
        ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
    ];
    let known = known.map(|(name, value)| (name, value.to_owned()));
    known.into_iter().chain(revision.map(|commit| ("org.opencontainers.image.revision", commit))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_for_an_architecture_that_has_a_static_target() {
        check_target("aarch64-unknown-linux-musl").unwrap();
        let error = check_target("x86_64-unknown-linux-gnu").unwrap_err().to_string();
        let expected =
            "no image for x86_64-unknown-linux-gnu: the targets are aarch64-unknown-linux-musl and";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn the_file_is_named_by_its_architectures() {
        let both = [Architecture::Arm64, Architecture::Amd64].map(|architecture| (architecture, Vec::new()));
        let file = default_output(&both.into());
        let expected = concat!("image/leadline-", env!("CARGO_PKG_VERSION"), "-amd64-arm64.tar");
        assert!(file.ends_with(expected), "{}", file.display());
    }

    #[test]
    fn a_binary_that_needs_an_interpreter_is_refused_by_its_name() {
        let output = std::env::temp_dir().join(format!("leadline-image-{}.tar", std::process::id()));
        let own = std::env::current_exe().unwrap();
        let error = write(std::slice::from_ref(&own), None, Some(&output)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(&own.display().to_string()), "{error}");
        assert!(!output.exists());
    }

    #[test]
    fn the_labels_name_the_commit_where_it_is_known() {
        let labels = labels(Some("0123abc".to_owned()));
        assert_eq!(labels["org.opencontainers.image.revision"], "0123abc");
        assert_eq!(labels["org.opencontainers.image.licenses"], "MIT OR Apache-2.0");
        assert!(!super::labels(None).contains_key("org.opencontainers.image.revision"));
    }

    #[test]
    fn the_shipped_manifest_names_this_image() {
        let file = repository().join("deploy/kustomize/agent/daemonset.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let image = format!("image: {NAME}:{}", env!("CARGO_PKG_VERSION"));
        assert!(text.lines().any(|line| line.trim() == image), "{image} is not in {}", file.display());
    }
}
