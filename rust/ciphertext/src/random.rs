//! Randomness as a trait: a pure crate asks for bytes and does not know where they come from.

use thiserror::Error;

/// A source of cryptographically strong random bytes.
pub trait Random {
    /// Fills `bytes`.
    ///
    /// # Errors
    ///
    /// [`RandomError`] when the source has none; what was written by then must not be used.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError>;
}

/// The source of randomness failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the source of randomness failed")]
pub struct RandomError;
