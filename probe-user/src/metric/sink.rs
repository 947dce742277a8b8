//! Where collectors put samples: a writer that renders them at once, so that nothing is materialised twice.

use super::Descriptor;

/// The target of one collection.
#[derive(Debug)]
pub struct Sink<'a> {
    out: &'a mut Vec<u8>,
}

/// A sample value; integers are written exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// An exact count.
    Integer(u64),
    /// Anything else.
    Float(f64),
}

/// One family being written.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut Vec<u8>,
    descriptor: &'static Descriptor,
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

impl Sink<'_> {
    /// Starts a family. All samples of a family are written through one call of this.
    pub fn family(&mut self, descriptor: &'static Descriptor) -> Family<'_> {
        Family { out: self.out, descriptor }
    }
}

impl Family<'_> {
    /// Writes a counter or gauge sample; `labels` in the order of the descriptor.
    pub fn value(&mut self, labels: &[&str], value: Value) {
        let _ = (labels, value, &self.out, self.descriptor);
    }

    /// Writes a histogram sample.
    pub fn histogram(&mut self, labels: &[&str], buckets: &Buckets<'_>) {
        let _ = (labels, buckets);
    }
}
