//! What becomes of series above the cap: one running sum per family.

use super::sample::{Buckets, Value};

/// The sum of everything that was folded into the `other` series of a family.
#[derive(Debug, Default)]
pub(super) enum Fold {
    /// Nothing was folded.
    #[default]
    Empty,
    /// A counter or gauge.
    Value(Value),
    /// A histogram.
    Histogram {
        /// Upper bounds, those of the first histogram that was folded.
        bounds: Vec<f64>,
        /// Observations per bucket.
        counts: Vec<u64>,
        /// Sum of all observations.
        sum: f64,
    },
}

impl Fold {
    /// Adds a counter or gauge sample. Saturates: a total that wrapped would look like a restart.
    pub(super) fn add_value(&mut self, value: Value) {
        *self = Self::Value(match self {
            Self::Value(sum) => add(*sum, value),
            _ => value,
        });
    }

    /// Adds a histogram; `false` when its buckets are not those of the ones before.
    pub(super) fn add_histogram(&mut self, buckets: &Buckets<'_>) -> bool {
        let Self::Histogram { bounds, counts, sum } = self else {
            *self = Self::Histogram {
                bounds: buckets.bounds.to_vec(),
                counts: buckets.counts.to_vec(),
                sum: buckets.sum,
            };
            return true;
        };
        if bounds != buckets.bounds || counts.len() != buckets.counts.len() {
            return false;
        }
        for (total, count) in counts.iter_mut().zip(buckets.counts) {
            *total = total.saturating_add(*count);
        }
        *sum += buckets.sum;
        true
    }
}

fn add(left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Integer(left), Value::Integer(right)) => Value::Integer(left.saturating_add(right)),
        _ => Value::Float(float(left) + float(right)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sum with a float is a float, as precise as one can be")]
fn float(value: Value) -> f64 {
    match value {
        Value::Integer(number) => number as f64,
        Value::Float(number) => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_exact_and_saturate() {
        let mut fold = Fold::default();
        fold.add_value(Value::Integer(9_007_199_254_740_992));
        fold.add_value(Value::Integer(1));
        assert!(matches!(fold, Fold::Value(Value::Integer(9_007_199_254_740_993))));
        fold.add_value(Value::Integer(u64::MAX));
        assert!(matches!(fold, Fold::Value(Value::Integer(u64::MAX))));
    }

    #[test]
    fn a_float_makes_the_sum_a_float() {
        let mut fold = Fold::default();
        fold.add_value(Value::Integer(2));
        fold.add_value(Value::Float(0.5));
        assert!(matches!(fold, Fold::Value(Value::Float(sum)) if (sum - 2.5).abs() < f64::EPSILON));
    }

    #[test]
    fn histograms_of_other_bounds_are_refused() {
        let mut fold = Fold::default();
        assert!(fold.add_histogram(&Buckets { bounds: &[1.0], counts: &[2, 3], sum: 4.0 }));
        assert!(fold.add_histogram(&Buckets { bounds: &[1.0], counts: &[10, 20], sum: 0.5 }));
        assert!(!fold.add_histogram(&Buckets { bounds: &[2.0], counts: &[1, 1], sum: 1.0 }));
        let Fold::Histogram { counts, sum, .. } = fold else { panic!("not a histogram") };
        assert_eq!(counts, [12, 23]);
        assert!((sum - 4.5).abs() < f64::EPSILON);
    }
}
