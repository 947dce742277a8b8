//! `cargo xtask setup`: what building and testing need. Looks first, decides, and only then acts; a second run finds
//! nothing to do.

mod apt;
mod bpf;
mod components;
mod go;
mod kernel;
mod need;
mod system;
mod target;

use anyhow::{Result, bail};

use crate::progress::{Step, heading};
use need::{NEEDS, Need};
use system::System;

pub(crate) use target::{ARM, TARGET};

/// Brings this machine to where everything can be built and tested.
pub(crate) fn run() -> Result<()> {
    heading("set-up");
    let step = Step::silent("system");
    let system = System::detect()?;
    step.done(&system);
    packages(&system, need::cross(ARM))?;
    kernel::unpack(&system)?;
    bpf::toolchain(&system)?;
    bpf::linker(&system)?;
    target::install(TARGET)?;
    target::install(ARM)?;
    go::check()?;
    components::build()
}

/// Brings this machine to where images of a target can be built: all but what only tests need.
pub(crate) fn for_images(target: &str) -> Result<()> {
    heading("set-up");
    let system = System::detect()?;
    packages(&system, need::cross(target))?;
    bpf::toolchain(&system)?;
    bpf::linker(&system)?;
    target::install(target)
}

/// The programs that tests and builds call, and what a target takes besides.
fn packages(system: &System, more: &'static [Need]) -> Result<()> {
    let step = Step::silent("programs");
    let missing: Vec<&Need> = NEEDS.iter().chain(more).filter(|need| !need.is_here()).collect();
    if missing.is_empty() {
        step.done(format!("all {} are here", NEEDS.len() + more.len()));
        return Ok(());
    }
    if !system.has_apt {
        bail!("{}", need::instructions(&missing));
    }
    apt::install(missing.iter().map(|need| need.packages))
}
