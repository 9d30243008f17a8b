//! How long to wait before trying again: doubling, with a ceiling, no clock and no randomness.

use std::time::Duration;

/// Waits that double from `first` up to `longest`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits that begin with `first` and never pass `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.longest);
        wait
    }

    /// Begins again: something went well.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling_and_begin_again() {
        let milliseconds = Duration::from_millis;
        let mut backoff = Backoff::new(milliseconds(100), milliseconds(350));
        let waits = [
            backoff.wait(),
            backoff.wait(),
            backoff.wait(),
            backoff.wait(),
        ];
        assert_eq!(waits, [100, 200, 350, 350].map(milliseconds));
        backoff.reset();
        assert_eq!(backoff.wait(), milliseconds(100));
    }
}
