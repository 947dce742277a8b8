//! The agent as it is shipped and tested: one static file, which needs nothing of where it runs.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    process::{cargo, find, loudly, target_directory},
    setup,
};

/// Builds what everything but an image for others takes: for this machine, with the profile that is built faster.
pub(crate) fn build() -> Result<PathBuf> {
    build_for(setup::TARGET, "release", None)
}

/// Builds for a target with a profile of Cargo; the binary tells the revision, if there is one.
pub(crate) fn build_for(target: &str, profile: &str, revision: Option<&str>) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "probe-user", "--bin", "leadline"]);
    command.args(["--target", target, "--profile", profile]);
    if let Some(revision) = revision {
        command.env("LEADLINE_REVISION", revision);
    }
    cross(&mut command, target);
    loudly(&mut command)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(target_directory().join(target).join(folder).join("leadline"))
}

/// What another architecture than this machine's is compiled and linked with, unless the environment says.
fn cross(command: &mut std::process::Command, target: &str) {
    if target != "aarch64-unknown-linux-musl" || cfg!(target_arch = "aarch64") {
        return;
    }
    let compiler = "aarch64-linux-gnu-gcc";
    for (variable, program) in [
        ("CC_aarch64_unknown_linux_musl", compiler),
        ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", compiler),
    ] {
        if std::env::var_os(variable).is_none() && find(program).is_some() {
            command.env(variable, program);
        }
    }
}
