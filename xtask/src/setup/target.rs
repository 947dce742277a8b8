//! The standard library of the target that images are built for.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{answer, find, quietly},
    progress::Step,
};

/// 64-bit Arm, which is cross-built where the machine is another one.
pub(crate) const ARM: &str = "aarch64-unknown-linux-musl";

/// What the agent is built for unless told otherwise: this machine, and static, since an image has no other file.
pub(crate) const TARGET: &str = if cfg!(target_arch = "aarch64") { ARM } else { "x86_64-unknown-linux-musl" };

/// Adds the library unless it is here.
pub(super) fn install(target: &str) -> Result<()> {
    let step = Step::silent("image target");
    if is_here(target) {
        step.done(target);
        return Ok(());
    }
    if find("rustup").is_none() {
        bail!(
            "the library of Rust for {target} is missing, and rustup, which would bring it: https://rustup.rs, or a \
             package of the distribution for this compiler"
        );
    }
    quietly(Command::new("rustup").args(["target", "add", target]))
        .with_context(|| format!("the library of Rust for {target} cannot be installed"))?;
    if !is_here(target) {
        bail!(
            "rustup has installed {target}, and rustc does not find it: is rustc in PATH the one of rustup?"
        );
    }
    step.done(format_args!("{target} installed"));
    Ok(())
}

fn is_here(target: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    answer(rustc, &["--print", "target-libdir", "--target", target])
        .is_some_and(|folder| has_library(Path::new(&folder)))
}

fn has_library(folder: &Path) -> bool {
    let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_of_this_machine_is_here_and_that_of_no_machine_is_not() {
        let host = answer("rustc", &["-vV"]).unwrap();
        let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        assert!(is_here(host));
        assert!(!is_here("m68k-unknown-linux-gnu"));
        assert!(!is_here("no-such-target"));
    }
}
