//! Keeps a feed open: one that breaks is replaced, with pauses that grow.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{NetlinkError, NetworkFeed, NetworkState};

/// Pause after the first failure.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// A feed that lived for this long was a good one: the pauses start over.
const STEADY: Duration = Duration::from_mins(1);

/// Follows the network's state for good. `feed` is the first attempt, which the caller has made because it knows what
/// its failure means at the start.
pub async fn keep_network(state: NetworkState, mut feed: Result<NetworkFeed, NetlinkError>) {
    let (mut backoff, mut is_lost) = (Backoff::default(), false);
    loop {
        let (error, lived) = match feed {
            Ok(feed) => {
                if std::mem::replace(&mut is_lost, false) {
                    tracing::info!("network state is followed again");
                }
                let opened = Instant::now();
                (feed.run().await, opened.elapsed())
            }
            Err(error) => (error, Duration::ZERO),
        };
        state.lost();
        log_loss(&error, std::mem::replace(&mut is_lost, true));
        sleep(backoff.after(lived)).await;
        feed = NetworkFeed::open(&state).await;
    }
}

/// Once, and not for every attempt.
fn log_loss(error: &NetlinkError, again: bool) {
    let err = error as &dyn std::error::Error;
    if again {
        tracing::debug!(err, "network state is still not followed");
    } else {
        tracing::warn!(err, "network state is not followed");
    }
}

/// How long to wait before the next attempt.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The pause after a feed that lived for this long; zero for one that could not be opened.
    fn after(&mut self, lived: Duration) -> Duration {
        let pause = if lived >= STEADY { FIRST } else { self.0 };
        self.0 = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn a_good_feed_starts_the_pauses_over() {
        let mut backoff = Backoff::default();
        for lived in [Duration::ZERO, Duration::from_secs(59)] {
            backoff.after(lived);
        }
        assert_eq!(backoff.after(STEADY), FIRST);
        assert_eq!(backoff.after(Duration::ZERO), FIRST * 2);
    }
}
