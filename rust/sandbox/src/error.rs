//! Why an enclave could not be started: a message, and a hint apart from it.

use thiserror::Error;

/// A refusal to start, as it goes into the `failed` status line.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct SandboxError {
    /// What was expected and what was found.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SandboxError {
    /// A refusal without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// The same refusal with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Says what was being done when the system refused.
pub(crate) trait Doing<T> {
    /// Turns an error into [`SandboxError`]: `"{what}: {error}"`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, SandboxError>;
}

impl<T, E: std::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, SandboxError> {
        self.map_err(|error| SandboxError::new(format!("{}: {error}", what())))
    }
}
