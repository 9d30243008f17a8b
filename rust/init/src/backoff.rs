//! How long a process that ended stays down: 100 ms, doubled each time up to 30 s, and from the start
//! again once it has run for a minute.

use std::time::Duration;

/// First pause.
pub const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
pub const LONGEST: Duration = Duration::from_secs(30);
/// A process that ran this long is taken for healthy.
pub const RESET_AFTER: Duration = Duration::from_secs(60);

/// The pauses of one process.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The pause before the next start, after a run of `ran_for`.
    pub fn pause(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= RESET_AFTER {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_good_run() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..11)
            .map(|_| backoff.pause(Duration::ZERO).as_millis())
            .collect();
        let expected = [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000,
        ];
        assert_eq!(pauses, expected);
        let just_short = RESET_AFTER.saturating_sub(Duration::from_millis(1));
        assert_eq!(backoff.pause(just_short), LONGEST);
        assert_eq!(backoff.pause(RESET_AFTER), FIRST);
        assert_eq!(backoff.pause(Duration::ZERO), FIRST.saturating_mul(2));
    }
}
