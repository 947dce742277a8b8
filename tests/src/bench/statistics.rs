//! Medians and quartiles.

use anyhow::{Result, ensure};

/// The middle of several measurements and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) samples: usize,
}

impl Spread {
    /// Quartiles of the measurements, interpolated linearly between neighbours.
    pub(super) fn of(measurements: &[f64]) -> Result<Self> {
        ensure!(!measurements.is_empty(), "nothing was measured");
        ensure!(measurements.iter().all(|value| value.is_finite()), "not a number: {measurements:?}");
        let mut sorted = measurements.to_vec();
        sorted.sort_by(f64::total_cmp);
        let [lower, median, upper] = [1, 2, 3].map(|quarters| quantile(&sorted, quarters));
        Ok(Self { median, lower, upper, samples: sorted.len() })
    }
}

/// The value below which that many quarters of the sorted, non-empty values lie.
fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    let position = (sorted.len() - 1) * quarters;
    let (index, rest) = (position / 4, position % 4);
    let next = sorted[(index + 1).min(sorted.len() - 1)];
    sorted[index] + (next - sorted[index]) * [0.0, 0.25, 0.5, 0.75][rest]
}

/// A count as a number to calculate with.
pub(super) fn number(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^53")]
    let number = count as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_an_odd_number() {
        let spread = Spread::of(&[5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!(spread, Spread { median: 3.0, lower: 2.0, upper: 4.0, samples: 5 });
    }

    #[test]
    fn quartiles_between_neighbours() {
        let spread = Spread::of(&[10.0, 20.0]).unwrap();
        assert_eq!(spread, Spread { median: 15.0, lower: 12.5, upper: 17.5, samples: 2 });
    }

    #[test]
    fn one_measurement_has_no_spread() {
        let spread = Spread::of(&[7.0]).unwrap();
        assert_eq!([spread.lower.to_bits(), spread.upper.to_bits()], [7.0_f64.to_bits(); 2]);
    }

    #[test]
    fn nothing_and_not_a_number_are_errors() {
        assert!(Spread::of(&[]).is_err());
        assert!(Spread::of(&[1.0, f64::NAN]).is_err());
    }
}
