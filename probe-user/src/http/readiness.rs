//! Readiness: named latches that the parts of the agent set once they have started.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Everything that must have happened before the agent is ready. Clones share the latches.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<[Latch]>);

/// One of them.
#[derive(Clone, Debug)]
pub struct Latch {
    name: &'static str,
    set: Arc<AtomicBool>,
}

impl Readiness {
    /// One open latch per name, such as `programs attached`.
    #[must_use]
    pub fn new(names: &[&'static str]) -> Self {
        Self(names.iter().map(|name| Latch { name, set: Arc::default() }).collect())
    }

    /// The latch of that name; `None` for a name that was not given at the start.
    #[must_use]
    pub fn latch(&self, name: &str) -> Option<Latch> {
        self.0.iter().find(|latch| latch.name == name).cloned()
    }

    /// What has not happened yet, in the order given at the start.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.iter().filter(|latch| !latch.set.load(Ordering::Acquire)).map(|latch| latch.name).collect()
    }
}

impl Latch {
    /// It has happened; it cannot be undone.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_until_it_is_set() {
        let readiness = Readiness::new(&["programs attached", "first scrape"]);
        assert_eq!(readiness.missing(), ["programs attached", "first scrape"]);
        readiness.clone().latch("programs attached").unwrap().set();
        assert_eq!(readiness.missing(), ["first scrape"]);
        assert!(readiness.latch("else").is_none());
    }
}
