//! Attestation documents that bind the TLS key: the cached one, and fresh ones with a nonce.
//!
//! The document of a TLS key is kept for five minutes, so that clients cost the NSM nothing. A
//! nonce asks for a new one; requests for the same nonce share it, and at most
//! [`MAX_FRESH_WAITING`] are made at once, because the NSM serves under a thousand a second
//! (data-plane.md §4, T-07). What a document proves is for its verifier to say.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use cloister_nsm::{DocumentRequest, NsmProvider};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::nsm_thread::{NsmCallError, NsmThread};

/// Makes and keeps documents. Shared by all workers.
pub struct Documents {
    nsm: NsmThread,
    shared: Arc<Shared>,
}

/// Why there is no document.
#[non_exhaustive]
#[derive(Clone, Debug, Error)]
pub enum DocumentError {
    /// Too many are being made: 503, try again in a second.
    #[error("too many attestation documents are being made")]
    Busy,
    /// The NSM failed: 503.
    #[error("no attestation document: {0}")]
    Failed(#[source] NsmCallError),
}

struct Shared {
    clock: Arc<dyn Clock>,
    kept: ArcSwap<Vec<Kept>>,
    underway: Mutex<HashMap<Wanted, Answer>>,
}

/// A document that is kept, by the key that it binds.
#[derive(Clone)]
struct Kept {
    spki: Arc<[u8]>,
    document: Arc<[u8]>,
    made_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Wanted {
    spki: Arc<[u8]>,
    nonce: Option<Vec<u8>>,
}

type Outcome = Option<Result<Arc<[u8]>, DocumentError>>;
type Answer = watch::Receiver<Outcome>;

impl Documents {
    /// Documents of the NSM behind `nsm`.
    pub fn new(nsm: NsmThread, clock: Arc<dyn Clock>) -> Self {
        Self {
            nsm,
            shared: Arc::new(Shared {
                clock,
                kept: ArcSwap::from_pointee(Vec::new()),
                underway: Mutex::default(),
            }),
        }
    }

    /// The document whose `user_data` is `spki`, the DER `SubjectPublicKeyInfo` of the TLS leaf of
    /// a connection: raw `COSE_Sign1`, at most [`MAX_AGE`] old.
    ///
    /// # Errors
    ///
    /// [`DocumentError`].
    pub async fn current(&self, spki: &Arc<[u8]>) -> Result<Arc<[u8]>, DocumentError> {
        if let Some(document) = self.shared.kept(spki) {
            return Ok(document);
        }
        self.made(Wanted {
            spki: Arc::clone(spki),
            nonce: None,
        })
        .await
    }

    /// A new document as [`Self::current`], with `nonce` in it.
    ///
    /// # Errors
    ///
    /// [`DocumentError`].
    pub async fn fresh(
        &self,
        spki: &Arc<[u8]>,
        nonce: Vec<u8>,
    ) -> Result<Arc<[u8]>, DocumentError> {
        self.made(Wanted {
            spki: Arc::clone(spki),
            nonce: Some(nonce),
        })
        .await
    }

    async fn made(&self, wanted: Wanted) -> Result<Arc<[u8]>, DocumentError> {
        let mut answer = self.answer(&wanted)?;
        let outcome = timeout(DEADLINE, answer.wait_for(Option::is_some)).await;
        match outcome {
            Ok(Ok(outcome)) => match &*outcome {
                Some(result) => result.clone(),
                None => Err(DocumentError::Failed(NsmCallError::Stopped)),
            },
            Ok(Err(_dropped)) => Err(DocumentError::Failed(NsmCallError::Stopped)),
            Err(_elapsed) => Err(DocumentError::Failed(NsmCallError::Deadline)),
        }
    }

    /// Joins a document that is being made, or has one made.
    fn answer(&self, wanted: &Wanted) -> Result<Answer, DocumentError> {
        let mut underway = self.shared.underway();
        if let Some(answer) = underway.get(wanted) {
            return Ok(answer.clone());
        }
        // The document without a nonce always has room: the NSM's own queue is longer.
        if wanted.nonce.is_some() && underway.len() >= MAX_FRESH_WAITING {
            return Err(DocumentError::Busy);
        }
        let (result, answer) = watch::channel(None);
        let job = Underway {
            shared: Arc::clone(&self.shared),
            wanted: wanted.clone(),
            result,
        };
        underway.insert(wanted.clone(), answer.clone());
        drop(underway);
        self.nsm
            .submit(move |nsm| job.make(nsm))
            .map_err(|error| match error {
                NsmCallError::Busy => DocumentError::Busy,
                other => DocumentError::Failed(other),
            })?;
        Ok(answer)
    }
}

impl Shared {
    fn kept(&self, spki: &Arc<[u8]>) -> Option<Arc<[u8]>> {
        let now_ms = self.clock.now_ms();
        let max_age_ms = u64::try_from(MAX_AGE.as_millis()).unwrap_or(u64::MAX);
        let kept = self.kept.load();
        kept.iter()
            .find(|kept| Arc::ptr_eq(&kept.spki, spki) || kept.spki == *spki)
            .filter(|kept| now_ms.saturating_sub(kept.made_ms) < max_age_ms)
            .map(|kept| Arc::clone(&kept.document))
    }

    fn keep(&self, fresh: &Kept) {
        self.kept.rcu(|kept| {
            let others = kept.iter().filter(|other| other.spki != fresh.spki);
            let mut next = vec![fresh.clone()];
            next.extend(others.take(MAX_KEPT.saturating_sub(1)).cloned());
            next
        });
    }

    fn underway(&self) -> MutexGuard<'_, HashMap<Wanted, Answer>> {
        // The map is whole after every statement, so a panic elsewhere leaves nothing half done.
        self.underway
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A document that is being made. It leaves the list when it is dropped, made or not.
struct Underway {
    shared: Arc<Shared>,
    wanted: Wanted,
    result: watch::Sender<Outcome>,
}

impl Underway {
    fn make(self, nsm: &dyn NsmProvider) {
        let made_ms = self.shared.clock.now_ms();
        let request = DocumentRequest {
            user_data: Some(self.wanted.spki.to_vec()),
            nonce: self.wanted.nonce.clone(),
            public_key: None,
        };
        let outcome = match nsm.attestation_document(&request) {
            Ok(document) => {
                let document: Arc<[u8]> = document.into();
                if self.wanted.nonce.is_none() {
                    self.shared.keep(&Kept {
                        spki: Arc::clone(&self.wanted.spki),
                        document: Arc::clone(&document),
                        made_ms,
                    });
                }
                Ok(document)
            }
            Err(error) => {
                tracing::warn!(%error, "the NSM gave no attestation document");
                Err(DocumentError::Failed(NsmCallError::Nsm(Arc::new(error))))
            }
        };
        self.result.send_replace(Some(outcome));
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.shared.underway().remove(&self.wanted);
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Documents").finish_non_exhaustive()
    }
}

/// Age at which the document of a key is made anew (data-plane.md §4).
pub const MAX_AGE: Duration = Duration::from_secs(300);
/// Documents with a nonce that are made at once; half of the NSM's queue.
pub const MAX_FRESH_WAITING: usize = 32;
/// Keys whose document is kept: connections of the last certificates live on after a change.
const MAX_KEPT: usize = 4;
/// Longest wait for a document.
const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
