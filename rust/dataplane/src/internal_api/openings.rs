//! The one thread on which the internal API opens ciphertexts.
//!
//! What clients send is opened by the workers, which bound each other (`engine::opening`); what the
//! user process sends is opened here, one call at a time, so that it takes none of their time. The
//! thread is bounded as a worker is: new ephemeral keys take at most `[limits] decrypt_cpu` of its
//! processor time, in slices. Beside that it runs with a lower priority: on a busy processor the
//! workers go first. Who waits for too long is told so (503).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use cloister_ciphertext::{
    Keyring, OpenError, OpenPolicy, OpenSession, PIECE_BYTES, Place, ScanError, ScanLimits,
    Scanner, SealError, check_json, make_room, open_file, room_for,
};
use cloister_wire::config::EnclaveConfig;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::engine::opening::{Caches, Purse, SLICE_KEYS, thread_time};
use crate::live::Live;

/// Calls that wait at once.
pub(super) const QUEUE_LENGTH: usize = 64;
/// Longest wait for the processor time of a call, from when it was asked for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often derived keys are looked through when nothing is asked.
const EXPIRY: Duration = Duration::from_secs(1);
/// Priority of the thread among those of the enclave, as of nice(1).
const NICE: i32 = 10;

/// Why something was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Unopened {
    #[error("{0}")]
    Document(#[from] ScanError),
    #[error("{0}")]
    File(#[from] OpenError),
    #[error("there are no app keys at the moment")]
    NoKeys,
    #[error("{0}")]
    NotJson(SealError),
    #[error("more ciphertexts with new ephemeral keys than there is processor time for")]
    Overloaded,
    #[error("the thread that opens has ended")]
    Stopped,
}

/// Sends calls to the thread, which ends when this is dropped.
pub(crate) struct Openings {
    queue: SyncSender<Job>,
}

type Job = Box<dyn FnOnce(&mut Opener) + Send>;
type Outcome = Result<Zeroizing<Vec<u8>>, Unopened>;
/// Clear text, and the room that was given with its ciphertext.
type Roomy<R> = (Zeroizing<Vec<u8>>, R);

impl Openings {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread to give.
    pub(crate) fn start(live: Arc<ArcSwap<Live>>, config: &EnclaveConfig) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE_LENGTH);
        let limits = &config.limits;
        let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (percent, policy) = (
            limits.decrypt_cpu,
            OpenPolicy {
                dangerous_accept_debug: config.debug,
                distinct_keys: limits.distinct_keys_per_request,
            },
        );
        let limits = ScanLimits {
            max_file: size(limits.max_file),
            max_token: size(limits.max_token),
        };
        std::thread::Builder::new()
            .name("openings".to_owned())
            .spawn(move || {
                let mut opener = Opener {
                    live,
                    caches: Caches::default(),
                    purse: Purse::new(percent),
                    begun: Instant::now(),
                    policy,
                    limits,
                };
                serve(&waiting, &mut opener);
            })?;
        Ok(Self { queue })
    }

    /// Opens the ciphertexts in a JSON document. `room` is what it takes of the memory for what is held;
    /// it goes with the document, and comes back with the clear text: who hangs up gives it back when
    /// the document is let go, not before.
    ///
    /// # Errors
    ///
    /// [`Unopened`].
    pub(super) async fn document<R: Send + 'static>(
        &self,
        document: Bytes,
        room: R,
    ) -> Result<Roomy<R>, Unopened> {
        let open = move |opener: &mut Opener, keyring: &Arc<Keyring>, patience| {
            opener.document(&document, keyring, patience)
        };
        self.call(open, room).await
    }

    /// Opens an encrypted file; `room` as for a document.
    ///
    /// # Errors
    ///
    /// [`Unopened`].
    pub(super) async fn file<R: Send + 'static>(
        &self,
        file: Vec<u8>,
        room: R,
    ) -> Result<Roomy<R>, Unopened> {
        let open = move |opener: &mut Opener, keyring: &Arc<Keyring>, patience| {
            opener.file(&file, keyring, patience)
        };
        self.call(open, room).await
    }

    async fn call<R: Send + 'static>(
        &self,
        open: impl FnOnce(&mut Opener, &Arc<Keyring>, Instant) -> Outcome + Send + 'static,
        room: R,
    ) -> Result<Roomy<R>, Unopened> {
        let (answer, answered) = oneshot::channel();
        let patience = Instant::now().checked_add(PATIENCE);
        let patience = patience.ok_or(Unopened::Overloaded)?;
        let job = Box::new(move |opener: &mut Opener| {
            if answer.is_closed() {
                return;
            }
            let live = opener.live.load_full();
            let keyring = live.keyring.as_ref().ok_or(Unopened::NoKeys);
            let outcome = keyring.and_then(|keyring| open(opener, keyring, patience));
            // The caller may have gone; then nobody wants it.
            drop(answer.send(outcome.map(|clear| (clear, room))));
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Disconnected(_) => Unopened::Stopped,
            TrySendError::Full(_) => Unopened::Overloaded,
        })?;
        answered.await.unwrap_or(Err(Unopened::Stopped))
    }
}

