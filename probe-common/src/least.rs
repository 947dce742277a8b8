//! The least round trip of the last 10 to 20 seconds, in two words: one window each, at its number modulo 2.

/// Nanoseconds in which the least round trip is looked for, once and again.
pub const WINDOW: u64 = 10_000_000_000;

/// A window's number and a round trip of it in one word, so that neither is ever seen without the other.
#[must_use]
pub const fn least_word(window: u32, microseconds: u32) -> u64 {
    (window as u64) << 32 | microseconds as u64
}

/// Number of the window of a time.
#[must_use]
pub const fn window(nanoseconds: u64) -> u32 {
    (nanoseconds / WINDOW) as u32
}

/// The least round trip in microseconds of this window and the one before; `None`: there was no sample.
#[must_use]
pub fn least(words: [u64; 2], now: u64) -> Option<u32> {
    let current = window(now);
    let is_recent = |word: &u64| *word != 0 && current.wrapping_sub((word >> 32) as u32) <= 1;
    #[expect(clippy::cast_possible_truncation, reason = "the lower half of the word")]
    words.into_iter().filter(is_recent).map(|word| word as u32).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 7 * WINDOW + 1;

    #[test]
    fn the_least_is_that_of_this_window_and_the_one_before() {
        assert_eq!(least([least_word(6, 50), least_word(7, 80)], NOW), Some(50));
        assert_eq!(least([least_word(6, 90), least_word(7, 80)], NOW), Some(80));
        assert_eq!(least([least_word(5, 50), least_word(7, 80)], NOW), Some(80));
    }

    #[test]
    fn without_a_recent_sample_there_is_no_least() {
        assert_eq!(least([0, 0], 1), None);
        assert_eq!(least([0, 0], NOW), None);
        assert_eq!(least([least_word(5, 50), least_word(4, 50)], NOW), None);
    }

    #[test]
    fn windows_are_numbered_from_the_start_of_the_machine() {
        assert_eq!([0, WINDOW - 1, WINDOW, NOW].map(window), [0, 0, 1, 7]);
    }
}
