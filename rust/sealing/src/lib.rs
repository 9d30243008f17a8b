//! Bundles: what the platform signs with a service key and seals to one boot of one enclave.
//!
//! A bundle is CBOR, signed as a `COSE_Sign1` (RFC 9052) with Ed25519 (RFC 8032), and sealed with
//! HPKE in base mode (RFC 9180) to the X25519 key that the enclave proved by attestation. This crate
//! encodes, signs, seals, and does all of it backwards with every check that the enclave owes
//! itself. [`object`] seals what enclaves of one image keep at their host. It does no I/O, reads no
//! clock and has no randomness of its own.
//!
//! What it trusts: the service keys of the measured configuration. The host, which carries the
//! sealed bytes, can lose them and nothing else.

#![forbid(unsafe_code)]

pub mod bundle;
mod cose;
mod envelope;
mod error;
mod keys;
pub mod object;

pub use bundle::{ApiKeyRecord, AppKey, Bundle, Curve, EnvVar, Identity};
pub use cloister_ciphertext::{Random, RandomError};
pub use envelope::{Expected, MAX_SEALED_BYTES, open_bundle, recipient_digest, seal_bundle};
pub use error::{BundleError, SealingError};
pub use keys::{BootKey, ServiceKey};
pub use object::{ObjectError, Sealer, SealingSecret, Sharing};

/// `user_data` of the document that asks for a bundle: a byte that is not UTF-8, then the purpose.
///
/// The internal API makes documents whose `user_data` is UTF-8 text or a TLS key, so no application
/// can have one made that starts like this.
pub const PROVISION_USER_DATA: &[u8] = b"\xFFcloister/provision/v1";
