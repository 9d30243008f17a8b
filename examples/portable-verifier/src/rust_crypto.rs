//! ES384 and SHA-384 of `RustCrypto`, behind the trait of the verifier.

use cloister_attestation::{P384PublicKey, SignatureForm, SignatureRefused, SignatureVerifier};
use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{DerSignature, Signature, VerifyingKey};
use sha2::{Digest as _, Sha384};

/// [`SignatureVerifier`] without C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RustCrypto;

impl SignatureVerifier for RustCrypto {
    fn verify_es384(
        &self,
        key: &P384PublicKey,
        form: SignatureForm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRefused> {
        let key = VerifyingKey::from_sec1_bytes(&key.0).map_err(|_| SignatureRefused)?;
        // Both forms refuse zero and numbers that are not below the order.
        let signature = match form {
            SignatureForm::Der => {
                let der = DerSignature::from_bytes(signature).map_err(|_| SignatureRefused)?;
                Signature::try_from(der).map_err(|_| SignatureRefused)?
            }
            SignatureForm::Fixed => {
                Signature::from_slice(signature).map_err(|_| SignatureRefused)?
            }
        };
        key.verify(message, &signature)
            .map_err(|_| SignatureRefused)
    }

    fn sha384(&self, parts: &[&[u8]]) -> [u8; 48] {
        let mut hash = Sha384::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }
}
