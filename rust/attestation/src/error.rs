//! Why a document is refused.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::chain::ChainError;
use crate::measurements::{Measurements, Pcrs, hex};
use crate::time::UnixMillis;

/// Why an attestation document was refused.
///
/// A program decides by variant (or by [`VerifyError::code`]), a person reads the message. No variant
/// prints text chosen by the peer, so a message is safe to log.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The COSE signature is not by the key of the leaf certificate.
    #[error("the document is not signed by its leaf certificate: it was altered, or re-signed")]
    BadSignature,
    /// `user_data` is not what was expected.
    #[error(
        "`user_data` does not match: expected {} bytes with SHA-384 {}, received {}",
        expected_bytes, short(expected_digest), found(received.as_ref())
    )]
    BindingMismatch {
        /// Length of what was expected, in bytes.
        expected_bytes: usize,
        /// SHA-384 of what was expected.
        expected_digest: [u8; 48],
        /// Length and SHA-384 of what came, when the document has any.
        received: Option<(usize, [u8; 48])>,
    },
    /// PCR0 is zero.
    #[error("a debug enclave: its PCR0 is zero, so nothing about its code is proved")]
    DebugEnclave,
    /// The timestamp lies in the future.
    #[error(
        "the document is from the future: its time is {timestamp}, the verifier's is {now}, and \
         {} s of difference are allowed", leeway.as_secs()
    )]
    FromTheFuture {
        /// The document's own time.
        timestamp: UnixMillis,
        /// The verifier's time.
        now: UnixMillis,
        /// The difference that is allowed.
        leeway: Duration,
    },
    /// The bytes are not a well-formed document.
    #[error("not an attestation document: field `{field}` {problem}")]
    Malformed {
        /// Name of the field, as in the specification.
        field: &'static str,
        /// What is wrong with it, as a verb phrase.
        problem: &'static str,
    },
    /// No accepted set of measurements matches.
    #[error("{}", mismatch(expected, received))]
    MeasurementMismatch {
        /// The accepted sets.
        expected: Arc<[Measurements]>,
        /// The registers of the document.
        received: Pcrs,
    },
    /// The nonce is not the expected one.
    #[error("the nonce is not the one that was sent: expected {}, received {}",
        hex(expected), received.as_ref().map_or_else(|| "none".to_owned(), |nonce| cut(nonce)))]
    NonceMismatch {
        /// The nonce that was sent.
        expected: Vec<u8>,
        /// The document's.
        received: Option<Vec<u8>>,
    },
    /// The document is older than the policy allows.
    #[error(
        "the document is {} s old (its time is {timestamp}), the policy allows {} s",
        age.as_secs(), max_age.as_secs()
    )]
    Stale {
        /// The document's own time.
        timestamp: UnixMillis,
        /// Verifier's clock minus the document's own timestamp.
        age: Duration,
        /// The limit it passed.
        max_age: Duration,
    },
    /// The certificate chain does not lead to the trust anchor.
    #[error("the certificate chain does not lead to the trust anchor: {0}")]
    UntrustedChain(#[source] ChainError),
}

impl VerifyError {
    /// Name of the class of `cloister.errors` that stands for this.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadSignature => "BadSignature",
            Self::BindingMismatch { .. } => "BindingMismatch",
            Self::DebugEnclave => "DebugEnclave",
            Self::FromTheFuture { .. } | Self::Stale { .. } => "StaleDocument",
            Self::Malformed { .. } => "MalformedDocument",
            Self::MeasurementMismatch { .. } => "MeasurementMismatch",
            Self::NonceMismatch { .. } => "NonceMismatch",
            Self::UntrustedChain(_) => "UntrustedChain",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BadSignature => "fetch the document again; if it stays, something alters it",
            Self::BindingMismatch { .. } => {
                "fetch the document again: the enclave may have a new key; if it stays, the \
                 connection does not end in the attested enclave"
            }
            Self::DebugEnclave => {
                "build without `debug`, or accept a debug enclave by the option named \
                 `dangerous_accept_debug`, for tests alone"
            }
            Self::FromTheFuture { .. } => "set this machine's clock",
            Self::Malformed { .. } => {
                "expected a COSE_Sign1 of an AWS Nitro Enclave, raw or in base64; NitroTPM \
                 documents are not accepted"
            }
            Self::MeasurementMismatch { .. } => {
                "compare with the PCRs that `cloister build` printed; a new deployment needs its \
                 own set"
            }
            Self::NonceMismatch { .. } => "ask for a new document with a new nonce",
            Self::Stale { .. } => "fetch a new document, or check one of then with its own time",
            Self::UntrustedChain(problem) => problem.hint(),
        }
    }
}

fn short(digest: &[u8; 48]) -> String {
    hex(digest)
}

fn found(received: Option<&(usize, [u8; 48])>) -> String {
    received.map_or_else(
        || "none".to_owned(),
        |(length, digest)| format!("{length} bytes with SHA-384 {}", hex(digest)),
    )
}

/// The first bytes of a peer's nonce: enough to compare, not enough to fill a log.
fn cut(bytes: &[u8]) -> String {
    match bytes.split_at_checked(64) {
        Some((head, rest)) if !rest.is_empty() => format!("{}… ({} bytes)", hex(head), bytes.len()),
        _ => hex(bytes),
    }
}

fn mismatch(expected: &[Measurements], received: &Pcrs) -> String {
    let mut text = "no accepted measurement matches".to_owned();
    let many = expected.len() > 1;
    for (position, set) in expected.iter().take(SETS_PRINTED).enumerate() {
        if many {
            let _ = write!(text, "\n  set {}:", position.saturating_add(1));
        }
        for (index, value) in set.iter() {
            let found = received.value(index);
            if found == Some(value.as_slice()) {
                let _ = write!(text, "\n  {index} matches {}", hex(value));
            } else {
                let found = found.map_or_else(|| "nothing".to_owned(), hex);
                let _ = write!(
                    text,
                    "\n  {index} expected {}\n  {index} received {found}",
                    hex(value)
                );
            }
        }
    }
    if expected.len() > SETS_PRINTED {
        let _ = write!(
            text,
            "\n  and {} more sets",
            expected.len().saturating_sub(SETS_PRINTED)
        );
    }
    text
}

/// Most sets that one message lists.
const SETS_PRINTED: usize = 8;
