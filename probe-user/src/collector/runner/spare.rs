//! Memory for pages. New memory costs nearly as much as writing a page into it, so the last page's is kept.

use std::sync::{Mutex, PoisonError};

/// More than this is not kept: a page of 60,000 series has 7 MB.
const KEPT: usize = 8 << 20;

/// Memory that no page uses now.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<u8>>);

impl Spare {
    /// An empty buffer, with memory if there is some.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes back the memory of a page that nobody reads any more.
    pub(super) fn put(&self, mut page: Vec<u8>) {
        let used = page.len();
        page.clear();
        if page.capacity() / 2 > used {
            // There were once more series; what they needed is not kept for ever.
            page.shrink_to(used + used / 16);
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if page.capacity() <= KEPT && page.capacity() > kept.capacity() {
            *kept = page;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(used: usize, capacity: usize) -> Vec<u8> {
        let mut page = Vec::with_capacity(capacity);
        page.resize(used, b'x');
        page
    }

    #[test]
    fn the_next_page_has_the_memory_of_the_last() {
        let spare = Spare::default();
        spare.put(page(1_000, 1_500));
        let next = spare.take();
        assert!(next.is_empty() && next.capacity() >= 1_500);
        assert_eq!(spare.take().capacity(), 0, "two pages at once have two buffers");
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let spare = Spare::default();
        spare.put(page(1_000, 100_000));
        assert!(spare.take().capacity() < 3_000);
        spare.put(page(KEPT + 1, KEPT + 1));
        assert_eq!(spare.take().capacity(), 0);
    }
}
