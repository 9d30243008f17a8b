//! The certificate that a chain must lead to.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::x509::{Certificate, CertificateError};

/// A pinned root certificate. The one in a document's own bundle is never trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustAnchor {
    der: Arc<[u8]>,
    is_aws: bool,
}

impl TrustAnchor {
    /// The root of AWS Nitro Enclaves: CN `aws.nitro-enclaves`, P-384, 2019-10-28 to 2049-10-28,
    /// SHA-256 of the DER `641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b`
    /// (<https://docs.aws.amazon.com/enclaves/latest/user/verify-root.html>).
    pub fn aws_nitro() -> Self {
        Self {
            der: Arc::from(AWS_NITRO_ROOT),
            is_aws: true,
        }
    }

    /// Another root, in DER: a development root, whose documents prove nothing to anybody who does
    /// not hold its key.
    ///
    /// # Errors
    ///
    /// [`AnchorError`]: not a certificate that can be a root of this format.
    pub fn dangerous_root(der: &[u8]) -> Result<Self, AnchorError> {
        let certificate = Certificate::parse(der)?;
        if certificate.public_key.is_none() {
            return Err(AnchorError::NotP384);
        }
        // What it says must hold cannot be passed over (RFC 5280 §6.2 lets an anchor carry constraints).
        if certificate.has_unknown_critical {
            return Err(AnchorError::CriticalExtension);
        }
        if !certificate.is_ca || !certificate.key_usage.can_sign_certificates {
            return Err(AnchorError::NotCa);
        }
        Ok(Self {
            is_aws: der == AWS_NITRO_ROOT,
            der: Arc::from(der),
        })
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// True for [`TrustAnchor::aws_nitro`].
    pub fn is_aws_nitro(&self) -> bool {
        self.is_aws
    }
}

impl fmt::Debug for TrustAnchor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_aws {
            "TrustAnchor::aws_nitro()"
        } else {
            "TrustAnchor::dangerous_root(…)"
        })
    }
}

/// Why a certificate cannot be a trust anchor.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnchorError {
    /// A critical extension without a meaning here.
    #[error("the root has a critical extension that is not understood")]
    CriticalExtension,
    /// It cannot be read.
    #[error("the root is not a certificate in DER: {0}")]
    Malformed(#[from] CertificateError),
    /// It cannot sign certificates.
    #[error("the root is not a certificate authority with keyCertSign")]
    NotCa,
    /// Its key is of another kind.
    #[error("the root has no ECDSA P-384 key")]
    NotP384,
}

const AWS_NITRO_ROOT: &[u8] = include_bytes!("aws_nitro_root.der");

#[cfg(test)]
mod tests {
    use super::*;

    /// The file in the repository is the certificate that AWS publishes the digest of.
    #[cfg(feature = "aws-lc")]
    #[test]
    fn the_pinned_root_has_the_published_digest() {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, AWS_NITRO_ROOT);
        assert_eq!(
            crate::hex(digest.as_ref()),
            "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
        );
        let root = Certificate::parse(AWS_NITRO_ROOT).unwrap();
        assert!(root.is_ca && root.public_key.is_some());
        assert_eq!(root.not_after.to_string(), "2049-10-28T14:28:05Z");
    }

    #[test]
    fn a_root_must_be_a_certificate() {
        assert!(matches!(
            TrustAnchor::dangerous_root(b"no"),
            Err(AnchorError::Malformed(_))
        ));
        let same = TrustAnchor::dangerous_root(AWS_NITRO_ROOT).unwrap();
        assert_eq!(same, TrustAnchor::aws_nitro());
    }
}
