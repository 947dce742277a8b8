//! What is news about a component that is well or not. Pure: observations with their times in, turns out.
//!
//! Once told, a trouble ends with the first good answer. If it comes back within ten minutes, good answers must go on
//! for two seconds before the end is told, and twice as long each time: what flaps is told once a minute at most.

use std::time::Duration;

use super::state::Moment;

/// How long what came back must be well before that is told.
const HOLD: [Duration; 2] = [Duration::from_secs(2), Duration::from_mins(1)];
/// After so long without trouble the next one is a first one.
const CALM: Duration = Duration::from_mins(10);

/// What an observation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is well.
    Good,
    /// It may not be: a second such sign in a row makes it certain.
    Doubtful,
    /// It is not.
    Bad,
}

/// A trouble that was opened, or closed after so long. With the time of the first sign of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) at: Moment,
    pub(super) lasted: Option<Duration>,
}

/// A trouble, open or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    since: Option<Moment>,
    /// The first sign in a row of the contrary.
    doubt: Option<Moment>,
    hold: Duration,
    ended: Option<Duration>,
}

impl Trouble {
    pub(super) fn observe(&mut self, sign: Sign, at: Moment) -> Option<Turn> {
        match (self.since, sign) {
            (None, Sign::Good) | (Some(_), Sign::Bad | Sign::Doubtful) => {
                self.doubt = None;
                None
            }
            (None, Sign::Doubtful) if self.doubt.is_none() => {
                self.doubt = Some(at);
                None
            }
            (None, _) => Some(self.open(self.doubt.unwrap_or(at))),
            (Some(since), Sign::Good) => {
                let first = *self.doubt.get_or_insert(at);
                (at.now.saturating_sub(first.now) >= self.hold).then(|| self.close(since, first))
            }
        }
    }

    fn open(&mut self, at: Moment) -> Turn {
        let is_again = self.ended.is_some_and(|ended| at.now.saturating_sub(ended) < CALM);
        let [least, most] = HOLD;
        self.hold = if is_again { (self.hold * 2).clamp(least, most) } else { Duration::ZERO };
        self.since = Some(at);
        self.doubt = None;
        Turn { at, lasted: None }
    }

    fn close(&mut self, since: Moment, at: Moment) -> Turn {
        self.since = None;
        self.doubt = None;
        self.ended = Some(at.now);
        Turn { at, lasted: Some(at.now.saturating_sub(since.now)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    fn at(milliseconds: u64) -> Moment {
        Moment {
            now: Duration::from_millis(milliseconds),
            time: Timestamp::from_unix_nanos(milliseconds * 1_000_000),
        }
    }

    fn opened(milliseconds: u64) -> Turn {
        Turn { at: at(milliseconds), lasted: None }
    }

    #[test]
    fn one_bad_sign_is_enough_and_a_doubtful_one_is_not() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.observe(Sign::Bad, at(1)), Some(opened(1)));
        let mut trouble = Trouble::default();
        assert_eq!(trouble.observe(Sign::Doubtful, at(1)), None);
        assert_eq!(trouble.observe(Sign::Good, at(2)), None);
        assert_eq!(trouble.observe(Sign::Doubtful, at(3)), None);
        assert_eq!(trouble.observe(Sign::Doubtful, at(4)), Some(opened(3)));
        assert_eq!(trouble.observe(Sign::Bad, at(5)), None);
    }

    #[test]
    fn the_first_good_sign_ends_a_first_trouble() {
        let mut trouble = Trouble::default();
        trouble.observe(Sign::Bad, at(1_000));
        let turn = trouble.observe(Sign::Good, at(4_000));
        assert_eq!(turn, Some(Turn { at: at(4_000), lasted: Some(Duration::from_secs(3)) }));
    }

    #[test]
    fn what_flaps_is_told_ever_more_rarely() {
        let mut trouble = Trouble::default();
        let told = (0..3_600_u64).filter(|second| {
            // Ten seconds well, one not.
            let sign = if second % 11 == 0 { Sign::Bad } else { Sign::Good };
            trouble.observe(sign, at(second * 1_000)).is_some()
        });
        let told: Vec<u64> = told.collect();
        assert!(told.len() <= 9, "{told:?}");
        // It is well for good: told after a hold, with the time of the first good answer.
        let turn = (3_600..3_700).find_map(|second| trouble.observe(Sign::Good, at(second * 1_000)));
        assert!(turn.is_some_and(|turn| turn.lasted.is_some()), "{turn:?}");
        // And after a calm it is as at first.
        assert_eq!(trouble.observe(Sign::Bad, at(9_000_000)), Some(opened(9_000_000)));
        assert!(trouble.observe(Sign::Good, at(9_001_000)).is_some());
    }
}
