//! Ordering certificates through the host: request, wait, check, swap; again before they end.
//!
//! The same call serves ACME and the development CA of a local run (wire.md §2).

use std::sync::Arc;
use std::time::Duration;

use cloister_wire::agent::OrderState;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::key::{LOCAL_NAMES, TlsKey};
use super::{CertificateError, Certificates, Current};
use crate::agent::{AgentApi, AgentError};
use crate::backoff::Backoff;
use crate::clock::Clock;

/// Why an order gave no certificate.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum OrderError {
    /// The host did not do its part.
    #[error("{0}")]
    Agent(#[from] AgentError),
    /// The certificate is not used.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// Still pending after [`ORDER_DEADLINE`].
    #[error("the order was not fulfilled within {} s", ORDER_DEADLINE.as_secs())]
    Deadline,
    /// The authority refused. Its words are not repeated: they are a stranger's.
    #[error("the certificate authority refused the order")]
    Refused,
}

/// Keeps [`Certificates`] supplied.
pub struct Orders {
    pub(super) agent: Arc<dyn AgentApi>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) domains: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) key: Option<TlsKey>,
    pub(super) is_ordered: watch::Sender<bool>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Orders")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// Names a certificate is made for: the measured `domains`, and without a public authority
/// (`is_public`) the local names as well.
pub fn names(domains: &[String], is_public: bool) -> Vec<String> {
    let local = LOCAL_NAMES.iter().filter(|_| !is_public);
    let local = local.map(|name| (*name).to_owned());
    local.chain(domains.iter().cloned()).collect()
}

impl Orders {
    /// Orders for `domains` and `names`, the first of them with `key`; the receiver becomes true
    /// with the first certificate.
    pub fn new(
        agent: Arc<dyn AgentApi>,
        certificates: Arc<Certificates>,
        clock: Arc<dyn Clock>,
        domains: Vec<String>,
        names: Vec<String>,
        key: TlsKey,
    ) -> (Self, watch::Receiver<bool>) {
        let (is_ordered, watched) = watch::channel(false);
        let orders = Self {
            agent,
            certificates,
            clock,
            domains,
            names,
            key: Some(key),
            is_ordered,
        };
        (orders, watched)
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            match self.order().await {
                Ok(current) => {
                    backoff.reset();
                    tracing::info!(not_after = current.not_after, "a certificate is in use");
                    self.is_ordered.send_replace(true);
                    let wait = self.until_renewal(&current);
                    drop(current);
                    sleep(wait).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "no certificate; the one in use stays");
                    sleep(backoff.wait()).await;
                }
            }
        }
    }

    async fn order(&mut self) -> Result<Arc<Current>, OrderError> {
        // A renewal gets a key of its own; a failed attempt keeps the key it made.
        let key = match self.key.take() {
            Some(key) => key,
            None => TlsKey::generate()?,
        };
        let outcome = self.order_with(&key).await;
        if outcome.is_err() {
            self.key = Some(key);
        }
        outcome
    }

    async fn order_with(&self, key: &TlsKey) -> Result<Arc<Current>, OrderError> {
        let chain = self.obtain(key).await?;
        let now_ms = self.clock.now_ms();
        Ok(self
            .certificates
            .install(chain.as_bytes(), key, &self.domains, now_ms)?)
    }

    /// Orders a certificate for `key` and gives the chain, PEM, as the authority made it.
    pub(super) async fn obtain(&self, key: &TlsKey) -> Result<String, OrderError> {
        let request = key.request(&self.names)?;
        let id = self.agent.order(request, self.domains.clone()).await?;
        let asked = Instant::now();
        let mut backoff = Backoff::new(FIRST_POLL, LONGEST_POLL);
        loop {
            match self.agent.order_state(id.clone()).await? {
                OrderState::Invalid { .. } => return Err(OrderError::Refused),
                OrderState::Pending if asked.elapsed() > ORDER_DEADLINE => {
                    return Err(OrderError::Deadline);
                }
                OrderState::Pending => sleep(backoff.wait()).await,
                OrderState::Valid { certificate_chain } => return Ok(certificate_chain),
            }
        }
    }

    /// Two thirds of what is left of the certificate's life.
    pub(super) fn until_renewal(&self, current: &Current) -> Duration {
        let end_ms = u64::try_from(current.not_after)
            .unwrap_or(0)
            .saturating_mul(1_000);
        let left = Duration::from_millis(end_ms.saturating_sub(self.clock.now_ms()));
        let two_thirds = left.checked_div(3).unwrap_or_default().saturating_mul(2);
        two_thirds.max(SOONEST_RENEWAL)
    }
}

/// Longest wait for one order: ACME authorities validate within minutes.
pub const ORDER_DEADLINE: Duration = Duration::from_secs(600);
const FIRST_POLL: Duration = Duration::from_millis(50);
const LONGEST_POLL: Duration = Duration::from_secs(5);
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);
pub(super) const LONGEST_RETRY: Duration = Duration::from_secs(600);
/// A certificate that ends at once is not ordered again at once.
const SOONEST_RENEWAL: Duration = Duration::from_secs(60);

#[cfg(test)]
pub(crate) mod tests;
