//! Attestation documents of AWS Nitro Enclaves: from bytes to what they prove.
//!
//! [`verify_with`] is the one function that believes a document: structure, certificate chain to a pinned
//! root, signature, freshness, measurements, binding. It is the same for genuine documents and for
//! those of the simulated NSM; only the [`TrustAnchor`] differs. [`decode_unverified`] shows what a
//! document says and believes nothing.
//!
//! [`verify`] is the same on AWS-LC, the default backend. Without the feature `aws-lc` the crate is Rust
//! alone and has no dependency that builds C: what a WebAssembly or a C library of the verifier needs is
//! a [`SignatureVerifier`], as `examples/portable-verifier` has one. All rules are here; a backend
//! answers whether one ES384 signature is good, and computes SHA-384.
//!
//! This crate does no I/O and reads no clock: the time is an argument. Its input may come from an
//! attacker, so every length and count is bounded before it is used ([`document`]). Producing
//! documents is the work of `cloister-nsm` and `cloister-nsm-sim`.
//!
//! The format is that of [NSM-AP], RFC 9052 (COSE), RFC 8949 (CBOR) and RFC 5280 (X.509).
//!
//! [NSM-AP]: https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md

#![forbid(unsafe_code)]

mod anchor;
#[cfg(feature = "aws-lc")]
mod aws_lc;
pub mod cbor;
mod chain;
mod claims;
pub mod document;
mod error;
mod measurements;
mod policy;
mod remembering;
mod signature;
mod time;
mod verify;
mod x509;

pub use anchor::{AnchorError, TrustAnchor};
#[cfg(feature = "aws-lc")]
pub use aws_lc::{AwsLc, verify};
pub use chain::{ChainError, Link};
pub use claims::{Claims, Decoded, decode_unverified};
pub use error::VerifyError;
pub use measurements::{Measurements, PCR_BYTES, PcrIndex, Pcrs, hex};
pub use policy::{
    DEFAULT_LEEWAY, DEFAULT_MAX_AGE, MAX_LEEWAY, MAX_SETS, Policy, PolicyBuilder, PolicyError,
};
pub use remembering::{MAX_REMEMBERED, MAX_REMEMBERED_DOCUMENTS, Remembering};
pub use signature::{P384PublicKey, SignatureForm, SignatureRefused, SignatureVerifier};
pub use time::UnixMillis;
pub use verify::verify_with;
pub use x509::{CertificateError, subject_public_key_info};
