//! Why the enclave cannot go on: one line for the console.

use thiserror::Error;

/// A reason to stop, or to skip a step that can be skipped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InitError(pub String);

impl InitError {
    /// From a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Says what was being done when the system refused.
pub trait Doing<T> {
    /// Turns an error into [`InitError`]: `"{what}: {error}"`.
    ///
    /// # Errors
    ///
    /// The error that was there.
    fn doing(self, what: &str) -> Result<T, InitError>;
}

impl<T, E: std::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, InitError> {
        self.map_err(|error| InitError(format!("{what}: {error}")))
    }
}
