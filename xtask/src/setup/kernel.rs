//! The kernel that the agent is tried on in a virtual machine: Debian's package, unpacked and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{apt, system::System};
use crate::{
    process::{answer, quietly, target_directory},
    progress::{Step, note},
};

/// The oldest release that the agent promises to run on.
const RELEASE: &str = "6.1";

/// Unpacks the kernel unless that was done. Where the distribution has none the test of it says what to do.
pub(super) fn unpack(system: &System) -> Result<()> {
    let step = Step::silent("kernel for tests");
    let directory = target_directory().join("kernels").join(RELEASE);
    if directory.join("boot").is_dir() {
        step.done(format_args!("Linux {RELEASE} is unpacked"));
        return Ok(());
    }
    let Some(package) = system.has_apt.then(newest).flatten() else {
        step.done("none");
        note(format_args!(
            "this distribution has no package linux-image-{RELEASE}.*-cloud-amd64, which the test `kernel` boots; it \
             fails until one of Debian 12 is unpacked to {}",
            directory.display()
        ));
        return Ok(());
    };
    drop(step);
    let step = Step::start("kernel for tests", format_args!("unpacking {package}, 27 MB"));
    let partial = directory.with_extension("partial");
    remove(&partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("{} cannot be made", partial.display()))?;
    // Its own user cannot write here.
    quietly(
        Command::new("apt-get")
            .args(["download", "--quiet", "-o", "APT::Sandbox::User=root", &package])
            .current_dir(&partial),
    )?;
    let archive = downloaded(&partial).with_context(|| format!("apt-get downloaded no {package}"))?;
    quietly(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&partial))?;
    fs::remove_file(&archive).with_context(|| format!("{} cannot be removed", archive.display()))?;
    // Only what is whole has the name by which it is found.
    fs::rename(&partial, &directory).with_context(|| format!("{} cannot be renamed", partial.display()))?;
    step.done(package);
    Ok(())
}

/// The newest package of the release. The lists of packages may never have been read on this machine.
fn newest() -> Option<String> {
    let known = || newest_of(&answer("apt-cache", &["pkgnames", &format!("linux-image-{RELEASE}.")])?);
    known().or_else(|| {
        apt::update().ok()?;
        known()
    })
}

/// Of the packages in Debian's form `linux-image-6.1.0-56-cloud-amd64` the one with the greatest number.
fn newest_of(names: &str) -> Option<String> {
    let number = |name: &str| {
        let rest = name.strip_prefix("linux-image-")?.strip_prefix(RELEASE)?;
        rest.strip_prefix(".0-")?.strip_suffix("-cloud-amd64")?.parse::<u32>().ok()
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

fn downloaded(directory: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_with_the_greatest_number() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.1.0-57-amd64\nlinux-image-6.1.0-58-cloud-amd64-dbg\n\
                     linux-image-6.12.5+deb12-cloud-amd64\n";
        assert_eq!(newest_of(names).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest_of("linux-image-6.12.5-cloud-amd64\n"), None);
    }
}
