//! Times. The kernel stamps its records with `CLOCK_MONOTONIC`; people and logs use UTC. A record is converted once,
//! when it enters the timeline, and never again: later steps of the wall clock must not move old events.

use std::fmt;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A moment in UTC, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment that many nanoseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_nanos(self) -> u64 {
        self.0
    }

    /// Reads a time of RFC 3339 with any offset and up to nine digits of a second, as programs in Go write it; `None` for
    /// any other text, and for a time before 1970.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked("2026-01-02T03:04:05".len())?;
        let whole = parse(&format!("{date}.000000000Z"))?.0;
        let (fraction, offset) = rest.split_at(rest.find(['Z', '+', '-'])?);
        let digits = fraction.strip_prefix('.').unwrap_or("0");
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || digits.len() > 9 {
            return None;
        }
        let nanos: u64 = format!("{digits:0<9}").parse().ok()?;
        let local = whole.checked_add(nanos)?;
        if offset == "Z" {
            return Some(Self(local));
        }
        let (ahead, distance) = offset.split_at(1);
        let (hours, minutes) = distance.split_once(':').filter(|_| distance.len() == 5)?;
        let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
        let distance = minutes * 60 * NANOS_PER_SECOND;
        let nanos = if ahead == "+" { local.checked_sub(distance) } else { local.checked_add(distance) };
        nanos.map(Self)
    }

    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self(read(ClockId::CLOCK_REALTIME))
    }
}

/// RFC 3339 in UTC with nine digits of a second, so that texts sort like times.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / NANOS_PER_SECOND;
        let (year, month, day) = date_of(seconds / 86_400);
        let of_day = seconds % 86_400;
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        let nanos = self.0 % NANOS_PER_SECOND;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Only what [`Timestamp`] writes is read: it is for our own files.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a time such as 2026-01-02T03:04:05.000000006Z")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_str(Text)
    }
}

/// Reads a time in the form in which it is written; `None` for any other text.
fn parse(text: &str) -> Option<Timestamp> {
    let number = |from: usize, length: usize| -> Option<u64> {
        let digits = text.get(from..from + length)?;
        // `parse` would take a sign.
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let days = days_before(number(0, 4)?, number(5, 2)?, number(8, 2)?)?;
    let of_day = (number(11, 2)? * 60 + number(14, 2)?) * 60 + number(17, 2)?;
    let nanos = (days * 86_400 + of_day).checked_mul(NANOS_PER_SECOND)?.checked_add(number(20, 9)?)?;
    let time = Timestamp(nanos);
    // Writing it again checks the separators, the length, and that every number is in its range.
    (time.to_string() == text).then_some(time)
}

/// Days from 1970-01-01 to a date.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let years: u64 = (1970..year).map(days_in).sum();
    let months: u64 = months_of(year).into_iter().take(usize::try_from(month.checked_sub(1)?).ok()?).sum();
    Some(years + months + day.checked_sub(1)?)
}

