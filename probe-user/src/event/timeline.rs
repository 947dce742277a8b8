//! The ring that holds the newest events. Memory is bounded by its capacity; a reader that comes too late is told how
//! many events it missed.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus::IntCounter;
use serde::Serialize;
use tokio::sync::watch;

use super::{Event, Occurrence};

/// Events kept in memory unless configured otherwise.
pub const DEFAULT_CAPACITY: usize = 4_096;

/// The ordered events of this node. Shared through an `Arc`.
#[derive(Debug)]
pub struct Timeline {
    ring: Mutex<VecDeque<Event>>,
    capacity: usize,
    /// Sequence of the newest event; what waiting readers sleep on.
    last: watch::Sender<u64>,
    lost: IntCounter,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    /// Events after the sequence asked for, ascending.
    pub events: Vec<Event>,
    /// What to ask for next.
    pub next: u64,
    /// Events after the sequence asked for that were overwritten before this reader came.
    pub lost: u64,
}

impl Timeline {
    /// An empty timeline. `lost` counts events that a reader who was following found overwritten.
    #[must_use]
    pub fn new(capacity: usize, lost: IntCounter) -> Self {
        let capacity = capacity.max(1);
        Self { ring: Mutex::new(VecDeque::new()), capacity, last: watch::Sender::new(0), lost }
    }

    /// Appends an event, overwriting the oldest when the ring is full, and returns its sequence.
    pub fn record(&self, occurrence: Occurrence) -> u64 {
        let mut ring = self.lock();
        let sequence = *self.last.borrow() + 1;
        if ring.len() >= self.capacity {
            ring.pop_front();
        }
        let Occurrence { time, kind, subject, details } = occurrence;
        ring.push_back(Event { sequence, time, kind, subject, details });
        // Under the lock, so that a woken reader finds the event and sequences are announced in order.
        self.last.send_replace(sequence);
        sequence
    }

    /// At most `limit` events after `sequence`; 0 asks for everything that is still there.
    ///
    /// A sequence that was never given out comes from an earlier run of the agent, and is treated as 0.
    #[must_use]
    pub fn since(&self, sequence: u64, limit: usize) -> Page {
        let ring = self.lock();
        let newest = *self.last.borrow();
        let position = if sequence > newest { 0 } else { sequence };
        let oldest = ring.front().map_or(newest + 1, |event| event.sequence);
        let lost = oldest.saturating_sub(position + 1);
        let skip = usize::try_from((position + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let events: Vec<Event> = ring.iter().skip(skip).take(limit).cloned().collect();
        drop(ring);
        if position > 0 {
            // Who asks from the start was not there when the ring wrapped, and has lost nothing.
            self.lost.inc_by(lost);
        }
        let next = events.last().map_or(position, |event| event.sequence);
        Page { events, next, lost }
    }

    /// Sequence of the newest event, 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Returns once [`since`](Self::since) has something for a reader at `sequence`.
    pub async fn wait_beyond(&self, sequence: u64) {
        let mut last = self.last.subscribe();
        // The newest sequence below the reader's means that the reader knows an earlier run: it must start over.
        // The sender lives in self, so waiting cannot fail.
        let _seen = last.wait_for(|last| *last != sequence && *last > 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::event::Kind;

    fn timeline(capacity: usize) -> Timeline {
        Timeline::new(capacity, IntCounter::new("lost", "lost").unwrap())
    }

    fn record(timeline: &Timeline, count: usize) {
        for n in 0..count {
            timeline.record(Occurrence::now(Kind::PodStarted, format!("pod-{n}")));
        }
    }

    fn sequences(page: &Page) -> Vec<u64> {
        page.events.iter().map(|event| event.sequence).collect()
    }

    #[test]
    fn an_empty_timeline_has_nothing_and_lost_nothing() {
        assert_eq!(timeline(4).since(0, 10), Page { events: Vec::new(), next: 0, lost: 0 });
    }

    #[test]
    fn pages_follow_each_other() {
        let timeline = timeline(10);
        record(&timeline, 5);
        let first = timeline.since(0, 3);
        assert_eq!((sequences(&first), first.next, first.lost), (vec![1, 2, 3], 3, 0));
        let second = timeline.since(first.next, 3);
        assert_eq!((sequences(&second), second.next, second.lost), (vec![4, 5], 5, 0));
        let third = timeline.since(second.next, 3);
        assert_eq!((sequences(&third), third.next, third.lost), (vec![], 5, 0));
    }

    #[test]
    fn a_follower_that_is_too_late_learns_how_much_it_missed() {
        let timeline = timeline(3);
        record(&timeline, 8);
        let page = timeline.since(2, 10);
        assert_eq!((sequences(&page), page.lost), (vec![6, 7, 8], 3));
        assert_eq!(timeline.lost.get(), 3);
    }

    #[test]
    fn a_new_reader_does_not_count_as_a_loss() {
        let timeline = timeline(3);
        record(&timeline, 8);
        assert_eq!(timeline.since(0, 10).lost, 5);
        assert_eq!(timeline.lost.get(), 0);
    }

    #[test]
    fn a_sequence_of_an_earlier_run_starts_over() {
        let timeline = timeline(3);
        record(&timeline, 2);
        assert_eq!(sequences(&timeline.since(900, 10)), [1, 2]);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_next_event() {
        let timeline = Arc::new(timeline(3));
        record(&timeline, 1);
        timeline.wait_beyond(0).await;
        let early = tokio::time::timeout(Duration::from_millis(20), timeline.wait_beyond(1)).await;
        assert!(early.is_err());
        let waiting = tokio::spawn({
            let timeline = timeline.clone();
            async move { timeline.wait_beyond(1).await }
        });
        record(&timeline, 1);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    }

    #[test]
    fn parallel_writers_leave_no_gap() {
        let timeline = timeline(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| record(&timeline, 200));
            }
        });
        assert_eq!(sequences(&timeline.since(0, 1_000)), (1..=800).collect::<Vec<_>>());
    }
}