impl fmt::Debug for Openings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Openings").finish_non_exhaustive()
    }
}

fn serve(waiting: &Receiver<Job>, opener: &mut Opener) {
    // Where the system does not permit it, the share of processor time is the only bound.
    let _unless_refused = rustix::process::setpriority_process(None, NICE);
    loop {
        match waiting.recv_timeout(EXPIRY) {
            Ok(job) => job(opener),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        opener.forget_old_keys();
    }
}

/// What lives on the thread.
struct Opener {
    live: Arc<ArcSwap<Live>>,
    caches: Caches,
    purse: Purse,
    begun: Instant,
    policy: OpenPolicy,
    limits: ScanLimits,
}

impl Opener {
    fn document(&mut self, document: &[u8], keyring: &Arc<Keyring>, patience: Instant) -> Outcome {
        check_json(document).map_err(Unopened::NotJson)?;
        let cache = self.caches.of(Some(keyring));
        let mut session = OpenSession::shared(&cache, self.policy);
        let mut scanner = Scanner::new(Place::Json, self.limits);
        let mut clear = room_for(document);
        for piece in document.chunks(PIECE_BYTES) {
            make_room(&mut clear, scanner.held().saturating_add(piece.len()));
            scanner.push(piece, &mut clear, &mut session)?;
            while session.is_paused() {
                self.slice(&mut session, patience, |session| {
                    scanner.resume(&mut clear, session).map_err(Unopened::from)
                })?;
            }
        }
        scanner.finish(&mut clear, &mut session)?;
        while session.is_paused() {
            self.slice(&mut session, patience, |session| {
                let ended = scanner.finish(&mut clear, session);
                ended.map(|_| ()).map_err(Unopened::from)
            })?;
        }
        Ok(clear)
    }

    fn file(&mut self, file: &[u8], keyring: &Arc<Keyring>, patience: Instant) -> Outcome {
        let cache = self.caches.of(Some(keyring));
        let mut session = OpenSession::shared(&cache, self.policy);
        let mut outcome = open_file(file, &mut session);
        while outcome == Err(OpenError::Paused) {
            self.slice(&mut session, patience, |session| {
                outcome = open_file(file, session);
                Ok(())
            })?;
        }
        Ok(outcome?)
    }

    /// Waits for processor time and lets a session that is paused derive a slice of keys.
    fn slice(
        &mut self,
        session: &mut OpenSession<'_>,
        patience: Instant,
        resume: impl FnOnce(&mut OpenSession<'_>) -> Result<(), Unopened>,
    ) -> Result<(), Unopened> {
        loop {
            let wait = self.purse.wait(self.begun.elapsed());
            if wait.is_zero() {
                break;
            }
            let ready = Instant::now().checked_add(wait);
            if ready.is_none_or(|ready| ready > patience) {
                return Err(Unopened::Overloaded);
            }
            std::thread::sleep(wait);
        }
        let before = thread_time();
        session.grant(SLICE_KEYS);
        let outcome = resume(session);
        session.withdraw();
        self.purse.spend(thread_time().saturating_sub(before));
        outcome
    }

    fn forget_old_keys(&self) {
        let live = self.live.load();
        self.caches
            .expire(live.keyring.as_ref(), self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests;
