//! From the leaf certificate of a document to the pinned root: RFC 5280 §6, as far as the profile of
//! these chains goes.
//!
//! There is one path, in the order of the bundle; none is searched. Revocation is not checked: the
//! leaf lives 3 hours, and checking it would need the network. Names are compared byte by byte
//! (RFC 5280 §7.1 allows more; genuine chains need no more).

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::anchor::TrustAnchor;
use crate::signature::{P384PublicKey, SignatureForm, SignatureVerifier};
use crate::time::UnixMillis;
use crate::x509::Certificate;

/// What a valid chain gives: the key of its leaf, and how long it is good for.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) key: P384PublicKey,
    pub(crate) not_after: UnixMillis,
}

/// Checks the chain `anchor` → `bundle` (root first) → `leaf` at the time `now`.
///
/// # Errors
///
/// The first rule that a certificate breaks, from the root down; for each one: that it is there once, names, key and
/// algorithm, validity, authority, signature.
pub(crate) fn verify_chain(
    leaf: &Certificate<'_>,
    bundle: &[(&[u8], Certificate<'_>)],
    anchor: &TrustAnchor,
    now: UnixMillis,
    leeway: Duration,
    verifier: &impl SignatureVerifier,
) -> Result<Leaf, ChainError> {
    let root =
        Certificate::parse(anchor.der()).map_err(|_| ChainError::Key { link: Link::Anchor })?;
    check_validity(&root, Link::Anchor, now, leeway)?;
    let mut key = key_of(&root, Link::Anchor)?;
    let mut above = &root;
    let mut path_budget = root.path_length.map(usize::from);

    // The bundle starts with a copy of the root. It is passed over when it is the pinned one; any
    // other first certificate has to be signed by the pinned one like the rest.
    let copied = bundle.first().is_some_and(|(der, _)| *der == anchor.der());
    for (position, (der, certificate)) in bundle.iter().enumerate().skip(usize::from(copied)) {
        let link = Link::Bundle(position);
        // §6.1: a certificate does not appear twice in a path, and the anchor is not in it.
        let above_it = bundle.iter().take(position).map(|(earlier, _)| earlier);
        if *der == anchor.der() || above_it.into_iter().any(|earlier| earlier == der) {
            return Err(ChainError::Repeated { link });
        }
        check_issued(certificate, link, above, &key, now, leeway, verifier)?;
        // §6.1.4 (k), (n): an intermediate is a CA whose key may sign certificates.
        if !certificate.is_ca {
            return Err(ChainError::NotAuthority { link });
        }
        if !certificate.key_usage.can_sign_certificates {
            return Err(ChainError::KeyUsage { link });
        }
        // §6.1.4 (l), (m): how many more intermediates may follow.
        path_budget = match path_budget {
            Some(left) => Some(left.checked_sub(1).ok_or(ChainError::PathLength { link })?),
            None => None,
        };
        if let Some(length) = certificate.path_length.map(usize::from) {
            path_budget = Some(path_budget.map_or(length, |left| left.min(length)));
        }
        key = key_of(certificate, link)?;
        above = certificate;
    }

    check_issued(leaf, Link::Leaf, above, &key, now, leeway, verifier)?;
    // A leaf that may sign certificates could be an intermediate in disguise; genuine ones are
    // CA:FALSE with digitalSignature.
    if leaf.is_ca {
        return Err(ChainError::LeafIsAuthority);
    }
    if !leaf.key_usage.can_sign_data {
        return Err(ChainError::KeyUsage { link: Link::Leaf });
    }
    Ok(Leaf {
        key: key_of(leaf, Link::Leaf)?,
        not_after: leaf.not_after,
    })
}

/// What holds for every certificate below the root (RFC 5280 §6.1.3).
fn check_issued(
    certificate: &Certificate<'_>,
    link: Link,
    issuer: &Certificate<'_>,
    issuer_key: &P384PublicKey,
    now: UnixMillis,
    leeway: Duration,
    verifier: &impl SignatureVerifier,
) -> Result<(), ChainError> {
    // §6.1.3 (a)(4): names chain.
    if certificate.issuer != issuer.subject {
        return Err(ChainError::Issuer { link });
    }
    if !certificate.is_es384 {
        return Err(ChainError::Algorithm { link });
    }
    // §6.1.3 (a)(2).
    check_validity(certificate, link, now, leeway)?;
    // §6.1.4 (o), §6.1.5 (f): a critical extension that is not understood.
    if certificate.has_unknown_critical {
        return Err(ChainError::CriticalExtension { link });
    }
    // §6.1.3 (a)(1).
    verifier
        .verify_es384(
            issuer_key,
            SignatureForm::Der,
            certificate.signed,
            certificate.signature,
        )
        .map_err(|_| ChainError::Signature { link })
}

fn check_validity(
    certificate: &Certificate<'_>,
    link: Link,
    now: UnixMillis,
    leeway: Duration,
) -> Result<(), ChainError> {
    if now.plus(leeway) < certificate.not_before {
        let not_before = certificate.not_before;
        return Err(ChainError::NotYetValid {
            link,
            not_before,
            now,
        });
    }
    // The last second counts whole (§4.1.2.5: "through notAfter, inclusive").
    if now.minus(leeway) >= certificate.not_after.plus(Duration::from_secs(1)) {
        let not_after = certificate.not_after;
        return Err(ChainError::Expired {
            link,
            not_after,
            now,
        });
    }
    Ok(())
}

fn key_of(certificate: &Certificate<'_>, link: Link) -> Result<P384PublicKey, ChainError> {
    certificate.public_key.ok_or(ChainError::Key { link })
}

/// Which certificate of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The pinned root.
    Anchor,
    /// This one of the bundle, counted from 0, root first.
    Bundle(usize),
    /// The one whose key signs documents.
    Leaf,
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anchor => formatter.write_str("the trust anchor"),
            Self::Bundle(position) => write!(formatter, "`cabundle[{position}]`"),
            Self::Leaf => formatter.write_str("the leaf certificate"),
        }
    }
}

