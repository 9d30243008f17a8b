//! A deadline for every wait of a connection, at the price of a timer for the longest of them.
//!
//! Most waits are over long before their deadline, so the timer is not moved for each: it is left to
//! fire at an earlier one, and then set to the deadline that counts.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Deadlines of waits that follow each other.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    /// Fires at the deadline of this wait or of an earlier one.
    timer: Option<Pin<Box<Sleep>>>,
    end: Option<Instant>,
}

/// The deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elapsed;

impl Deadline {
    /// Waits for `future`, for at most `limit`.
    pub(super) async fn within<F: Future>(
        &mut self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        self.end = None;
        self.wait(limit, future).await
    }

    /// As [`Self::within`], with what is left of the limit that the last wait was given.
    pub(super) async fn still_within<F: Future>(
        &mut self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        self.wait(limit, future).await
    }

    /// The next [`Self::still_within`] has its whole limit.
    pub(super) fn forget(&mut self) {
        self.end = None;
    }

    async fn wait<F: Future>(&mut self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            // The clock is read only when there is something to wait for.
            let end = *self.end.get_or_insert_with(|| after(limit));
            self.poll_at(context, end).map(|()| Err(Elapsed))
        })
        .await
    }

    /// Ready at `end`; the timer is left where it is when that moves further away.
    pub(super) fn poll_at(&mut self, context: &mut Context<'_>, end: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

fn after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    async fn elapsed(deadline: &mut Deadline, limit_ms: u64) -> u128 {
        let begun = Instant::now();
        let limit = Duration::from_millis(limit_ms);
        assert_eq!(deadline.within(limit, pending::<()>()).await, Err(Elapsed));
        begun.elapsed().as_millis()
    }

    fn paused<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(test)
    }

    /// A timer left at an earlier deadline must not end a later wait, nor a later one an earlier.
    #[test]
    fn each_wait_ends_at_its_own_deadline() {
        paused(async {
            let mut deadline = Deadline::default();
            for limit_ms in [100, 5_000, 10, 1_000, 1_000, 0, 70] {
                let took = elapsed(&mut deadline, limit_ms).await;
                assert!(
                    (u128::from(limit_ms)..=u128::from(limit_ms).saturating_add(2)).contains(&took),
                    "{limit_ms}: {took}"
                );
            }
        });
    }

    #[test]
    fn what_is_ready_in_time_is_given_and_costs_no_timer() {
        paused(async {
            let mut deadline = Deadline::default();
            let limit = Duration::from_millis(100);
            assert_eq!(deadline.within(limit, async { 7 }).await, Ok(7));
            assert!(deadline.timer.is_none());
            let nap = tokio::time::sleep(Duration::from_millis(50));
            assert_eq!(deadline.within(limit, nap).await, Ok(()));
        });
    }

    /// A peer that sends a byte now and then does not prolong the time that it has for a whole.
    #[test]
    fn what_is_left_of_a_limit_is_not_more_than_the_limit() {
        paused(async {
            let mut deadline = Deadline::default();
            let limit = Duration::from_millis(100);
            let begun = Instant::now();
            deadline.forget();
            let nap = || tokio::time::sleep(Duration::from_millis(40));
            assert_eq!(deadline.still_within(limit, nap()).await, Ok(()));
            assert_eq!(deadline.still_within(limit, nap()).await, Ok(()));
            assert_eq!(deadline.still_within(limit, nap()).await, Err(Elapsed));
            assert!(begun.elapsed().as_millis() <= 102);
        });
    }
}
