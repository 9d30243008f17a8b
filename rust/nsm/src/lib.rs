//! The Nitro Secure Module (NSM) as the enclave sees it.
//!
//! [`NsmProvider`] is what the rest of the enclave uses; [`Device`] is `/dev/nsm` of a real enclave
//! and [`SocketNsm`] the simulated NSM of the sandbox, reached over a Unix socket. [`protocol`] is
//! the CBOR that crosses either of them, in both directions. Nothing here decides whether a document
//! is genuine (`cloister-attestation` does) and nothing here signs one (`cloister-nsm-sim` does).
//!
//! Every call blocks: callers keep it off their I/O threads.
//!
//! The protocol is that of [nsm-api] (`src/api/mod.rs`, `src/driver/mod.rs`).
//!
//! [nsm-api]: https://github.com/aws/aws-nitro-enclaves-nsm-api

mod call;
mod device;
pub mod frame;
pub mod protocol;
mod provider;
mod socket;

pub use call::Exchange;
pub use device::{Device, Driver, Ioctl};
pub use provider::{Description, DocumentRequest, ErrorCode, NsmError, NsmProvider, Pcr};
pub use socket::{DEADLINE, SocketNsm};