/// The rule that a certificate of the chain breaks.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// Another signature algorithm.
    #[error("{link} is not signed with ECDSA and SHA-384")]
    Algorithm {
        /// Which certificate.
        link: Link,
    },
    /// A critical extension without a meaning here.
    #[error("{link} has a critical extension that is not understood")]
    CriticalExtension {
        /// Which certificate.
        link: Link,
    },
    /// Its time is over.
    #[error("{link} expired at {not_after}, the time of verification is {now}")]
    Expired {
        /// Which certificate.
        link: Link,
        /// Its last moment.
        not_after: UnixMillis,
        /// The time of verification.
        now: UnixMillis,
    },
    /// Another issuer than the certificate above.
    #[error("{link} is issued by another name than the certificate above it has")]
    Issuer {
        /// Which certificate.
        link: Link,
    },
    /// Another kind of key.
    #[error("{link} has no ECDSA P-384 key")]
    Key {
        /// Which certificate.
        link: Link,
    },
    /// Its key may not be used for this.
    #[error("{link} has a key that may not sign what it signed")]
    KeyUsage {
        /// Which certificate.
        link: Link,
    },
    /// The leaf is a CA.
    #[error("the leaf certificate is a certificate authority")]
    LeafIsAuthority,
    /// An intermediate is not a CA.
    #[error("{link} is not a certificate authority")]
    NotAuthority {
        /// Which certificate.
        link: Link,
    },
    /// Its time has not begun.
    #[error("{link} is valid from {not_before}, the time of verification is {now}")]
    NotYetValid {
        /// Which certificate.
        link: Link,
        /// Its first moment.
        not_before: UnixMillis,
        /// The time of verification.
        now: UnixMillis,
    },
    /// More intermediates than one above allows.
    #[error("{link} makes the chain longer than a certificate above it allows")]
    PathLength {
        /// Which certificate.
        link: Link,
    },
    /// The same certificate again, or the trust anchor below itself.
    #[error("{link} is in the chain twice")]
    Repeated {
        /// Which certificate.
        link: Link,
    },
    /// Not signed by the certificate above.
    #[error("{link} is not signed by the certificate above it")]
    Signature {
        /// Which certificate.
        link: Link,
    },
}

impl ChainError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Expired { .. } => {
                "fetch a new document (its certificate lives 3 hours), or verify this one at its \
                 own time"
            }
            Self::NotYetValid { .. } => "set this machine's clock",
            Self::Issuer {
                link: Link::Bundle(_),
            }
            | Self::Signature {
                link: Link::Bundle(_),
            } => "a document of a simulated enclave verifies only under its own development root",
            _ => "expected the chain that the Nitro hypervisor issues",
        }
    }
}
