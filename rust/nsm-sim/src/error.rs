//! What can go wrong when a simulator is made.

use thiserror::Error;

/// Why there is no simulator.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SimulatorError {
    /// The cryptographic library failed: no entropy, or a key it does not take.
    #[error("the cryptographic library failed to {what}")]
    Crypto {
        /// What it was asked for, as an infinitive.
        what: &'static str,
    },
    /// The module's id cannot be in a document.
    #[error("the module id must have 1 to 256 bytes, found {length}")]
    ModuleId {
        /// Its length in bytes.
        length: usize,
    },
    /// There is no such register.
    #[error("there is no PCR{index}: indexes are below 32")]
    PcrIndex {
        /// The index.
        index: u16,
    },
}
