//! Why an enclave could not be started: a message, and a hint apart from it.

use serde::Serialize;
use thiserror::Error;

/// Whose doing a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The image is not what it should be.
    Image,
    /// Anything else.
    Other,
    /// The system does not permit it.
    Permission,
}

/// A refusal to start, as it goes into the `failed` status line.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct SandboxError {
    /// Whose doing it is.
    pub kind: Kind,
    /// What was expected and what was found.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SandboxError {
    /// A refusal without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Other,
            message: message.into(),
            hint: None,
        }
    }

    /// A refusal that the image is to blame for.
    pub fn image(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Image,
            ..Self::new(message)
        }
    }

    /// A refusal of the system's.
    pub fn permission(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Permission,
            ..Self::new(message)
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
