//! `cargo xtask setup`: what building and testing need. Looks first, decides, and only then acts; a second run finds
//! nothing to do.

mod apt;
mod bpf;
mod components;
mod go;
mod kernel;
mod need;
mod system;

use anyhow::{Result, bail};

use crate::progress::{Step, heading};
use need::{NEEDS, Need};
use system::System;

/// Brings this machine to where everything can be built and tested.
pub(crate) fn run() -> Result<()> {
    heading("set-up");
    let step = Step::silent("system");
    let system = System::detect()?;
    step.done(&system);
    packages(&system)?;
    kernel::unpack(&system)?;
    bpf::toolchain(&system)?;
    bpf::linker(&system)?;
    go::check()?;
    components::build()
}

/// The programs that tests and builds call.
fn packages(system: &System) -> Result<()> {
    let step = Step::silent("programs");
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !need.is_here()).collect();
    if missing.is_empty() {
        step.done(format!("all {} are here", NEEDS.len()));
        return Ok(());
    }
    if !system.has_apt {
        bail!("{}", need::instructions(&missing));
    }
    apt::install(missing.iter().map(|need| need.packages))
}
