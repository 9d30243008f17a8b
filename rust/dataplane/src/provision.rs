//! Provisioning: how this boot gets its bundle, keeps it fresh and loses it (wire.md §3).
//!
//! [`session`] proves this boot to the platform and opens what comes back; [`adopt`] turns a bundle
//! into what requests are judged by. This file runs them: it begins a session, follows its renewals
//! by long poll, and when a bundle ends without one, drops the keys and begins again. The host in
//! between can delay all of this and change none of it; by withholding renewals it gets 503 answers
//! within 15 minutes and nothing else (T-08).

mod adopt;
mod entropy;
mod session;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use cloister_sealing::{BundleError, Sealer, Sharing};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::adopt::Adopted;
pub use self::adopt::Variables;
pub use self::entropy::SystemRandom;
use self::session::Session;
use crate::agent::{AgentApi, AgentError};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::live::{BUNDLE_ENDED, Identity, Live, Serving};
use crate::nsm_thread::{NsmCallError, NsmThread};
use crate::objects::Grant;

/// Why this boot has no bundle, or keeps the one it has.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// The host did not do its part.
    #[error("{0}")]
    Agent(#[from] AgentError),
    /// A bundle was refused.
    #[error("{0}")]
    Bundle(#[from] BundleError),
    /// No key of this boot could be made.
    #[error("cannot make the key of this boot: {0}")]
    BootKey(#[source] cloister_sealing::SealingError),
    /// An app key of the bundle is not a key.
    #[error("app key {position} of the bundle cannot be used")]
    Key {
        /// Its place in the bundle, from 0.
        position: usize,
    },
    /// The NSM did not do its part.
    #[error("{0}")]
    Nsm(#[from] NsmCallError),
    /// One of the NSM's PCR0, PCR1 and PCR2 is not 48 bytes long.
    #[error("PCR{index} is {length} bytes long, expected 48")]
    Pcr {
        /// Which one.
        index: u16,
        /// Its length.
        length: usize,
    },
    /// A secret variable of the bundle is not a ciphertext of text that an app key opens.
    #[error("secret variable {position} of the bundle cannot be opened")]
    Secret {
        /// Its place among the bundle's variables, from 0.
        position: usize,
    },
    /// The same bundle again, or one that ends earlier than the one in use.
    #[error("the bundle ends no later than the one in use")]
    Stale,
}

/// What provisioning needs.
pub struct ProvisionOptions {
    /// The host.
    pub agent: Arc<dyn AgentApi>,
    /// The NSM.
    pub nsm: NsmThread,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Uuid of this enclave, measured.
    pub enclave: Uuid,
    /// Ed25519 keys whose bundles are believed, measured.
    pub service_keys: Vec<[u8; 32]>,
    /// What the logs say until a bundle says it.
    pub identity: Identity,
    /// Where the state goes.
    pub live: Arc<ArcSwap<Live>>,
    /// Counters.
    pub stats: Arc<ProvisionStats>,
    /// Who else may open what this enclave seals, measured.
    pub sharing: Sharing,
}

/// Counters of provisioning.
#[derive(Debug, Default)]
pub struct ProvisionStats {
    /// Bundles put in use.
    pub accepted: AtomicU64,
    /// Bundles refused.
    pub refused: AtomicU64,
    /// Bundles that ended without a renewal.
    pub ended: AtomicU64,
    /// Attempts that failed before there was a bundle.
    pub failed: AtomicU64,
}

/// Supplies the live state with bundles.
pub struct Provisioner {
    options: ProvisionOptions,
    variables: watch::Sender<Option<Arc<Variables>>>,
    objects: watch::Sender<Option<Arc<Grant>>>,
    problem: watch::Sender<Option<String>>,
    newest_version: u64,
}

/// What others may watch of provisioning.
#[derive(Clone, Debug)]
pub struct ProvisionWatch {
    /// Variables of the newest bundle; `None` until the first came.
    pub variables: watch::Receiver<Option<Arc<Variables>>>,
    /// What the bundle in use says about sealed objects; `None` without one.
    pub objects: watch::Receiver<Option<Arc<Grant>>>,
    /// Why the last attempt failed; `None` after one that did not.
    pub problem: watch::Receiver<Option<String>>,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug)]
enum Over {
    /// The bundle in use has ended.
    Ended,
    /// Host or platform refuse this boot (a host that was restarted does): prove it anew, while the
    /// bundle in use still counts.
    Forgotten,
}

impl Provisioner {
    /// A provisioner that has done nothing yet.
    pub fn new(options: ProvisionOptions) -> (Self, ProvisionWatch) {
        let (variables, watched_variables) = watch::channel(None);
        let (objects, watched_objects) = watch::channel(None);
        let (problem, watched_problem) = watch::channel(None);
        let provisioner = Self {
            options,
            variables,
            objects,
            problem,
            newest_version: 0,
        };
        let watch = ProvisionWatch {
            variables: watched_variables,
            objects: watched_objects,
            problem: watched_problem,
        };
        (provisioner, watch)
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let (live, clock) = (
            Arc::clone(&self.options.live),
            Arc::clone(&self.options.clock),
        );
        let stats = Arc::clone(&self.options.stats);
        let objects = self.objects.clone();
        tokio::join!(self.supply(), expire(&live, &objects, &*clock, &stats));
    }

    async fn supply(&mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            match self.begin().await {
                Ok(session) => {
                    let begun = Instant::now();
                    let over = self.follow(session).await;
                    tracing::warn!(?over, "provisioning again");
                    // A host that provisions and then forgets is not asked without end.
                    if begun.elapsed() >= SETTLED {
                        backoff.reset();
                    } else {
                        sleep(backoff.wait()).await;
                    }
                }
                Err(error) => {
                    self.count(&error);
                    tracing::warn!(%error, "provisioning failed");
                    self.problem.send_replace(Some(error.to_string()));
                    sleep(backoff.wait()).await;
                }
            }
        }
    }

    /// Proves this boot and adopts the first bundle.
    async fn begin(&mut self) -> Result<Session, ProvisionError> {
        let options = &self.options;
        let mut session = Session::begin(&*options.agent, &options.nsm, &*options.clock).await?;
        let document = session.take_document();
        let sealed = options.agent.provision(document).await?;
        self.adopt(&mut session, &sealed)?;
        Ok(session)
    }

    /// Follows the renewals of a session until it is over.
    async fn follow(&mut self, mut session: Session) -> Over {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_POLL_RETRY);
        loop {
            let asked = Instant::now();
            let answer = {
                let poll = self.options.agent.newer_bundle(session.version());
                let end = until(&*self.options.clock, session.end_ms());
                tokio::select! {
                    biased;
                    () = end => return Over::Ended,
                    answer = poll => answer,
                }
            };
            let outcome = match answer {
                Ok(Some(sealed)) => self.adopt(&mut session, &sealed),
                Ok(None) => {
                    // A host that answers at once would be asked without end.
                    let rest = SHORTEST_POLL.saturating_sub(asked.elapsed());
                    sleep(rest).await;
                    continue;
                }
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    self.count(&error);
                    let is_refusal =
                        matches!(error, ProvisionError::Agent(AgentError::Refused { .. }));
                    tracing::warn!(%error, "the bundle was not renewed");
                    self.problem.send_replace(Some(error.to_string()));
                    if is_refusal {
                        return Over::Forgotten;
                    }
                    sleep(backoff.wait()).await;
                }
            }
        }
    }

    /// Opens a sealed bundle and swaps it in; on an error everything stays as it is.
    fn adopt(&mut self, session: &mut Session, sealed: &[u8]) -> Result<(), ProvisionError> {
        let now_ms = self.options.clock.now_ms();
        let mut bundle = session.open(
            sealed,
            &self.options.service_keys,
            self.options.enclave,
            self.newest_version,
            now_ms,
        )?;
        let version = bundle.version;
        let sealer = bundle.sealing_secret.take().map(|secret| {
            let Self { options, .. } = &*self;
            Sealer::new(secret, options.enclave, *session.image(), options.sharing)
        });
        let heads = std::mem::take(&mut bundle.objects);
        let Adopted { live, variables } = adopt::adopt(bundle, now_ms)?;
        session.renewed(version, live.not_after_ms);
        self.newest_version = version;
        self.options.live.store(Arc::new(live));
        self.options.stats.accepted.fetch_add(1, Ordering::Relaxed);
        self.problem.send_replace(None);
        self.objects
            .send_replace(Some(Arc::new(Grant { sealer, heads })));
        self.variables.send_if_modified(|known| {
            let is_same = known.as_deref() == Some(&variables);
            if !is_same {
                *known = Some(Arc::new(variables));
            }
            !is_same
        });
        tracing::info!(version, "a bundle is in use");
        Ok(())
    }

    fn count(&self, error: &ProvisionError) {
        let stats = &self.options.stats;
        let counter = match error {
            ProvisionError::Bundle(_)
            | ProvisionError::Key { .. }
            | ProvisionError::Secret { .. }
            | ProvisionError::Stale => &stats.refused,
            _ => &stats.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Swaps the keys out when their bundle ends, whatever the supply is waiting for.
async fn expire(
    live: &ArcSwap<Live>,
    objects: &watch::Sender<Option<Arc<Grant>>>,
    clock: &dyn Clock,
    stats: &ProvisionStats,
) {
    loop {
        let current = live.load_full();
        if matches!(current.serving, Serving::Ready) && clock.now_ms() >= current.not_after_ms {
            let ended = Live::not_ready(
                BUNDLE_ENDED,
                current.identity.clone(),
                current.bundle_version,
            );
            let before = live.compare_and_swap(&current, Arc::new(ended));
            if Arc::ptr_eq(&before, &current) {
                stats.ended.fetch_add(1, Ordering::Relaxed);
                objects.send_replace(None);
            }
        }
        drop(current);
        sleep(CLOCK_CHECK).await;
    }
}

/// Waits until the clock shows `end_ms`. The clock is asked again and again: it may be corrected.
async fn until(clock: &dyn Clock, end_ms: u64) {
    loop {
        let left = end_ms.saturating_sub(clock.now_ms());
        if left == 0 {
            return;
        }
        sleep(Duration::from_millis(left).min(CLOCK_CHECK)).await;
    }
}

impl fmt::Debug for Provisioner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Provisioner")
            .field("newest_version", &self.newest_version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProvisionOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProvisionOptions")
            .field("enclave", &self.enclave)
            .finish_non_exhaustive()
    }
}

/// First wait after a failed attempt.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest wait between attempts to begin.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A session that lasted this long was no accident.
const SETTLED: Duration = Duration::from_secs(60);
/// Longest wait between attempts to renew: a revocation should arrive soon after the host is back.
const LONGEST_POLL_RETRY: Duration = Duration::from_secs(5);
/// Shortest time between two polls that gave nothing.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
/// How often the clock is compared with the end of the bundle.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod tests;
