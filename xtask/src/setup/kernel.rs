//! The kernels that the agent is tried on in virtual machines, for each architecture that it is shipped for, and for a
//! foreign one the programs that run there: Debian's packages, unpacked and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{apt::Source, system::System};
use crate::{
    process::{quietly, target_directory},
    progress::{Step, note},
};

/// The oldest release that the agent promises to run on.
const RELEASE: &str = "6.1";

/// Debian's words for the architectures.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// What tests call in a machine that cannot run the programs of this one.
const PROGRAMS: [&str; 2] = ["busybox-static", "iproute2"];

/// Unpacks what is not there yet. Where the distribution has none the test of it says what to do.
pub(super) fn unpack(system: &System) -> Result<()> {
    ARCHITECTURES.iter().try_for_each(|architecture| unpack_for(architecture, system))
}

fn unpack_for(architecture: &str, system: &System) -> Result<()> {
    let step = Step::silent("kernel for tests");
    let directory = target_directory().join("kernels").join(format!("{RELEASE}-{architecture}"));
    if directory.join("boot").is_dir() {
        step.done(format_args!("Linux {RELEASE} for {architecture} is unpacked"));
        return Ok(());
    }
    drop(step);
    let step = Step::start("kernel for tests", format_args!("looking for one for {architecture}"));
    let partial = directory.with_extension("partial");
    remove(&partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("{} cannot be made", partial.display()))?;
    let found = if system.has_apt { fetch(architecture, &partial.join("packages"))? } else { None };
    let Some(package) = found else {
        remove(&partial)?;
        step.done("none");
        note(format_args!(
            "this distribution has no package linux-image-{RELEASE}.*-cloud-{architecture}, which the test `kernel` \
             boots; it fails until one of Debian 12 is unpacked to {}",
            directory.display()
        ));
        return Ok(());
    };
    for archive in archives(&partial.join("packages"))? {
        quietly(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&partial))?;
    }
    remove(&partial.join("packages"))?;
    // Only what is whole has the name by which it is found.
    fs::rename(&partial, &directory).with_context(|| format!("{} cannot be renamed", partial.display()))?;
    step.done(package);
    Ok(())
}

/// Downloads the newest kernel, and what a foreign machine runs besides; answers with the kernel's package.
fn fetch(architecture: &str, directory: &Path) -> Result<Option<String>> {
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let source = Source::new(architecture, directory)?;
    let Some(package) = newest(&source, architecture) else { return Ok(None) };
    source.download(&package)?;
    if source.is_foreign {
        source.download_whole(&PROGRAMS)?;
    }
    Ok(Some(package))
}

/// The newest package of the release. The lists of packages may never have been read on this machine.
fn newest(source: &Source, architecture: &str) -> Option<String> {
    let known = || newest_of(&source.names(&format!("linux-image-{RELEASE}."))?, architecture);
    known().or_else(|| {
        source.update().ok()?;
        known()
    })
}

/// Of the packages in Debian's form `linux-image-6.1.0-56-cloud-amd64` the one with the greatest number.
fn newest_of(names: &str, architecture: &str) -> Option<String> {
    let number = |name: &str| {
        let rest = name.strip_prefix("linux-image-")?.strip_prefix(RELEASE)?.strip_prefix(".0-")?;
        rest.strip_suffix(architecture)?.strip_suffix("-cloud-")?.parse::<u32>().ok()
    };
    let numbered = names.lines().filter_map(|name| Some((number(name)?, name)));
    numbered.max().map(|(_, name)| name.to_owned())
}

fn remove(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    fs::remove_dir_all(directory).with_context(|| format!("{} cannot be removed", directory.display()))
}

/// What was downloaded: beside the lists, and among the archives.
fn archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [directory.to_owned(), directory.join("archives")].iter().filter(|folder| folder.is_dir()) {
        let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        let files = entries.flatten().map(|entry| entry.path());
        found.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "deb")));
    }
    if found.is_empty() {
        bail!("apt-get downloaded nothing into {}", directory.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_with_the_greatest_number() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.1.0-57-amd64\nlinux-image-6.1.0-58-cloud-amd64-dbg\n\
                     linux-image-6.12.5+deb12-cloud-amd64\nlinux-image-6.1.0-60-cloud-arm64\n";
        assert_eq!(newest_of(names, "amd64").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest_of(names, "arm64").as_deref(), Some("linux-image-6.1.0-60-cloud-arm64"));
        assert_eq!(newest_of("linux-image-6.12.5-cloud-amd64\n", "amd64"), None);
    }
}
