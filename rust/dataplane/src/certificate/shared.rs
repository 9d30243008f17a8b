//! One TLS key and certificate for every enclave of an image, agreed on without a leader.
//!
//! They are one sealed object at the host ([`crate::objects`]), replaced whole, so that a renewal
//! changes both at once. Whoever finds none makes one; a conditional write decides between several
//! that do, and the platform, which records a head once, decides when the host does not. A head in a
//! bundle is the truth: an object that is not the recorded one is not used (T-12), and is reported
//! and replaced. An object that is newer than the head was written by an enclave of this image that
//! could not finish; whoever finds it finishes. Another image has another object and cannot open
//! this one (T-22).
//!
//! What an object holds is in [`content`]; what is ordered, and whether it may be used, is decided
//! where it is without sharing: [`super::orders`], [`super::chain`].

mod content;
mod noticing;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use cloister_sealing::object::object_digest;
use cloister_sealing::{Sealer, SealingError};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::content::Content;
use self::turns::{after, patience, sooner};
use super::key::TlsKey;
use super::orders::{FIRST_RETRY, LONGEST_RETRY, OrderError, Orders};
use super::{CertificateError, Origin, chain};
use crate::agent::AgentError;
use crate::backoff::Backoff;
use crate::objects::{Grant, Head, ObjectStats, ObjectStore, Only, StoredObject, count};
use crate::provision;

