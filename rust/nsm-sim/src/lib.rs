//! A simulated Nitro Secure Module: real registers, real limits and errors, real signatures, and a
//! root that nobody but its owner believes.
//!
//! [`Simulator`] answers the bytes of the NSM protocol and does no I/O, so a single-threaded launcher
//! can serve it. Its documents have the form of genuine ones: a chain of five certificates under
//! [`DevelopmentRoot`], a leaf of 3 hours, `COSE_Sign1` with ES384. They go through the production
//! verifier, with `TrustAnchor::dangerous_root`; `TrustAnchor::aws_nitro` refuses them.
//!
//! This crate is never linked into the enclave's binary: an enclave that could sign could forge its
//! own measurements.

pub mod certificate;
pub mod document;
mod error;
mod issuer;
mod local;
mod pcr_bank;
mod pem;
mod root;
pub mod serve;
mod simulator;
mod steered;

pub use error::SimulatorError;
pub use local::LocalNsm;
pub use root::{CERTIFICATE_FILE, DevelopmentRoot, KEY_FILE, RootError};
pub use simulator::{Forged, Simulator};
pub use steered::{Steered, Told};
