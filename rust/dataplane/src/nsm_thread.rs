//! The one thread that talks to the NSM.
//!
//! Every call blocks for milliseconds and the module serves one at a time, so calls queue here and
//! never on a thread that moves bytes. The queue is bounded: when it is full the caller is told at
//! once.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use cloister_nsm::{NsmError, NsmProvider};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Sends calls to the thread. Cheap to clone; the thread ends when the last one is dropped.
#[derive(Clone)]
pub struct NsmThread {
    queue: Queue,
}

#[derive(Clone)]
enum Queue {
    /// Calls are made by the caller: virtual time stands still while it waits for a real thread.
    #[cfg(test)]
    Caller(Arc<dyn NsmProvider>),
    Thread(SyncSender<Job>),
}

type Job = Box<dyn FnOnce(&dyn NsmProvider) + Send>;

/// Why a call has no answer.
#[non_exhaustive]
#[derive(Clone, Debug, Error)]
pub enum NsmCallError {
    /// [`QUEUE_LENGTH`] calls wait already.
    #[error("the NSM is busy")]
    Busy,
    /// No answer within [`CALL_DEADLINE`].
    #[error("the NSM did not answer in time")]
    Deadline,
    /// The module refused or failed.
    #[error("{0}")]
    Nsm(Arc<NsmError>),
    /// The thread ended, because a call panicked.
    #[error("the NSM thread has ended")]
    Stopped,
}

impl NsmThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread to give.
    pub fn start(nsm: Arc<dyn NsmProvider>) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(QUEUE_LENGTH);
        std::thread::Builder::new()
            .name("nsm".to_owned())
            .spawn(move || serve(&waiting, &*nsm))?;
        Ok(Self {
            queue: Queue::Thread(jobs),
        })
    }

    /// Makes every call on the thread that asks for it.
    #[cfg(test)]
    pub(crate) fn on_caller(nsm: Arc<dyn NsmProvider>) -> Self {
        Self {
            queue: Queue::Caller(nsm),
        }
    }

    /// Queues `job` and does not wait for it.
    ///
    /// # Errors
    ///
    /// [`NsmCallError::Busy`] or [`NsmCallError::Stopped`]; `job` is then dropped.
    pub fn submit(
        &self,
        job: impl FnOnce(&dyn NsmProvider) + Send + 'static,
    ) -> Result<(), NsmCallError> {
        match &self.queue {
            #[cfg(test)]
            Queue::Caller(nsm) => {
                job(&**nsm);
                Ok(())
            }
            Queue::Thread(jobs) => jobs.try_send(Box::new(job)).map_err(|error| match error {
                TrySendError::Disconnected(_) => NsmCallError::Stopped,
                TrySendError::Full(_) => NsmCallError::Busy,
            }),
        }
    }

    /// Makes one call and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`NsmCallError`].
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn NsmProvider) -> Result<T, NsmError> + Send + 'static,
    ) -> Result<T, NsmCallError> {
        let (answer, answered) = oneshot::channel();
        self.submit(move |nsm| {
            // The caller may have given up; then nobody wants the answer.
            drop(answer.send(call(nsm)));
        })?;
        match timeout(CALL_DEADLINE, answered).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(NsmCallError::Nsm(Arc::new(error))),
            Ok(Err(_dropped)) => Err(NsmCallError::Stopped),
            Err(_elapsed) => Err(NsmCallError::Deadline),
        }
    }
}

impl fmt::Debug for NsmThread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NsmThread").finish_non_exhaustive()
    }
}

fn serve(waiting: &Receiver<Job>, nsm: &dyn NsmProvider) {
    while let Ok(job) = waiting.recv() {
        job(nsm);
    }
}

/// Calls that wait at once; the NSM serves under a thousand a second.
pub const QUEUE_LENGTH: usize = 64;
/// Longest wait for an answer, the queue included.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);
