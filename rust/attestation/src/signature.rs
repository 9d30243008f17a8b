//! ECDSA on P-384 with SHA-384 (ES384): the one signature of this format, behind a small trait.
//!
//! Signatures with a high `s` are accepted: half of the genuine documents have one, and RFC 9053
//! §2.1 has no low-s rule.

use std::fmt;

use thiserror::Error;

/// A P-384 point in its uncompressed form: 4, x, y (SEC 1 §2.3.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct P384PublicKey(pub [u8; 97]);

impl fmt::Debug for P384PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "P384PublicKey({})",
            crate::measurements::hex(&self.0)
        )
    }
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureForm {
    /// A DER sequence of two integers, as X.509 has it (RFC 5480, appendix A).
    Der,
    /// `r ‖ s`, 48 bytes each, as COSE has it (RFC 9053 §2.1).
    Fixed,
}

/// The signature does not verify under the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature does not verify")]
pub struct SignatureRefused;

/// Checks ES384 signatures: all the cryptography that a verifier needs.
///
/// A trait, because the verifier itself runs anywhere and no implementation of P-384 does:
/// `AwsLc` (with the feature `aws-lc`) is the fastest by far and is C and assembly, which browsers do
/// not run. `examples/portable-verifier` has one that is Rust alone.
pub trait SignatureVerifier {
    /// Checks that `signature` is over `message` by the owner of `key`.
    ///
    /// # Errors
    ///
    /// It is not, or `key` is no point of the curve.
    fn verify_es384(
        &self,
        key: &P384PublicKey,
        form: SignatureForm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRefused>;

    /// SHA-384 (FIPS 180-4) of all `parts`, one after the other.
    ///
    /// It stands for `user_data` in the message of [`crate::VerifyError::BindingMismatch`].
    fn sha384(&self, parts: &[&[u8]]) -> [u8; 48];
}
