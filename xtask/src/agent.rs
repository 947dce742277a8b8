//! The agent as it is shipped and tested: one static file, which needs nothing of where it runs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{cargo, find, loudly, show, target_directory},
    progress::Step,
    setup,
};

/// Builds what everything but an image for others takes: for this machine, with the profile that is built faster.
pub(crate) fn build() -> Result<PathBuf> {
    build_for(setup::TARGET, "release", None)
}

/// Builds the same for 64-bit Arm, which tests boot in a virtual machine.
pub(crate) fn build_for_arm() -> Result<()> {
    let binary = build_for(setup::ARM, "release", None)?;
    check_start(&binary, setup::ARM)
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

/// Has what was built say its version, as its own machine would: what does not start is shipped to nobody.
pub(crate) fn check_start(binary: &Path, target: &str) -> Result<()> {
    let step = Step::silent("start");
    let mut command = if target == setup::TARGET {
        Command::new(binary)
    } else {
        let emulator = format!("qemu-{}-static", target.split('-').next().unwrap_or_default());
        let found = find(&emulator);
        let mut command = Command::new(found.with_context(|| {
            format!(
                "{emulator} is missing, so that nobody knows whether {} starts: install qemu-user-static",
                binary.display()
            )
        })?);
        command.arg(binary);
        command
    };
    command.arg("--version");
    let shown = show(&command);
    let output = command.output().with_context(|| format!("`{shown}` cannot be started"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = concat!("leadline ", env!("CARGO_PKG_VERSION"));
    if !output.status.success() || said.trim() != expected {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` ended with {}, and did not say `{expected}`: {}{}", output.status, said, complaint);
    }
    step.done(format_args!("`{shown}` says {expected}"));
    Ok(())
}

/// What another architecture than this machine's is compiled and linked with, unless the environment says.
fn cross(command: &mut Command, target: &str) {
    if target != setup::ARM || cfg!(target_arch = "aarch64") {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_say_the_version_does_not_start() {
        let error = check_start(Path::new("/bin/echo"), setup::TARGET).unwrap_err().to_string();
        assert!(error.starts_with("`echo --version` ended with"), "{error}");
        let error = check_start(Path::new("/no/such/file"), setup::TARGET).unwrap_err().to_string();
        assert_eq!(error, "`file --version` cannot be started");
    }

    #[test]
    fn an_architecture_without_an_emulator_is_named() {
        let error = check_start(Path::new("/bin/echo"), "m68k2-unknown-linux-gnu").unwrap_err().to_string();
        assert!(
            error.starts_with("qemu-m68k2-static is missing, so that nobody knows whether /bin/echo"),
            "{error}"
        );
    }
}
