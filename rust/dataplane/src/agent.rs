//! The agent API as the enclave calls it (wire.md §2).
//!
//! [`AgentApi`] is what provisioning, certificates and logs need of the host; [`http::HttpAgent`]
//! asks a real one, and `cloister dev` answers in memory. Nothing an agent says is believed: a
//! bundle is opened with keys of this boot, a certificate must carry our key, an acknowledgment
//! cannot reach beyond what was sent.

pub mod http;

use std::pin::Pin;
use std::sync::Arc;

use cloister_wire::agent::{Event, OrderState};
use thiserror::Error;

use crate::log_ring::Batch;

/// What a call gives, later.
pub type AgentFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, AgentError>> + Send + 'a>>;

/// The calls of an enclave to its host. Each ends by itself: it has a deadline.
pub trait AgentApi: Send + Sync + 'static {
    /// A challenge of the platform.
    fn challenge(&self) -> AgentFuture<'_, [u8; 32]>;

    /// Hands in an attestation document (`COSE_Sign1`) and gets the sealed bundle.
    fn provision(&self, document: Vec<u8>) -> AgentFuture<'_, Vec<u8>>;

    /// The sealed bundle that replaces version `after`; waits for about 25 s and gives `None` when
    /// there is none until then.
    fn newer_bundle(&self, after: u64) -> AgentFuture<'_, Option<Vec<u8>>>;

    /// Orders a certificate for a PKCS#10 request (DER) and gives the order's id.
    fn order(&self, csr: Vec<u8>, domains: Vec<String>) -> AgentFuture<'_, String>;

    /// How an order stands.
    fn order_state(&self, id: String) -> AgentFuture<'_, OrderState>;

    /// Hands over a batch of logs of the boot with this id (32 hexadecimal digits) and gives the
    /// sequence number of the last record that is on the host's disk.
    fn logs(&self, boot: Arc<str>, batch: Batch) -> AgentFuture<'_, u64>;

    /// Reports something that happened.
    fn event(&self, event: Event) -> AgentFuture<'_, ()>;
}

/// Why a call failed. All but [`AgentError::Refused`] may go better the next time.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum AgentError {
    /// No answer in time.
    #[error("the host did not answer `{call}` in time")]
    Deadline {
        /// Method and path.
        call: &'static str,
    },
    /// The connection could not be made or broke.
    #[error("the connection to the host failed during `{call}`")]
    Io {
        /// Method and path.
        call: &'static str,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what the protocol says.
    #[error("the host's answer to `{call}` {problem}")]
    Malformed {
        /// Method and path.
        call: &'static str,
        /// What is wrong with it, as a verb phrase.
        problem: &'static str,
    },
    /// The host, or the platform behind it, said no.
    #[error("the host answered `{call}` with status {status}")]
    Refused {
        /// Method and path.
        call: &'static str,
        /// HTTP status.
        status: u16,
    },
}
