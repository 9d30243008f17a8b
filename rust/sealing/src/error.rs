//! Why a bundle cannot be made, and why one is refused.

use thiserror::Error;

/// Why a bundle cannot be made.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum SealingError {
    /// A list or text of the bundle is longer than an enclave would read.
    #[error("bundle field `{field}` is over its limit")]
    OverLimit {
        /// The field.
        field: &'static str,
    },
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    Random,
    /// The recipient's key is not an X25519 public key.
    #[error("the recipient's key is not an X25519 public key")]
    Recipient,
    /// Seed or key bytes are not an Ed25519 key.
    #[error("the service key is not an Ed25519 key")]
    ServiceKey,
}

/// Why an enclave refuses a bundle. No variant carries anything that was in it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BundleError {
    /// Not sealed to this boot, or changed on the way.
    #[error("bundle cannot be opened: it is not sealed to this boot, or was changed on the way")]
    CannotOpen,
    /// It answers another challenge.
    #[error("bundle carries another challenge than this boot's")]
    Challenge,
    /// It is for another enclave.
    #[error("bundle is for another enclave")]
    Enclave,
    /// Its time is over.
    #[error("bundle ended at {not_after} ms, it is {now} ms")]
    Expired {
        /// End, milliseconds since the Unix epoch.
        not_after: u64,
        /// The enclave's clock, milliseconds since the Unix epoch.
        now: u64,
    },
    /// Not a bundle, or a field breaks a limit.
    #[error("bundle field `{field}` {problem}")]
    Malformed {
        /// The field.
        field: &'static str,
        /// What is wrong with it, as a verb phrase.
        problem: &'static str,
    },
    /// It is for another image.
    #[error("bundle is for an image with another PCR0")]
    Pcr0,
    /// It names another key as its recipient.
    #[error("bundle names another recipient than this boot's key")]
    Recipient,
    /// Not signed by a service key of the measured configuration.
    #[error("bundle is not signed by any service key of the measured configuration")]
    Signer,
    /// Longer than [`crate::MAX_SEALED_BYTES`].
    #[error("sealed bundle is {length} bytes long, the limit is 716800")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// Older than one that was seen in this boot.
    #[error("bundle has version {version}, version {seen} was seen in this boot")]
    Version {
        /// Its version.
        version: u64,
        /// The newest version seen in this boot.
        seen: u64,
    },
}
