//! Gives up what the agent does not need after its start.

use anyhow::{Context as _, Result};
use caps::{CapSet, CapsHashSet};

/// Drops every capability of this thread, and so of every thread that it will create. The kernel thread, created
/// before, keeps its own.
pub(super) fn drop_all() -> Result<()> {
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &CapsHashSet::new())
            .with_context(|| format!("{set:?} capabilities cannot be dropped"))?;
    }
    Ok(())
}
