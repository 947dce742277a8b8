//! What compiles and links the BPF programs: a compiler with the sources of `core`, and bpf-linker.

use std::path::Path;

use anyhow::{Result, bail};

use super::{apt, system::System};
use crate::{
    process::{answer, cargo, quietly},
    progress::{Step, note},
};

/// Toolchains in the order in which probe-user/build.rs tries them; /usr is Debian's.
const TOOLCHAINS: [&str; 3] = ["nightly", "stable", "/usr"];

/// Debian's compiler with matching sources.
const DEBIAN_RUST: &[&[&str]] = &[&["rustc-web"], &["cargo-web"], &["rust-web-src"]];

const LINKER: &str = "0.13.0";
const LLVM_PACKAGE: &str = "llvm-22-dev";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Finds a compiler that can build `core` for BPF, or installs Debian's.
pub(super) fn toolchain(system: &System) -> Result<()> {
    let step = Step::silent("BPF toolchain");
    if let Some(found) = TOOLCHAINS.into_iter().find(|toolchain| has_core_sources(toolchain)) {
        step.done(match found {
            "/usr" => "Debian's rustc with rust-web-src",
            other => other,
        });
        return Ok(());
    }
    if system.has_apt
        && DEBIAN_RUST.iter().all(|group| group.iter().any(|name| apt::candidate(name).is_some()))
    {
        return apt::install(DEBIAN_RUST.iter().copied());
    }
    bail!(
        "the BPF programs need a compiler with its library sources, and none is here. Either of these brings one:\n  \
         rustup toolchain install nightly --component rust-src\n  rustup component add rust-src --toolchain stable"
    );
}

fn has_core_sources(toolchain: &str) -> bool {
    let sysroot = if toolchain == "/usr" {
        answer("/usr/bin/rustc", &["--print", "sysroot"])
    } else {
        answer("rustup", &["run", toolchain, "rustc", "--print", "sysroot"])
    };
    sysroot.is_some_and(|path| Path::new(&path).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists())
}

/// What to do about the linker.
#[derive(Debug, PartialEq, Eq)]
enum Linker {
    /// The pinned version is here.
    Ready,
    /// It can be built.
    Build,
    /// Another version is here, and the pinned one cannot be built.
    Accept,
    /// None is here, and none can be built.
    Missing,
}

fn decide(installed: Option<&str>, llvm: bool) -> Linker {
    match (installed, llvm) {
        (Some(LINKER), _) => Linker::Ready,
        (_, true) => Linker::Build,
        (Some(_), false) => Linker::Accept,
        (None, false) => Linker::Missing,
    }
}

/// Builds the pinned bpf-linker unless it is here.
pub(super) fn linker(system: &System) -> Result<()> {
    let step = Step::silent("bpf-linker");
    let installed = installed_linker();
    let installed = installed.as_deref();
    let llvm_here = installed == Some(LINKER) || apt::are_installed(&[LLVM_PACKAGE]) || has_llvm();
    let llvm = llvm_here || (system.has_apt && apt::candidate(LLVM_PACKAGE).is_some());
    match decide(installed, llvm) {
        Linker::Ready => step.done(LINKER),
        Linker::Accept => {
            step.done(format_args!("{} as it is", installed.unwrap_or_default()));
            note(format_args!("tested with {LINKER}, which needs LLVM 22 with headers to build"));
        }
        Linker::Missing => bail!(
            "bpf-linker is missing. With LLVM 22 from apt.llvm.org (package {LLVM_PACKAGE}) run this again; or, with a \
             rustup toolchain: cargo install bpf-linker --version 0.10.4 --locked"
        ),
        Linker::Build => {
            if !llvm_here {
                apt::install([&[LLVM_PACKAGE][..]])?;
            }
            build_linker()?;
        }
    }
    Ok(())
}

fn installed_linker() -> Option<String> {
    let answer = answer("bpf-linker", &["--version"])?;
    answer.strip_prefix("bpf-linker ").map(|version| version.trim().to_owned())
}

fn has_llvm() -> bool {
    Path::new(LLVM_PREFIX).join("bin/llvm-config").exists()
}

fn build_linker() -> Result<()> {
    let step = Step::start("bpf-linker", format_args!("building {LINKER}, about a minute"));
    let mut command = cargo();
    command
        .args(["install", "bpf-linker", "--version", LINKER, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM_PREFIX)
        // 2 MB in place of 41 MB, and built in two thirds of the time.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    quietly(&mut command)?;
    if installed_linker().as_deref() != Some(LINKER) {
        bail!(
            "bpf-linker {LINKER} was installed by cargo, but PATH finds another one or none: put ~/.cargo/bin first"
        );
    }
    step.done(LINKER);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_linker_is_left_alone() {
        assert_eq!(decide(Some(LINKER), false), Linker::Ready);
        assert_eq!(decide(Some(LINKER), true), Linker::Ready);
    }

    #[test]
    fn another_linker_is_replaced_where_that_is_possible() {
        assert_eq!(decide(Some("0.10.4"), true), Linker::Build);
        assert_eq!(decide(Some("0.10.4"), false), Linker::Accept);
        assert_eq!(decide(None, true), Linker::Build);
        assert_eq!(decide(None, false), Linker::Missing);
    }

    #[test]
    fn a_toolchain_that_is_not_there_has_no_sources() {
        assert!(!has_core_sources("no-such-toolchain"));
    }
}
