//! The lab's components, which are built from pinned sources.

use anyhow::{Context as _, Result};

use crate::{
    process::{cargo, loudly, search_path},
    progress::Step,
};

/// Lets the lab build what it has not built yet. It is a process of its own: this crate depends on nothing of ours.
pub(super) fn build() -> Result<()> {
    let step = Step::silent("lab components");
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "leadline-tests", "--bin", "lab", "--", "prepare"]);
    command.env("PATH", search_path()?);
    loudly(&mut command).context("the components of the lab cannot be built")?;
    step.done("all are built");
    Ok(())
}
