//! When HEALTHCHECK is run and what its results amount to: Docker's rules (moby `daemon/health.go`,
//! `monitor` and `handleProbeResult`, v25 and newer), as a pure function of durations since the start.
//!
//! NOTE: one deviation. Docker waits for a whole interval, 30 s by default, before it asks for the
//! first time, and an enclave takes no traffic before its process is healthy. So until the first
//! failure that counts could happen in Docker, the command is also asked early, again and again; such
//! a run can find the process healthy and can never find it unhealthy.

use std::time::Duration;

use cloister_wire::process::CommandCheck;

/// From the start of the process to the first run; doubled from run to run.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The course of one run of the user process.
#[derive(Debug, Clone)]
pub struct Course {
    interval: Duration,
    start_interval: Duration,
    /// Failures before this time do not count while the process was never healthy.
    counts_from: Duration,
    retries: u32,
    early_pause: Duration,
    verdict: Option<bool>,
    failures: u32,
}

impl Course {
    /// Of a process that starts.
    pub fn new(check: &CommandCheck) -> Self {
        let time = |ms: u32| Duration::from_millis(ms.into());
        let (interval, start_period) = (time(check.interval_ms), time(check.start_period_ms));
        Self {
            interval,
            start_interval: time(check.start_interval_ms),
            counts_from: if start_period.is_zero() {
                interval
            } else {
                start_period
            },
            retries: check.retries,
            early_pause: FIRST_PAUSE,
            verdict: None,
            failures: 0,
        }
    }

    /// Whether the process is healthy; `None`: not known yet.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// The pause before the next run, `elapsed` after the start of the process.
    pub fn pause(&mut self, elapsed: Duration) -> Duration {
        let left = self.counts_from.saturating_sub(elapsed);
        if self.verdict.is_some() || left.is_zero() {
            return self.interval;
        }
        let pause = self.early_pause.min(self.start_interval);
        self.early_pause = pause.saturating_mul(2);
        // So that the first run that counts is where Docker's is.
        pause.min(left)
    }

    /// Takes the result of a run that began `began` after the start of the process.
    pub fn observe(&mut self, is_well: bool, began: Duration) {
        if is_well {
            self.failures = 0;
            self.verdict = Some(true);
        } else if self.verdict.is_some() || began >= self.counts_from {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.retries {
                self.verdict = Some(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn course(start_period_ms: u32) -> Course {
        Course::new(&CommandCheck {
            argv: vec!["/check".to_owned()],
            interval_ms: 30_000,
            timeout_ms: 30_000,
            start_period_ms,
            start_interval_ms: 5_000,
            retries: 3,
        })
    }

    /// Runs that take no time, all failing: when each begins, up to the verdict.
    fn failing(course: &mut Course) -> Vec<Duration> {
        let mut at = Duration::ZERO;
        let mut begun = Vec::new();
        while course.verdict() != Some(false) {
            at = at.saturating_add(course.pause(at));
            course.observe(false, at);
            begun.push(at);
        }
        begun
    }

    /// Docker asks at 30, 60 and 90 s, and says unhealthy then; asking early changes nothing of it.
    #[test]
    fn a_process_that_never_answers_is_unhealthy_when_docker_says_so() {
        let begun = failing(&mut course(0));
        assert_eq!(begun[begun.len() - 3..], [30, 60, 90].map(seconds));
        assert_eq!(begun[0], FIRST_PAUSE);
        assert!(begun.len() < 16, "{begun:?}");
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let begun = failing(&mut course(60_000));
        assert_eq!(begun[begun.len() - 3..], [60, 90, 120].map(seconds));
        let steps = begun.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        let longest = steps.take(begun.len() - 3).max().unwrap();
        assert_eq!(longest, seconds(5));
    }

    #[test]
    fn one_success_is_healthy_at_any_time_and_failures_count_from_then_on() {
        let mut course = course(60_000);
        course.observe(false, seconds(1));
        assert_eq!(course.verdict(), None);
        course.observe(true, seconds(2));
        assert_eq!(course.verdict(), Some(true));
        assert_eq!(course.pause(seconds(2)), seconds(30));
        for at in [32, 62] {
            course.observe(false, seconds(at));
            assert_eq!(course.verdict(), Some(true));
        }
        course.observe(false, seconds(92));
        assert_eq!(course.verdict(), Some(false));
        course.observe(true, seconds(122));
        assert_eq!(course.verdict(), Some(true));
        course.observe(false, seconds(152));
        assert_eq!(course.verdict(), Some(true));
    }

    /// `--retries=1` is what a strict image says; the first failure after health decides.
    #[test]
    fn a_single_retry_decides_at_once() {
        let mut course = course(0);
        course.retries = 1;
        course.observe(false, seconds(29));
        assert_eq!(course.verdict(), None);
        course.observe(false, seconds(30));
        assert_eq!(course.verdict(), Some(false));
    }
}
