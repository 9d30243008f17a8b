//! The default backend: [`SignatureVerifier`] on AWS-LC, which is C and assembly.

use aws_lc_rs::digest::{Context, SHA384};
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey, VerificationAlgorithm,
};

use crate::claims::Claims;
use crate::error::VerifyError;
use crate::policy::Policy;
use crate::signature::{P384PublicKey, SignatureForm, SignatureRefused, SignatureVerifier};
use crate::time::UnixMillis;
use crate::verify::verify_with;

/// [`verify_with`] on AWS-LC.
///
/// # Errors
///
/// As [`verify_with`].
pub fn verify(document: &[u8], policy: &Policy, now: UnixMillis) -> Result<Claims, VerifyError> {
    verify_with(document, policy, now, &AwsLc)
}

/// [`SignatureVerifier`] on AWS-LC.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl SignatureVerifier for AwsLc {
    fn verify_es384(
        &self,
        key: &P384PublicKey,
        form: SignatureForm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRefused> {
        let algorithm: &'static dyn VerificationAlgorithm = match form {
            SignatureForm::Der => &ECDSA_P384_SHA384_ASN1,
            SignatureForm::Fixed => &ECDSA_P384_SHA384_FIXED,
        };
        UnparsedPublicKey::new(algorithm, &key.0)
            .verify(message, signature)
            .map_err(|_| SignatureRefused)
    }

    fn sha384(&self, parts: &[&[u8]]) -> [u8; 48] {
        let mut hash = Context::new(&SHA384);
        for part in parts {
            hash.update(part);
        }
        let mut out = [0; 48];
        for (to, from) in out.iter_mut().zip(hash.finish().as_ref()) {
            *to = *from;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example, of the NIST page "SHA384.pdf": the two-block message.
    #[test]
    fn a_digest_is_that_of_the_parts_together() {
        let expected = "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712\
                        fcc7c71a557e2db966c3e9fa91746039";
        let message: &[u8] = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn\
                               hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
        assert_eq!(crate::hex(&AwsLc.sha384(&[message])), expected);
        let (head, tail) = message.split_at(31);
        assert_eq!(crate::hex(&AwsLc.sha384(&[head, &[], tail])), expected);
    }
}
