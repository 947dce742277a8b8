//! `cargo xtask image`: the agent as an OCI image of one file, in an archive that containerd, podman and docker load.
//!
//! No container tool and no network are needed for the image itself, and the same binary gives the same bytes.

mod elf;
mod oci;

use std::{
    collections::BTreeMap,
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

/// Where the lab finds the image that it imports, below the target directory.
const TESTED: &str = "image/leadline-test.tar";

/// Arguments of `image`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Write the archive here [default: target/image/leadline-VERSION-ARCHITECTURE.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Build for this target: x86_64-unknown-linux-musl or aarch64-unknown-linux-musl
    #[arg(long, value_name = "TRIPLE", default_value = setup::TARGET)]
    target: String,
    /// Build with this profile of Cargo; `release` is built faster
    #[arg(long, value_name = "NAME", default_value = "dist")]
    profile: String,
    /// Build nothing: take this binary, which must be static
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    binary: Option<PathBuf>,
}

/// Builds the agent, unless it is given, and writes the archive.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let architecture = architecture_of(&arguments.target)?;
    // What a given binary was built from, nobody knows here.
    let (binary, revision) = if let Some(binary) = &arguments.binary {
        (binary.clone(), None)
    } else {
        setup::for_images(&arguments.target)?;
        heading("build");
        let revision = revision();
        (agent::build_for(&arguments.target, &arguments.profile, revision.as_deref())?, revision)
    };
    let output = arguments.output.clone().unwrap_or_else(|| default_output(architecture));
    heading("image");
    write(&binary, architecture, revision, &output)
}

/// The agent under test, and the image of it that the lab imports.
pub(crate) fn for_tests() -> Result<()> {
    let binary = agent::build()?;
    write(&binary, architecture_of(setup::TARGET)?, None, &target_directory().join(TESTED))
}

/// Only musl's targets: their binaries need nothing, not even for resolving names.
fn architecture_of(target: &str) -> Result<Architecture> {
    match target {
        "x86_64-unknown-linux-musl" => Ok(Architecture::Amd64),
        "aarch64-unknown-linux-musl" => Ok(Architecture::Arm64),
        _ => bail!(
            "no image for {target}: the targets are x86_64-unknown-linux-musl and aarch64-unknown-linux-musl"
        ),
    }
}

/// The commit that is built; nothing outside of a repository.
fn revision() -> Option<String> {
    let repository = repository();
    let commit = answer("git", &["-C", repository.to_str()?, "rev-parse", "HEAD"])?;
    let is_clean = answer("git", &["-C", repository.to_str()?, "status", "--porcelain"])?.is_empty();
    Some(if is_clean { commit } else { format!("{commit}-dirty") })
}

fn default_output(architecture: Architecture) -> PathBuf {
    let file = format!("leadline-{}-{}.tar", env!("CARGO_PKG_VERSION"), architecture.name());
    target_directory().join("image").join(file)
}

fn write(binary: &Path, architecture: Architecture, revision: Option<String>, output: &Path) -> Result<()> {
    let bytes = fs::read(binary).with_context(|| format!("{} cannot be read", binary.display()))?;
    elf::check(&bytes, architecture).with_context(|| format!("{} fits no image", binary.display()))?;
    let image = Image { name: NAME, tag: env!("CARGO_PKG_VERSION"), architecture, labels: labels(revision) };
    let archive = oci::archive(&image, &bytes)?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    fs::write(output, &archive.bytes).with_context(|| format!("{} cannot be written", output.display()))?;
    say(format_args!("{NAME}:{} {} {}", image.tag, architecture.name(), archive.digest));
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
        assert_eq!(architecture_of("aarch64-unknown-linux-musl").unwrap(), Architecture::Arm64);
        let error = architecture_of("x86_64-unknown-linux-gnu").unwrap_err().to_string();
        assert!(error.starts_with("no image for x86_64-unknown-linux-gnu: the targets are"), "{error}");
    }

    #[test]
    fn a_binary_that_needs_an_interpreter_is_refused_by_its_name() {
        let output = std::env::temp_dir().join(format!("leadline-image-{}.tar", std::process::id()));
        let own = std::env::current_exe().unwrap();
        let error = write(&own, Architecture::Amd64, None, &output).unwrap_err();
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