fn months_of(year: u64) -> [u64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// The Gregorian date of a day counted from 1970-01-01.
fn date_of(mut day: u64) -> (u64, u64, u64) {
    // 400 years always have the same number of days, which keeps the loop short.
    let mut year = 1970 + 400 * (day / 146_097);
    day %= 146_097;
    while day >= days_in(year) {
        day -= days_in(year);
        year += 1;
    }
    let mut month = 1;
    for days in months_of(year) {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month, day + 1)
}

fn days_in(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// The relation of the kernel's monotonic clock to UTC at one moment.
///
/// Sample it when a batch of records is read: the wall clock may have been stepped, and the monotonic clock stands
/// still while the machine is suspended, so an old sample gives wrong times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// UTC minus monotonic.
    offset: i128,
    error: u64,
}

impl Clock {
    /// Reads both clocks, one between two readings of the other. The tightest of a few tries counts: a thread that is
    /// preempted in between would shift every event of the batch.
    #[must_use]
    pub fn sample() -> Self {
        let mut best = Self::read_once();
        for _ in 0..4 {
            let next = Self::read_once();
            if next.error < best.error {
                best = next;
            }
        }
        best
    }

    fn read_once() -> Self {
        let before = read(ClockId::CLOCK_MONOTONIC);
        let wall = read(ClockId::CLOCK_REALTIME);
        let after = read(ClockId::CLOCK_MONOTONIC);
        Self::bracket(before, wall, after)
    }

    fn bracket(before: u64, wall: u64, after: u64) -> Self {
        let error = after.saturating_sub(before).div_ceil(2);
        let middle = i128::from(before) + i128::from(after.saturating_sub(before) / 2);
        Self { offset: i128::from(wall) - middle, error }
    }

    /// UTC of a monotonic time in nanoseconds, as `bpf_ktime_get_ns` gives it.
    #[must_use]
    pub fn to_utc(&self, monotonic_nanos: u64) -> Timestamp {
        let nanos = i128::from(monotonic_nanos) + self.offset;
        Timestamp(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }

    /// How far off the conversion can be, in nanoseconds.
    #[must_use]
    pub const fn error_nanos(&self) -> u64 {
        self.error
    }
}

/// Reads a clock; these two exist on every Linux, so the error branch is never taken.
fn read(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        let [seconds, nanos] =
            [time.tv_sec(), time.tv_nsec()].map(|part| u64::try_from(part).unwrap_or_default());
        seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64) -> String {
        Timestamp::from_unix_nanos(seconds * NANOS_PER_SECOND + 5).to_string()
    }

    #[test]
    fn times_of_other_programs_are_read() {
        let read = |text| Timestamp::from_rfc3339(text).map(Timestamp::unix_nanos);
        let noon = 1_700_000_000 * NANOS_PER_SECOND;
        for (text, nanos) in [
            ("2023-11-14T22:13:20Z", noon),
            ("2023-11-14T22:13:20.5Z", noon + 500_000_000),
            ("2023-11-14T22:13:20.123456789Z", noon + 123_456_789),
            ("2023-11-15T00:13:20.000000001+02:00", noon + 1),
            ("2023-11-14T18:43:20-03:30", noon),
        ] {
            assert_eq!(read(text), Some(nanos), "{text}");
        }
        for text in [
            "",
            "0001-01-01T00:00:00Z",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.1234567890Z",
            "2023-11-14T22:13:20.x5Z",
            "2023-13-14T22:13:20Z",
            "2023-11-14T22:13:20+2:00",
            "2023-11-14T22:13:20Z ",
            "1970-01-01T00:00:00+01:00",
            "2023-11-14T22:13:2\u{e9}Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn dates_across_leap_years() {
        let cases = [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (17_179_869_183, "2514-05-30T01:53:03"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(text(seconds), format!("{expected}.000000005Z"));
            let time = Timestamp::from_unix_nanos(seconds * NANOS_PER_SECOND + 5);
            assert_eq!(parse(&text(seconds)), Some(time), "{expected}");
        }
    }

    #[test]
    fn only_the_form_that_is_written_is_read() {
        for text in [
            "",
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05.00000006Z",
            "2026-01-02T03:04:05.000000006",
            "2026-01-02T03:04:05.000000006Zx",
            "2026-01-02 03:04:05.000000006Z",
            "2026-02-29T03:04:05.000000006Z",
            "2026-13-02T03:04:05.000000006Z",
            "2026-00-02T03:04:05.000000006Z",
            "2026-01-00T03:04:05.000000006Z",
            "2026-01-02T24:04:05.000000006Z",
            "2026-01-02T03:60:05.000000006Z",
            "1969-12-31T23:59:59.000000000Z",
            "9999-12-31T23:59:59.000000000Z",
            "+026-01-02T03:04:05.000000006Z",
            "20\u{e9}6-01-02T03:04:05.00000000Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_offset_is_taken_at_the_middle_of_the_bracket() {
        let clock = Clock::bracket(1_000, 50_000, 1_300);
        assert_eq!(clock.to_utc(1_150), Timestamp::from_unix_nanos(50_000));
        assert_eq!(clock.error_nanos(), 150);
    }

    #[test]
    fn a_time_before_the_epoch_stays_at_the_epoch() {
        assert_eq!(Clock::bracket(1_000, 10, 1_000).to_utc(5), Timestamp::from_unix_nanos(0));
    }

    #[test]
    fn a_sample_of_this_machine_agrees_with_its_wall_clock() {
        let before = Timestamp::now();
        let converted = Clock::sample().to_utc(read(ClockId::CLOCK_MONOTONIC));
        let after = Timestamp::now();
        let slack = 1_000_000;
        assert!(converted.unix_nanos() + slack >= before.unix_nanos());
        assert!(converted.unix_nanos() <= after.unix_nanos() + slack);
    }
}
