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
use oci::{Image, Program};

/// The name in the shipped manifests. `localhost` is no registry: nobody pulls a stranger's image by it.
const NAME: &str = "localhost/leadline";

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
    /// Build nothing: take this binary, which must be static
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    binary: Option<PathBuf>,
}

/// Builds the agent, unless it is given, and writes the archive.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = targets(&arguments.target)?;
    // What a given binary was built from, nobody knows here.
    let (binaries, revision) = match (&arguments.binary, targets.keys().next()) {
        (Some(binary), Some(architecture)) if targets.len() == 1 => {
            (BTreeMap::from([(*architecture, binary.clone())]), None)
        }
        (Some(binary), _) => bail!("{} is for one target: give --target once", binary.display()),
        (None, _) => build(&targets, &arguments.profile)?,
    };
    let output = arguments.output.clone().unwrap_or_else(|| default_output(binaries.keys()));
    heading("image");
    write(&binaries, revision, &output)
}

/// The agent under test, and the image of it that the lab imports.
pub(crate) fn for_tests() -> Result<()> {
    let binaries = BTreeMap::from([(architecture_of(setup::TARGET)?, agent::build()?)]);
    write(&binaries, None, &target_directory().join(TESTED))
}

/// Builds for each target, and has each binary start once; answers with the commit as well.
fn build(
    targets: &BTreeMap<Architecture, &str>,
    profile: &str,
) -> Result<(BTreeMap<Architecture, PathBuf>, Option<String>)> {
    for target in targets.values() {
        setup::for_images(target)?;
    }
    heading("build");
    let (revision, mut binaries) = (revision(), BTreeMap::new());
    for (architecture, target) in targets {
        let binary = agent::build_for(target, profile, revision.as_deref())?;
        agent::check_start(&binary, target)?;
        binaries.insert(*architecture, binary);
    }
    Ok((binaries, revision))
}

/// Each architecture with its target.
fn targets(targets: &[String]) -> Result<BTreeMap<Architecture, &str>> {
    targets.iter().map(|target| Ok((architecture_of(target)?, target.as_str()))).collect()
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

fn default_output<'a>(architectures: impl Iterator<Item = &'a Architecture>) -> PathBuf {
    let names: Vec<_> = architectures.map(|architecture| architecture.name()).collect();
    let file = format!("leadline-{}-{}.tar", env!("CARGO_PKG_VERSION"), names.join("-"));
    target_directory().join("image").join(file)
}

fn write(binaries: &BTreeMap<Architecture, PathBuf>, revision: Option<String>, output: &Path) -> Result<()> {
    let read = |(architecture, binary): (&Architecture, &PathBuf)| {
        let bytes = fs::read(binary).with_context(|| format!("{} cannot be read", binary.display()))?;
        elf::check(&bytes, *architecture).with_context(|| format!("{} fits no image", binary.display()))?;
        Ok((*architecture, bytes))
    };
    let read = binaries.iter().map(read).collect::<Result<Vec<_>>>()?;
    let programs: Vec<_> =
        read.iter().map(|(architecture, binary)| Program { architecture: *architecture, binary }).collect();
    let image = Image { name: NAME, tag: env!("CARGO_PKG_VERSION"), labels: labels(revision) };
    let archive = oci::archive(&image, &programs)?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    fs::write(output, &archive.bytes).with_context(|| format!("{} cannot be written", output.display()))?;
    let names: Vec<_> = binaries.keys().map(|architecture| architecture.name()).collect();
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
        assert_eq!(architecture_of("aarch64-unknown-linux-musl").unwrap(), Architecture::Arm64);
        let error = architecture_of("x86_64-unknown-linux-gnu").unwrap_err().to_string();
        assert!(error.starts_with("no image for x86_64-unknown-linux-gnu: the targets are"), "{error}");
    }

    #[test]
    fn targets_are_told_apart_by_their_architecture() {
        let both = ["aarch64-unknown-linux-musl", "x86_64-unknown-linux-musl"].map(str::to_owned);
        let both = targets(&both).unwrap();
        assert_eq!(both.keys().copied().collect::<Vec<_>>(), [Architecture::Amd64, Architecture::Arm64]);
        assert!(
            default_output(both.keys())
                .ends_with(format!("image/leadline-{}-amd64-arm64.tar", env!("CARGO_PKG_VERSION")))
        );
    }

    #[test]
    fn a_binary_that_needs_an_interpreter_is_refused_by_its_name() {
        let output = std::env::temp_dir().join(format!("leadline-image-{}.tar", std::process::id()));
        let own = std::env::current_exe().unwrap();
        let binaries = BTreeMap::from([(Architecture::Amd64, own.clone())]);
        let error = write(&binaries, None, &output).unwrap_err();
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
