//! Stands in for a collector that cannot start here, so that the page says which one is missing and why.

use super::{CollectError, Collector, Support};
use crate::metric::Descriptor;
use crate::metric::sink::Sink;

/// A collector that never has anything to say but its reason.
#[derive(Debug)]
pub struct Unavailable {
    name: &'static str,
    reason: &'static str,
}

impl Unavailable {
    /// The collector of that name, and why it cannot run.
    #[must_use]
    pub const fn new(name: &'static str, reason: &'static str) -> Self {
        Self { name, reason }
    }
}

impl Collector for Unavailable {
    fn name(&self) -> &'static str {
        self.name
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        &[]
    }

    fn support(&self) -> Support {
        Support::No(self.reason)
    }

    fn collect(&self, _: &mut Sink<'_>) -> Result<(), CollectError> {
        Ok(())
    }
}
