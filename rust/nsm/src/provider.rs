//! What an NSM can be asked, and how it fails.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// A source of attestation documents, entropy and platform configuration registers (PCRs).
///
/// Every call blocks for milliseconds (a document is signed with P-384) and an NSM serves one request
/// at a time: call it from a thread that has nothing else to do.
pub trait NsmProvider: Send + Sync {
    /// What the module is: its id, limits, and which PCRs are locked.
    ///
    /// # Errors
    ///
    /// [`NsmError`]: the module refused, could not be reached, or answered with something else.
    fn describe(&self) -> Result<Description, NsmError>;

    /// An attestation document: a `COSE_Sign1` over the locked PCRs and the fields of `request`.
    ///
    /// # Errors
    ///
    /// [`NsmError`]; a field longer than the module takes is [`ErrorCode::InputTooLarge`].
    fn attestation_document(&self, request: &DocumentRequest) -> Result<Vec<u8>, NsmError>;

    /// Fills `out` with entropy of the module, in as many requests as that takes.
    ///
    /// # Errors
    ///
    /// [`NsmError`]; `out` is then partly filled and must not be used.
    fn random(&self, out: &mut [u8]) -> Result<(), NsmError>;

    /// Value and lock of PCR `index`.
    ///
    /// # Errors
    ///
    /// [`NsmError`]; no such register is [`ErrorCode::InvalidIndex`].
    fn describe_pcr(&self, index: u16) -> Result<Pcr, NsmError>;

    /// Extends PCR `index`: its value becomes `SHA384(value ‖ data)`, which is returned.
    ///
    /// # Errors
    ///
    /// [`NsmError`]; a locked register is [`ErrorCode::ReadOnlyIndex`].
    fn extend_pcr(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, NsmError>;

    /// Locks PCR `index` until the enclave ends; from then on it is part of every document.
    ///
    /// # Errors
    ///
    /// [`NsmError`]; a locked register is [`ErrorCode::ReadOnlyIndex`].
    fn lock_pcr(&self, index: u16) -> Result<(), NsmError>;
}

/// What an attestation document shall carry. The module's own limits are 512 bytes for `user_data`
/// and `nonce` and 1024 for `public_key` (`crate::protocol`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentRequest {
    /// Bytes of the caller's choice; a TLS key's `SubjectPublicKeyInfo` binds the document to it.
    pub user_data: Option<Vec<u8>>,
    /// Bytes of the verifier's choice, which prove that the document is fresh.
    pub nonce: Option<Vec<u8>>,
    /// A key to which answers may be encrypted.
    pub public_key: Option<Vec<u8>>,
}

/// What an NSM says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Version of the module's interface: major, minor, patch.
    pub version: (u16, u16, u16),
    /// Id of the enclave: instance id and enclave id on Nitro.
    pub module_id: String,
    /// Number of registers; indexes are below it.
    pub max_pcrs: u16,
    /// Indexes of the locked registers, ascending.
    pub locked_pcrs: Vec<u16>,
    /// Name of the hash of the registers; `SHA384` on Nitro.
    pub digest: String,
}

/// One register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcr {
    /// True when it can no longer be extended.
    pub is_locked: bool,
    /// Its value, 48 bytes on Nitro.
    pub value: Vec<u8>,
}

/// The module's own error codes (nsm-api `ErrorCode`, less `Success`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The response does not fit into the caller's buffer.
    BufferTooSmall,
    /// An input is longer than the module takes.
    InputTooLarge,
    /// The module itself failed.
    InternalError,
    /// An argument is not of the expected form.
    InvalidArgument,
    /// There is no PCR of that index.
    InvalidIndex,
    /// There is no such request.
    InvalidOperation,
    /// The response does not match the request.
    InvalidResponse,
    /// The PCR is locked.
    ReadOnlyIndex,
}

impl ErrorCode {
    /// The name as it crosses the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::BufferTooSmall => "BufferTooSmall",
            Self::InputTooLarge => "InputTooLarge",
            Self::InternalError => "InternalError",
            Self::InvalidArgument => "InvalidArgument",
            Self::InvalidIndex => "InvalidIndex",
            Self::InvalidOperation => "InvalidOperation",
            Self::InvalidResponse => "InvalidResponse",
            Self::ReadOnlyIndex => "ReadOnlyIndex",
        }
    }

    /// The code of a name that crossed the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::BufferTooSmall,
            Self::InputTooLarge,
            Self::InternalError,
            Self::InvalidArgument,
            Self::InvalidIndex,
            Self::InvalidOperation,
            Self::InvalidResponse,
            Self::ReadOnlyIndex,
        ]
        .into_iter()
        .find(|code| code.name() == name)
    }
}

/// Why an NSM did not do what it was asked.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum NsmError {
    /// No answer within the deadline.
    #[error("the NSM did not answer within {} ms", after.as_millis())]
    Deadline {
        /// How long was waited.
        after: Duration,
    },
    /// It could not be reached.
    #[error("cannot reach the NSM at `{at}`")]
    Io {
        /// Device or socket.
        at: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It answered with something that is not an answer to the request.
    #[error("the answer of the NSM {problem}")]
    Protocol {
        /// What is wrong with the answer, as a verb phrase.
        problem: &'static str,
    },
    /// It refused.
    #[error("the NSM refused `{request}`: {}", code.name())]
    Refused {
        /// Name of the request.
        request: &'static str,
        /// The module's own code.
        code: ErrorCode,
    },
    /// A request that would not fit into the module's buffer is not sent.
    #[error("a request of {length} bytes is longer than the NSM takes ({limit})")]
    RequestTooLarge {
        /// Its encoded length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
}
