//! What a sample holds beside its labels.

/// A sample value; integers are written exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// An exact count.
    Integer(u64),
    /// Anything else.
    Float(f64),
}

/// A histogram as a collector reads it.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<'a> {
    /// Upper bounds without +Inf, ascending.
    pub bounds: &'a [f64],
    /// Observations per bucket, **not** cumulative; one more than `bounds`, the last for +Inf.
    pub counts: &'a [u64],
    /// Sum of all observations.
    pub sum: f64,
}
