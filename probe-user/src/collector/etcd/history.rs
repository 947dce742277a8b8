//! Figures that need more than one answer: how fast a database grows, how slow the disk was in the last minute.
//! Pure: readings with their times in.

use std::collections::VecDeque;
use std::time::Duration;

use crate::source::etcd::Histogram;

/// How far back growth is looked at.
const GROWTH_SPAN: Duration = Duration::from_hours(1);
/// The least that says something of it.
const GROWTH_LEAST: Duration = Duration::from_mins(1);
/// Between two sizes that are remembered.
const GROWTH_STEP: Duration = Duration::from_secs(10);
/// What the disk is judged by.
const DISK_SPAN: Duration = Duration::from_mins(1);

/// Sizes of one database.
#[derive(Clone, Debug, Default)]
pub(super) struct Growth(VecDeque<(Duration, u64)>);

impl Growth {
    pub(super) fn add(&mut self, now: Duration, bytes: u64) {
        match self.0.back() {
            // A compaction with defragmentation begins a new history.
            Some((_, last)) if bytes < *last => self.0.clear(),
            Some((time, _)) if now.saturating_sub(*time) < GROWTH_STEP => return,
            _ => {}
        }
        self.0.push_back((now, bytes));
        while self.0.front().is_some_and(|(time, _)| now.saturating_sub(*time) > GROWTH_SPAN) {
            self.0.pop_front();
        }
    }

    /// Seconds until `quota` is used up if it goes on as in the last hour; nothing while the database does not grow.
    #[expect(clippy::cast_precision_loss, reason = "sizes in bytes are far below 2^52")]
    pub(super) fn time_to(&self, quota: u64) -> Option<f64> {
        let (&(began, first), &(ended, last)) = (self.0.front()?, self.0.back()?);
        let took = ended.saturating_sub(began);
        if took < GROWTH_LEAST || last <= first {
            return None;
        }
        Some(quota.saturating_sub(last) as f64 / ((last - first) as f64 / took.as_secs_f64()))
    }
}

/// Histograms of the last minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(VecDeque<(Duration, Histogram)>);

impl Disk {
    pub(super) fn add(&mut self, now: Duration, histogram: &Histogram) {
        let has_restarted = self.0.back().is_some_and(|(_, last)| {
            last.counts.len() != histogram.counts.len()
                || last.counts.iter().zip(&histogram.counts).any(|(before, after)| after < before)
        });
        if has_restarted {
            self.0.clear();
        }
        self.0.push_back((now, histogram.clone()));
        while self.0.front().is_some_and(|(time, _)| now.saturating_sub(*time) > DISK_SPAN) {
            self.0.pop_front();
        }
    }

    /// The 99th percentile of what the last minute added, in seconds: linear within its bucket, like Prometheus. What
    /// is above the last bound is that bound.
    #[expect(clippy::cast_precision_loss, reason = "a minute has fewer than 2^52 writes")]
    pub(super) fn percentile(&self, bounds: &[f64]) -> Option<f64> {
        let (first, last) = (&self.0.front()?.1, &self.0.back()?.1);
        let added: Vec<u64> =
            last.counts.iter().zip(&first.counts).map(|(after, before)| after - before).collect();
        let total: u64 = added.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = 0.99 * total as f64;
        let mut below = 0_f64;
        let mut lower = 0_f64;
        for (count, upper) in added.iter().zip(bounds) {
            let within = *count as f64;
            if below + within >= rank {
                return Some(lower + (upper - lower) * (rank - below) / within);
            }
            below += within;
            lower = *upper;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_database_that_grows_is_full_some_day() {
        let mut growth = Growth::default();
        growth.add(at(0), 1_000);
        assert_eq!(growth.time_to(10_000), None);
        for seconds in 1..=100 {
            growth.add(at(seconds), 1_000 + seconds * 10);
        }
        // 10 bytes a second, and the last size that was remembered is that of second 100.
        assert_eq!(growth.time_to(12_000), Some(1_000.0));
        assert_eq!(growth.0.len(), 11);
        assert_eq!(growth.time_to(1), Some(0.0));
        // After a defragmentation it grows from there.
        growth.add(at(200), 500);
        assert_eq!(growth.time_to(10_000), None);
        growth.add(at(300), 1_500);
        assert_eq!(growth.time_to(10_500), Some(900.0));
        growth.add(at(310), 500);
        for hour in 1..5 {
            growth.add(at(hour * 3_600), 500);
        }
        assert_eq!((growth.time_to(10_000), growth.0.len()), (None, 2));
    }

    #[test]
    fn the_disk_is_judged_by_its_last_minute() {
        let bounds = [0.001, 0.002, 0.004];
        let histogram = |counts: [u64; 4]| Histogram { counts: counts.to_vec(), sum: 0.0 };
        let mut disk = Disk::default();
        assert_eq!(disk.percentile(&bounds), None);
        disk.add(at(0), &histogram([9, 9, 9, 9]));
        assert_eq!(disk.percentile(&bounds), None);
        disk.add(at(1), &histogram([109, 9, 9, 9]));
        assert!((disk.percentile(&bounds).unwrap() - 0.00099).abs() < 1e-9);
        disk.add(at(2), &histogram([109, 9, 109, 9]));
        let slow = disk.percentile(&bounds).unwrap();
        assert!((0.0039..0.004).contains(&slow), "{slow}");
        disk.add(at(3), &histogram([109, 9, 109, 909]));
        assert_eq!(disk.percentile(&bounds), Some(0.004));
        disk.add(at(100), &histogram([110, 9, 109, 909]));
        assert_eq!(disk.percentile(&bounds), None);
        // A member that was started again counts from 0.
        disk.add(at(101), &histogram([1, 0, 0, 0]));
        assert_eq!(disk.0.len(), 1);
    }
}
