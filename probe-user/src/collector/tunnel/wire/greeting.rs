//! Whether data comes back from an address, by the handshakes alone that `WireGuard` makes with it.
//!
//! Who has sent data and hears nothing for 15 s makes a new handshake, and goes on so while there is data (white paper,
//! 6.5: 10 s for a keepalive of the other end, 5 s for the handshake); else one lasts for 120 s. So handshakes that
//! follow each other closely and are all answered mean that data is lost, on the way there or back, and nothing else
//! is. Either end may begin them: each handshake makes both wait anew. No packet of data needs to be looked at.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::collector::vip::happening::Nanos;

const SECOND: Nanos = 1_000_000_000;
/// So many answered handshakes within [`WITHIN`] mean that data is lost; two in a row happen on relays.
const MANY: usize = 3;
/// See [`MANY`].
const WITHIN: Nanos = 60 * SECOND;
/// Handshakes that are remembered: those of several daemons behind this node's address, which all may speak with one peer.
const MOST: usize = 16;

/// The last handshakes with an address that were answered.
#[derive(Debug, Default)]
pub(super) struct Greetings {
    /// Of which own address and port, and when.
    recent: VecDeque<(SocketAddr, Nanos)>,
    /// Whether data is lost, once there was a handshake.
    is_one_way: Option<bool>,
}

impl Greetings {
    /// A handshake with this node's daemon at that address and port is answered.
    pub(super) fn answered(&mut self, own: SocketAddr, now: Nanos) {
        self.recent.push_back((own, now));
        if self.recent.len() > MOST {
            self.recent.pop_front();
        }
        self.is_one_way.get_or_insert(false);
    }

    /// Whether data is lost from now on, or no more.
    pub(super) fn judge(&mut self, now: Nanos) -> Option<bool> {
        self.recent.retain(|(_, at)| now.saturating_sub(*at) < WITHIN);
        let count = |own: &SocketAddr| self.recent.iter().filter(|(other, _)| other == own).count();
        let is_one_way = self.recent.iter().any(|(own, _)| count(own) >= MANY);
        let before = self.is_one_way.as_mut()?;
        (std::mem::replace(before, is_one_way) != is_one_way).then_some(is_one_way)
    }

    /// Somebody who knows better speaks of it.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether data is lost; none before the first handshake.
    pub(super) const fn is_one_way(&self) -> Option<bool> {
        self.is_one_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(port: u16) -> SocketAddr {
        SocketAddr::new([192, 0, 2, 1].into(), port)
    }

    /// When it was told that data is lost, and that it is no more, with handshakes at these seconds from these ports.
    fn told(greetings: &[(u64, u16)], until: u64) -> Vec<(u64, bool)> {
        let mut state = Greetings::default();
        let judged = (0..until).filter_map(|second| {
            for (_, port) in greetings.iter().filter(|(at, _)| *at == second) {
                state.answered(own(*port), second * SECOND);
            }
            state.judge(second * SECOND).map(|is_one_way| (second, is_one_way))
        });
        judged.collect()
    }

    #[test]
    fn a_handshake_every_two_minutes_and_two_in_a_row_are_usual() {
        let usual: Vec<_> = (0..10).map(|number| (number * 120, 1)).collect();
        assert_eq!(told(&usual, 1_300), []);
        assert_eq!(told(&[(0, 1), (5, 1), (125, 1), (130, 1)], 300), []);
    }

    #[test]
    fn a_handshake_every_fifteen_seconds_is_lost_data_until_they_cease() {
        let lost: Vec<_> = (1..=6).map(|number| (number * 15, 1)).collect();
        // The third one, and a minute after the last but two.
        assert_eq!(told(&lost, 300), [(45, true), (120, false)]);
    }

    #[test]
    fn daemons_behind_one_address_have_handshakes_of_their_own() {
        let each: Vec<_> = (1..=5).map(|port| (u64::from(port), port)).collect();
        assert_eq!(told(&each, 100), []);
    }

    #[test]
    fn before_the_first_handshake_nothing_is_known() {
        let mut state = Greetings::default();
        assert_eq!((state.judge(SECOND), state.is_one_way()), (None, None));
        state.answered(own(1), SECOND);
        assert_eq!((state.judge(SECOND), state.is_one_way()), (None, Some(false)));
        state.forget();
        assert_eq!(state.is_one_way(), None);
    }
}
