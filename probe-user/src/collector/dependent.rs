//! A collector whose labels follow something else: while that is not kept current, the collector is degraded.

use tokio::sync::watch;

use super::{CollectError, Collector, Support};
use crate::metric::Descriptor;
use crate::metric::sink::Sink;

/// The collector as it is, but for what it says of its support.
pub struct Dependent<C> {
    inner: C,
    is_current: watch::Receiver<bool>,
    reason: &'static str,
}

impl<C> Dependent<C> {
    /// `reason` is what is missing whenever `is_current` says false.
    #[must_use]
    pub fn new(inner: C, is_current: watch::Receiver<bool>, reason: &'static str) -> Self {
        Self { inner, is_current, reason }
    }
}

impl<C: Collector> Collector for Dependent<C> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        self.inner.descriptors()
    }

    fn support(&self) -> Support {
        match self.inner.support() {
            Support::Yes if !*self.is_current.borrow() => Support::Degraded(self.reason),
            // Its own reason is the graver one.
            own => own,
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        self.inner.collect(sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::unavailable::Unavailable;

    struct Whole;

    impl Collector for Whole {
        fn name(&self) -> &'static str {
            "whole"
        }
        fn descriptors(&self) -> &'static [&'static Descriptor] {
            &[]
        }
        fn support(&self) -> Support {
            Support::Yes
        }
        fn collect(&self, _: &mut Sink<'_>) -> Result<(), CollectError> {
            Ok(())
        }
    }

    #[test]
    fn support_follows_what_the_collector_depends_on() {
        let (sender, receiver) = watch::channel(true);
        let dependent = Dependent::new(Whole, receiver.clone(), "no classes");
        assert_eq!(dependent.support(), Support::Yes);
        sender.send_replace(false);
        assert_eq!(dependent.support(), Support::Degraded("no classes"));
        let none = Dependent::new(Unavailable::new("whole", "no programs"), receiver, "no classes");
        assert_eq!(none.support(), Support::No("no programs"));
        sender.send_replace(true);
        assert_eq!(dependent.support(), Support::Yes);
    }
}
