//! What goes wrong in the demo: one node loses some of what it forwards, for some seconds of every minute.

use std::time::Duration;

use anyhow::Result;

use crate::node::Node;
use crate::place::Place as _;

/// Packets lost while it lasts.
pub(crate) const PERCENT: u32 = 2;

const PERIOD: Duration = Duration::from_mins(1);

/// The table of this name exists while packets are lost, and holds nothing else.
const ON: &str = "add table inet disturbance; add chain inet disturbance loss { type filter hook forward priority 0; }; \
                  add rule inet disturbance loss numgen random mod 100 < PERCENT counter drop";

const OFF: &str = "delete table inet disturbance";

/// When packets are lost, from the start of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

impl Schedule {
    /// From 20 to 30 s of each minute; in a demo of less than half a minute it is the second third.
    pub(crate) fn new(length: Option<Duration>) -> Self {
        let third = length.map_or(PERIOD, |length| length / 3);
        let from = third.min(Duration::from_secs(20));
        Self { from, to: from + third.min(Duration::from_secs(10)) }
    }

    /// Whether packets are to be lost now.
    pub(crate) fn active(self, elapsed: Duration) -> bool {
        let phase = Duration::new(elapsed.as_secs() % PERIOD.as_secs(), elapsed.subsec_nanos());
        (self.from..self.to).contains(&phase)
    }
}

/// The disturbed node, and whether it is disturbed now.
#[derive(Debug)]
pub(crate) struct Disturbance {
    node: Node,
    schedule: Schedule,
    on: bool,
}

impl Disturbance {
    pub(crate) fn new(node: Node, schedule: Schedule) -> Self {
        Self { node, schedule, on: false }
    }

    /// Turns the loss on or off when it is time; returns whether it is on.
    pub(crate) fn follow(&mut self, elapsed: Duration) -> Result<bool> {
        let wanted = self.schedule.active(elapsed);
        if wanted != self.on {
            let script = if wanted { ON.replace("PERCENT", &PERCENT.to_string()) } else { OFF.to_owned() };
            self.node.run(&["nft", &script])?;
            self.on = wanted;
        }
        Ok(self.on)
    }

    /// What happens when, in words.
    pub(crate) fn words(&self) -> String {
        let Schedule { from, to } = self.schedule;
        let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
        let state = if self.on { "now" } else { "not now" };
        format!(
            "{} drops {PERCENT} % of what it forwards, {from:.0} s to {to:.0} s of each minute: {state}",
            self.node.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(schedule: Schedule, seconds: u64) -> bool {
        schedule.active(Duration::from_secs(seconds))
    }

    #[test]
    fn an_endless_demo_is_disturbed_every_minute() {
        let schedule = Schedule::new(None);
        assert_eq!(
            [0, 19, 20, 29, 30, 79, 80, 90].map(|second| at(schedule, second)),
            [false, false, true, true, false, false, true, false]
        );
    }

    #[test]
    fn a_short_demo_is_disturbed_in_its_middle() {
        let schedule = Schedule::new(Some(Duration::from_secs(6)));
        assert_eq!([1, 2, 3, 4, 5].map(|second| at(schedule, second)), [false, true, true, false, false]);
    }

    #[test]
    fn a_demo_of_a_minute_is_disturbed_from_20_to_30_seconds() {
        let schedule = Schedule::new(Some(Duration::from_mins(1)));
        assert_eq!(schedule, Schedule { from: Duration::from_secs(20), to: Duration::from_secs(30) });
    }
}
