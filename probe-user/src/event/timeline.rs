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

/// What earlier runs of the agent have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Their newest events, ascending; there may be gaps where one could not be read.
    pub events: VecDeque<Event>,
    /// The last number that is known to have been given out, which may be that of an event that could not be read.
    pub last: u64,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    /// Events after the sequence asked for, ascending.
    pub events: Vec<Event>,
    /// What to ask for next.
    pub next: u64,
    /// Events after the sequence asked for that were overwritten before this reader came.
    ///
    /// Also those that could not be read back from the file of an earlier run.
    pub lost: u64,
}

impl Timeline {
    /// An empty timeline. `lost` counts events that a reader who was following found overwritten.
    #[must_use]
    pub fn new(capacity: usize, lost: IntCounter) -> Self {
        Self::resume(capacity, lost, Earlier::default())
    }

    /// A timeline that goes on after what earlier runs of the agent have left.
    #[must_use]
    pub fn resume(capacity: usize, lost: IntCounter, earlier: Earlier) -> Self {
        let capacity = capacity.max(1);
        let mut ring = earlier.events;
        ring.drain(..ring.len().saturating_sub(capacity));
        let last = ring.back().map_or(0, |event| event.sequence).max(earlier.last);
        Self { ring: Mutex::new(ring), capacity, last: watch::Sender::new(last), lost }
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
        let (position, page) = self.after(sequence, limit);
        if position > 0 {
            // Who asks from the start was not there when the ring wrapped, and has lost nothing.
            self.lost.inc_by(page.lost);
        }
        page
    }

    /// The same for a reader inside the agent, whose losses are counted elsewhere.
    pub(super) fn peek(&self, sequence: u64, limit: usize) -> Page {
        self.after(sequence, limit).1
    }

    /// The page, and the position that it follows.
    fn after(&self, sequence: u64, limit: usize) -> (u64, Page) {
        let ring = self.lock();
        let newest = *self.last.borrow();
        let position = if sequence > newest { 0 } else { sequence };
        let skip = ring.partition_point(|event| event.sequence <= position);
        let events: Vec<Event> = ring.iter().skip(skip).take(limit).cloned().collect();
        drop(ring);
        let next = events.last().map_or(newest, |event| event.sequence);
        // All numbers up to the next position that no event of the page has: overwritten, or a gap of the file.
        let lost = (next - position).saturating_sub(events.len() as u64);
        (position, Page { events, next, lost })
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
    use crate::event::{Details, Kind, Timestamp};

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

    fn earlier(sequences: &[u64], last: u64) -> Earlier {
        let event = |&sequence| Event {
            sequence,
            time: Timestamp::from_unix_nanos(sequence),
            kind: Kind::PodStarted,
            subject: "pod".to_owned(),
            details: Details::new(),
        };
        Earlier { events: sequences.iter().map(event).collect(), last }
    }

    fn resumed(capacity: usize, earlier: Earlier) -> Timeline {
        Timeline::resume(capacity, IntCounter::new("lost", "lost").unwrap(), earlier)
    }

    #[test]
    fn numbers_go_on_after_those_of_an_earlier_run() {
        let timeline = resumed(10, earlier(&[7, 8], 8));
        record(&timeline, 1);
        let page = timeline.since(0, 10);
        assert_eq!((sequences(&page), page.next, page.lost), (vec![7, 8, 9], 9, 6));
        let page = timeline.since(8, 10);
        assert_eq!((sequences(&page), page.next, page.lost), (vec![9], 9, 0));
    }

    #[test]
    fn a_gap_of_the_file_is_told_to_who_follows_across_it() {
        let timeline = resumed(10, earlier(&[3, 6], 8));
        record(&timeline, 1);
        let page = timeline.since(3, 1);
        assert_eq!((sequences(&page), page.next, page.lost), (vec![6], 6, 2));
        let page = timeline.since(4, 10);
        assert_eq!((sequences(&page), page.next, page.lost), (vec![6, 9], 9, 3));
        assert_eq!(timeline.since(6, 10).lost, 2);
    }

    #[test]
    fn of_an_earlier_run_as_much_is_kept_as_fits() {
        let timeline = resumed(2, earlier(&[1, 2, 3], 3));
        assert_eq!(sequences(&timeline.since(0, 10)), [2, 3]);
        record(&timeline, 1);
        assert_eq!(sequences(&timeline.since(0, 10)), [3, 4]);
    }

    #[test]
    fn a_reader_inside_the_agent_counts_its_losses_itself() {
        let timeline = timeline(3);
        record(&timeline, 8);
        assert_eq!(timeline.peek(2, 10).lost, 3);
        assert_eq!(timeline.lost.get(), 0);
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