/// Why nothing was agreed on. What is in use stays.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum SharedError {
    /// The host did not do its part.
    #[error("{0}")]
    Agent(#[from] AgentError),
    /// A key or certificate cannot be made or used.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// Others, or the host, changed the object each time it was to be written.
    #[error("the TLS object changed under each of {ATTEMPTS} attempts to write it")]
    Contended,
    /// No certificate was obtained.
    #[error("{0}")]
    Order(#[from] OrderError),
    /// The platform has recorded another object; a bundle will say which.
    #[error("the platform has recorded another TLS object")]
    Overtaken,
    /// The object cannot be sealed.
    #[error("{0}")]
    Sealing(#[from] SealingError),
}

/// Keeps certificates supplied, together with the other enclaves of this image.
pub struct SharedOrders {
    orders: Orders,
    objects: Arc<dyn ObjectStore>,
    grants: watch::Receiver<Option<Arc<Grant>>>,
    stats: Arc<ObjectStats>,
    used: Option<Used>,
    /// When an object that was lost or changed was replaced last.
    replaced: Option<Instant>,
}

/// What is in use.
struct Used {
    version: u64,
    sha256: [u8; 32],
    content: Content,
    /// Made here: then it is ours to order the certificate.
    is_ours: bool,
    since: Instant,
    /// When the certificate is to be renewed; `None` without an ordered one.
    renewal: Option<Instant>,
}

impl SharedOrders {
    /// Shares what `orders` would have made alone, and counts in `stats` what became of it.
    pub fn new(
        orders: Orders,
        objects: Arc<dyn ObjectStore>,
        grants: watch::Receiver<Option<Arc<Grant>>>,
        stats: Arc<ObjectStats>,
    ) -> Self {
        Self {
            orders,
            objects,
            grants,
            stats,
            used: None,
            replaced: None,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            // While a bundle has ended there is no secret, and what is in use stays.
            let grant = match self.grants.wait_for(Option::is_some).await {
                Ok(grant) => grant.clone(),
                Err(_) => return,
            };
            let Some(grant) = grant else { continue };
            let Some(sealer) = &grant.sealer else {
                tracing::info!("this platform keeps no sealed objects: the TLS key is not shared");
                return self.orders.run().await;
            };
            let wait = match self.step(&grant, sealer).await {
                Ok(wait) => {
                    backoff.reset();
                    wait
                }
                Err(error) => {
                    tracing::warn!(%error, "no shared TLS key or certificate; what is in use stays");
                    backoff.wait()
                }
            };
            drop(grant);
            // A bundle with another head is followed at once.
            if let Ok(Err(_)) = timeout(wait, self.grants.changed()).await {
                return;
            }
        }
    }

    /// Follows the bundle, then sees to the certificate. Gives the time until there is more to do.
    async fn step(&mut self, grant: &Grant, sealer: &Sealer) -> Result<Duration, SharedError> {
        let name = sealer.name(KIND);
        let head = grant.heads.get(&name).copied();
        match &self.used {
            Some(used) if head == Some((used.version, used.sha256)) => {}
            // The bundle is older than what was recorded, or the record never arrived.
            Some(used) if head.is_none_or(|(version, _)| version < used.version) => {
                let (version, sha256) = (used.version, used.sha256);
                self.record(sealer, &name, version, sha256).await?;
            }
            _ => self.settle(sealer, &name, head, None).await?,
        }
        self.see_to_certificate(sealer, &name, head).await
    }

    async fn see_to_certificate(
        &mut self,
        sealer: &Sealer,
        name: &str,
        head: Option<(u64, [u8; 32])>,
    ) -> Result<Duration, SharedError> {
        let Some(used) = &self.used else {
            return Ok(Duration::ZERO);
        };
        // Whoever made the key orders; the others wait for that, and not for ever.
        let due = match used.renewal {
            Some(moment) => moment,
            None if used.is_ours => used.since,
            None => after(used.since, patience()),
        };
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Ok(left);
        }
        // What was written before and not recorded, by this enclave too, is finished and not ordered
        // again.
        let stored = self.objects.read(name).await?;
        let found = stored.and_then(|stored| judge(sealer, name, &stored));
        if let Some(found) = found.filter(|(version, ..)| *version > self.known_version(head)) {
            self.finish(sealer, name, found).await?;
            return Ok(Duration::ZERO);
        }
        // A renewal gets a key of its own; a key without a certificate keeps waiting for its first.
        let key = match used.renewal {
            None => used.content.key()?,
            Some(_) => TlsKey::generate()?,
        };
        let pem = self.orders.obtain(&key).await?;
        // One that would not be used here is not given to others.
        let now_ms = self.orders.clock.now_ms();
        let certificates = chain::read_pem(pem.as_bytes())?;
        chain::check(&certificates, &key, &self.orders.domains, now_ms)?;
        let ordered = Content::new(&key, Some(pem))?;
        self.settle(sealer, name, head, Some(ordered)).await?;
        let renewal = self.used.as_ref().and_then(|used| used.renewal);
        Ok(renewal.map_or(Duration::ZERO, |moment| {
            moment.saturating_duration_since(Instant::now())
        }))
    }

    /// Puts in use what the platform recorded, or what is newer; else, or with `wanted`, writes the
    /// next version and puts that in use.
    async fn settle(
        &mut self,
        sealer: &Sealer,
        name: &str,
        head: Option<(u64, [u8; 32])>,
        mut wanted: Option<Content>,
    ) -> Result<(), SharedError> {
        for _ in 0..ATTEMPTS {
            let stored = self.objects.read(name).await?;
            let known = self.known_version(head);
            match stored.as_ref().map(|stored| judge(sealer, name, stored)) {
                Some(Some((version, sha256, content)))
                    if wanted.is_none() && head == Some((version, sha256)) =>
                {
                    count(&self.stats.used);
                    return self.put_in_use(version, sha256, content, false);
                }
                // What was ordered replaces the one recorded, or ours that the bundle does not say yet.
                Some(Some((version, sha256, _)))
                    if wanted.is_some()
                        && (head == Some((version, sha256)) || self.is_used(version, sha256)) => {}
                // Of this image, and newer than anything this boot knows: finish it.
                Some(Some(found)) if found.0 > known => {
                    return self.finish(sealer, name, found).await;
                }
                None if head.is_none() => {}
                found => {
                    count(match found {
                        None => &self.stats.missing,
                        Some(_) => &self.stats.refused,
                    });
                    // Else it never was an object, and nothing was recorded.
                    if head.is_some() {
                        self.notice(name, known).await?;
                    }
                }
            }
            let content = match wanted.take() {
                Some(content) => content,
                None => Content::new(&self.fresh_key()?, None)?,
            };
            let version = known.saturating_add(1);
            let mut random = provision::SystemRandom::new();
            let sealed = sealer.seal(name, version, content.bytes(), &mut random)?;
            let sha256 = object_digest(&sealed);
            let only = match stored {
                Some(StoredObject { tag, .. }) => Only::If(tag),
                None => Only::IfAbsent,
            };
            if self.objects.write(name, sealed, only).await? {
                count(&self.stats.written);
                self.record(sealer, name, version, sha256).await?;
                return self.put_in_use(version, sha256, content, true);
            }
            // Somebody was faster. A renewal is not tried again over theirs.
        }
        Err(SharedError::Contended)
    }

    /// Records an object that somebody wrote and did not record, and puts it in use.
    async fn finish(
        &mut self,
        sealer: &Sealer,
        name: &str,
        (version, sha256, content): (u64, [u8; 32], Content),
    ) -> Result<(), SharedError> {
        self.record(sealer, name, version, sha256).await?;
        count(&self.stats.finished);
        self.put_in_use(version, sha256, content, false)
    }

    async fn record(
        &self,
        sealer: &Sealer,
        name: &str,
        version: u64,
        sha256: [u8; 32],
    ) -> Result<(), SharedError> {
        let head = Head {
            version,
            sha256,
            proof: sealer.head_proof(name, version, &sha256),
        };
        match self.objects.record(name, head).await {
            Ok(true) => {
                count(&self.stats.heads_recorded);
                Ok(())
            }
            Ok(false) => {
                count(&self.stats.heads_overtaken);
                Err(SharedError::Overtaken)
            }
            Err(error) => {
                count(&self.stats.heads_failed);
                Err(error.into())
            }
        }
    }

    fn put_in_use(
        &mut self,
        version: u64,
        sha256: [u8; 32],
        content: Content,
        is_ours: bool,
    ) -> Result<(), SharedError> {
        let now_ms = self.orders.clock.now_ms();
        let key = content.key()?;
        let certificates = &self.orders.certificates;
        let installed = content
            .chain()
            .map(|chain| certificates.install(chain.as_bytes(), &key, &self.orders.domains, now_ms))
            .transpose();
        let renewal = match installed {
            Ok(Some(current)) => {
                tracing::info!(
                    version,
                    not_after = current.not_after,
                    "a certificate is in use"
                );
                self.orders.is_ordered.send_replace(true);
                Some(after(
                    Instant::now(),
                    sooner(self.orders.until_renewal(&current)),
                ))
            }
            Ok(None) => {
                self.show_meanwhile(&key, now_ms)?;
                None
            }
            // It has ended while nobody ran: renewed at once.
            Err(error) => {
                tracing::warn!(%error, version, "the stored certificate is not used");
                self.show_meanwhile(&key, now_ms)?;
                Some(Instant::now())
            }
        };
        self.used = Some(Used {
            version,
            sha256,
            content,
            is_ours,
            since: Instant::now(),
            renewal,
        });
        Ok(())
    }

    /// What clients see until there is a certificate for `key`: an ordered one that still counts, else
    /// a self-signed one.
    fn show_meanwhile(&self, key: &TlsKey, now_ms: u64) -> Result<(), CertificateError> {
        let shown = self.orders.certificates.current();
        let end_ms = u64::try_from(shown.not_after)
            .unwrap_or(0)
            .saturating_mul(1_000);
        if shown.origin == Origin::Ordered && now_ms < end_ms {
            return Ok(());
        }
        let certificates = &self.orders.certificates;
        certificates.install_self_signed(key, &self.orders.names, now_ms)
    }

    /// The newest version this boot has heard of.
    fn known_version(&self, head: Option<(u64, [u8; 32])>) -> u64 {
        let used = self.used.as_ref().map_or(0, |used| used.version);
        head.map_or(0, |(version, _)| version).max(used)
    }

    /// The key that was made at the start, once; then new ones.
    fn fresh_key(&mut self) -> Result<TlsKey, CertificateError> {
        self.orders.key.take().map_or_else(TlsKey::generate, Ok)
    }

    fn is_used(&self, version: u64, sha256: [u8; 32]) -> bool {
        let used = self.used.as_ref();
        used.is_some_and(|used| (used.version, used.sha256) == (version, sha256))
    }
}

/// Version, digest and content of a stored object, when an enclave of this image made it.
fn judge(sealer: &Sealer, name: &str, stored: &StoredObject) -> Option<(u64, [u8; 32], Content)> {
    let (version, clear) = sealer.open(name, &stored.body).ok()?;
    let content = Content::read(clear)?;
    Some((version, object_digest(&stored.body), content))
}

impl std::fmt::Debug for SharedOrders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SharedOrders")
            .field("orders", &self.orders)
            .finish_non_exhaustive()
    }
}

/// What the name of the object begins with.
const KIND: &str = "tls";
/// Each time somebody else was faster; then others have agreed, or the host plays.
const ATTEMPTS: usize = 4;
#[cfg(test)]
mod tests;
