//! A share of a thread's processor time: earned as time passes, spent afterwards.

use std::time::Duration;

/// What may be spent at once after a pause. Small beside a second, so that the share holds in every
/// second.
const MOST: Duration = Duration::from_millis(50);

/// What was earned and not spent, or spent and not earned.
#[derive(Debug)]
pub(crate) struct Purse {
    percent: i64,
    /// Nanoseconds of processor time; below zero: debt.
    level: i64,
    /// When it was last earned for.
    at: Duration,
}

impl Purse {
    /// A full one, at the time zero.
    pub(crate) fn new(percent: u8) -> Self {
        Self {
            percent: i64::from(percent.clamp(1, 100)),
            level: nanos(MOST),
            at: Duration::ZERO,
        }
    }

    /// How long nothing may be spent at the time `now`.
    pub(crate) fn wait(&mut self, now: Duration) -> Duration {
        let passed = nanos(now.saturating_sub(self.at));
        self.at = self.at.max(now);
        let earned = passed.saturating_mul(self.percent) / 100;
        self.level = self.level.saturating_add(earned).min(nanos(MOST));
        if self.percent == 100 || self.level > 0 {
            return Duration::ZERO;
        }
        let needed = self.level.saturating_neg().saturating_add(1);
        let wait = needed
            .saturating_mul(100)
            .checked_div(self.percent)
            .unwrap_or(i64::MAX);
        Duration::from_nanos(u64::try_from(wait.saturating_add(100)).unwrap_or(0))
    }

    /// Takes what was spent.
    pub(crate) fn spend(&mut self, cost: Duration) {
        self.level = self.level.saturating_sub(nanos(cost));
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Spends a millisecond whenever it may, and gives what was spent in each second.
    fn spent(percent: u8, seconds: u64) -> Vec<usize> {
        let mut purse = Purse::new(percent);
        let (mut now, mut spent) = (Duration::ZERO, Vec::new());
        while now.as_secs() < seconds {
            let wait = purse.wait(now);
            if wait.is_zero() {
                purse.spend(MS);
                spent.push(now.as_secs());
            }
            now = now.saturating_add(if wait.is_zero() { MS } else { wait });
        }
        let of = |second| spent.iter().filter(|spent| **spent == second).count();
        (0..seconds).map(of).collect()
    }

    #[test]
    fn a_share_holds_in_every_second() {
        for percent in [10, 50, 90] {
            let share = usize::from(percent) * 10;
            for (second, spent) in spent(percent, 10).into_iter().enumerate() {
                let most = share + if second == 0 { 51 } else { 2 };
                assert!((share - 2..=most).contains(&spent), "{percent}: {spent}");
            }
        }
        assert_eq!(spent(100, 2), [1000, 1000]);
    }

    #[test]
    fn a_pause_saves_no_more_than_a_little() {
        let mut purse = Purse::new(50);
        purse.spend(MOST);
        assert!(!purse.wait(Duration::ZERO).is_zero());
        assert!(purse.wait(Duration::from_secs(3600)).is_zero());
        purse.spend(MOST);
        let wait = purse.wait(Duration::from_secs(3600));
        assert!(!wait.is_zero() && wait < MS, "{wait:?}");
        // The debt of one long slice is paid before the next.
        purse.spend(MS * 10);
        let wait = purse.wait(Duration::from_secs(3600));
        assert!((MS * 20..MS * 21).contains(&wait), "{wait:?}");
    }
}
