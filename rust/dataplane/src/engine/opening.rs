//! Opening ciphertexts without keeping the other clients of a worker waiting (T-05).
//!
//! What costs is a new ephemeral key: some 60 µs of ECDH for a hundred bytes of a body. So a session
//! has to ask before it derives keys, and gets leave for a slice of them at a time:
//!
//! - One slice a turn of the worker's event loop: whatever else is ready goes between two.
//! - The slices of all requests take no more than their share of the thread's processor time
//!   (`[limits] decrypt_cpu`, half when not set); over it they wait.
//! - The first slice of a request waits for those of others alone. A request that needs more of them
//!   queues, one at a time, behind others that do: so a request with a few keys is not behind those
//!   with a thousand, and what was begun is finished.
//! - Who has waited for [`PATIENCE`] is answered 503.
//!
//! Requests whose keys are in the cache never come here. What a ciphertext holds is not decided here.

mod caches;
mod purse;

use std::cell::RefCell;
use std::time::Duration;

use cloister_ciphertext::OpenSession;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

pub(crate) use caches::Caches;
pub(crate) use purse::Purse;

/// Keys of one slice: about a millisecond of one core.
pub(crate) const SLICE_KEYS: u32 = 16;
/// Slices of a request that do not queue behind long requests.
const FIRST_SLICES: u32 = 1;
/// Longest wait for one slice.
const PATIENCE: Duration = Duration::from_secs(1);

/// One worker's openings.
#[derive(Debug)]
pub(super) struct Opening {
    /// Whose slice it is.
    turn: Semaphore,
    /// Who may have more than its first slices.
    long: Semaphore,
    purse: RefCell<Purse>,
    begun: Instant,
}

/// Who has waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overloaded;

/// The openings of one request.
#[derive(Debug)]
pub(super) struct Job<'o> {
    opening: &'o Opening,
    slices: u32,
    long: Option<SemaphorePermit<'o>>,
}

impl Opening {
    /// Openings that take at most `percent` of the processor time of this thread.
    pub(super) fn new(percent: u8) -> Self {
        Self {
            turn: Semaphore::new(1),
            long: Semaphore::new(1),
            purse: RefCell::new(Purse::new(percent)),
            begun: Instant::now(),
        }
    }

    /// A request that has opened nothing.
    pub(super) fn job(&self) -> Job<'_> {
        Job {
            opening: self,
            slices: 0,
            long: None,
        }
    }
}

impl<'o> Job<'o> {
    /// Lets a session that is paused go on, slice by slice, until it is not; `resume` is called with
    /// leave for one slice.
    ///
    /// # Errors
    ///
    /// [`Overloaded`]; else what `resume` says.
    pub(super) async fn run<E: From<Overloaded>>(
        &mut self,
        session: &mut OpenSession<'_>,
        mut resume: impl FnMut(&mut OpenSession<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while session.is_paused() {
            // On the heap: a request that derives nothing has no room for it.
            let turn = Box::pin(self.turn()).await?;
            let before = thread_time();
            session.grant(SLICE_KEYS);
            let outcome = resume(session);
            session.withdraw();
            let cost = thread_time().saturating_sub(before);
            self.opening.purse.borrow_mut().spend(cost);
            // Others are served before the next slice begins, whoever's it is.
            tokio::task::yield_now().await;
            drop(turn);
            outcome?;
        }
        Ok(())
    }

    /// Others go first while this one waits for something else.
    pub(super) fn rest(&mut self) {
        self.long = None;
    }

    async fn turn(&mut self) -> Result<SemaphorePermit<'o>, Overloaded> {
        let opening = self.opening;
        if self.slices >= FIRST_SLICES && self.long.is_none() {
            self.long = Some(acquire(&opening.long).await?);
        }
        self.slices = self.slices.saturating_add(1);
        let turn = acquire(&opening.turn).await?;
        loop {
            let now = opening.begun.elapsed();
            let wait = opening.purse.borrow_mut().wait(now);
            if wait.is_zero() {
                return Ok(turn);
            }
            sleep(wait).await;
        }
    }
}

async fn acquire(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, Overloaded> {
    match timeout(PATIENCE, semaphore.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        // They are never closed.
        Ok(Err(_)) | Err(_) => Err(Overloaded),
    }
}

/// Processor time of this thread: what a busy neighbour takes does not count.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests;
