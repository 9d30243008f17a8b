//! Why a ciphertext was not opened.

use thiserror::Error;

/// Why a token was not opened. No variant carries clear text, and everything that depends on the
/// content of the token says the same words.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// No app key opens it, or what it holds is not what it says it holds.
    #[error("the ciphertext cannot be opened with any key of this app")]
    CannotOpen,
    /// It holds bytes that cannot stand where it stands.
    #[error("the clear text cannot stand where its ciphertext stands")]
    CannotStand,
    /// An encrypted file whose checksum is wrong.
    #[error("the encrypted file is damaged or cut short: its checksum is wrong")]
    Damaged,
    /// A token of the SDKs' debug mode outside a debug enclave.
    #[error("the ciphertext was made in debug mode, which this enclave does not accept")]
    Debug,
    /// Not an encrypted file.
    #[error("not an encrypted file: it does not have the form of one")]
    NotAFile,
    /// Not yet: the session may derive no more keys until it is granted some.
    #[error("the ciphertext is not opened yet")]
    Paused,
    /// More ephemeral keys in one request than the limit.
    #[error("more than {limit} distinct ephemeral keys in one request")]
    TooManyKeys {
        /// The limit.
        limit: u32,
    },
    /// Longer than the limit.
    #[error("a ciphertext is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// JSON nested deeper than the scanner follows.
    #[error("JSON is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// An encrypted file of a version that used a nonce twice.
    #[error(
        "the encrypted file is of version 04 or 05, which used a nonce twice: it is not opened"
    )]
    UnsupportedVersion,
}
