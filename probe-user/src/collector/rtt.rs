//! Round trips in buckets, the same ones for every kind of probe.

use crate::metric::Buckets;

/// Upper bounds in seconds: 2^-14 to 4, by 4.
pub(super) const BOUNDS: [f64; 9] = [
    0.000_061_035_156_25,
    0.000_244_140_625,
    0.000_976_562_5,
    0.003_906_25,
    0.015_625,
    0.062_5,
    0.25,
    1.0,
    4.0,
];

/// Round trips.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RoundTrips {
    /// Not cumulative, the last for everything above.
    counts: [u64; BOUNDS.len() + 1],
    /// In seconds.
    sum: f64,
}

impl RoundTrips {
    /// Adds one.
    pub(super) fn observe(&mut self, seconds: f64) {
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
    }

    /// Adds all of the others.
    pub(super) fn add(&mut self, others: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(others.counts) {
            *mine += theirs;
        }
        self.sum += others.sum;
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// For the page.
    pub(super) const fn buckets(&self) -> Buckets<'_> {
        Buckets { bounds: &BOUNDS, counts: &self.counts, sum: self.sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_first_bucket_that_is_not_below_it() {
        let mut trips = RoundTrips::default();
        for seconds in [0.000_01, 0.000_061_035_156_25, 0.000_1, 4.0, 4.1] {
            trips.observe(seconds);
        }
        let mut more = RoundTrips::default();
        more.observe(1.0);
        trips.add(&more);
        assert_eq!(trips.counts, [2, 1, 0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(trips.count(), 6);
        assert!((trips.sum - 9.100_171_035_156_25).abs() < 1e-12, "{}", trips.sum);
    }
}
