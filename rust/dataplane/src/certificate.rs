//! The TLS certificate in use: made inside, ordered from outside, swapped without dropping anybody.
//!
//! The private key is made in an enclave of this image and leaves it sealed to the image alone, so that
//! its enclaves can share it ([`shared`]). Whoever signs certificates is not believed: a chain that does not carry our key and our names is refused ([`chain`]). Clients
//! that attest are bound to the key by the document's `user_data`, whoever signed the certificate.
//!
//! A handshake takes [`Certificates::current`] once and uses that [`Current`] alone: the certificate
//! it shows and the key its attestation document binds are then the same, across any swap.

pub mod chain;
pub mod key;
pub mod orders;
pub mod shared;
mod validity;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use self::key::TlsKey;

/// Why a certificate is not used.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The certificate is not for a name that was ordered.
    #[error("the certificate is not for the ordered name `{name}`")]
    AnotherName {
        /// The ordered name.
        name: String,
    },
    /// The certificate is for another key.
    #[error("the certificate carries another key than the one made here")]
    AnotherKey,
    /// It has ended, or has not begun.
    #[error(
        "the certificate is not valid at {now_s}: it is from {not_before} to {not_after} (seconds since 1970)"
    )]
    NotNow {
        /// The time of the check.
        now_s: i64,
        /// Begin.
        not_before: i64,
        /// End.
        not_after: i64,
    },
    /// Making a key, a request or a certificate failed.
    #[error("cannot make a TLS key or certificate: {0}")]
    Make(String),
    /// Not PEM, no certificate in it, too many, or not X.509.
    #[error("the certificate chain {0}")]
    Malformed(&'static str),
}

/// Where a certificate is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Given at start, with its key.
    Given,
    /// Ordered through the host.
    Ordered,
    /// Made here, until an ordered one comes.
    SelfSigned,
}

/// One certificate with its key: everything a handshake needs.
pub struct Current {
    /// Chain and signing key, for rustls.
    pub certified: Arc<CertifiedKey>,
    /// DER `SubjectPublicKeyInfo` of the leaf: what the attestation document binds.
    pub spki: Arc<[u8]>,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
    /// Where it is from.
    pub origin: Origin,
    /// Rises with every swap: a cache of what was made from a certificate is keyed by it.
    pub generation: u64,
}

/// The certificate in use, shared by all workers.
pub struct Certificates {
    current: ArcSwap<Current>,
    generations: AtomicU64,
}

impl Certificates {
    /// Begins with a self-signed certificate of `key` for `names`.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Make`].
    pub fn self_signed(
        key: &TlsKey,
        names: &[String],
        now_ms: u64,
    ) -> Result<Self, CertificateError> {
        let leaf = key.self_signed(names, now_ms)?;
        Self::begin(vec![leaf], key, Origin::SelfSigned)
    }

    /// Begins with a certificate that was given with its key, in PEM, leaf first.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Malformed`], [`CertificateError::AnotherKey`], [`CertificateError::Make`].
    pub fn given(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, CertificateError> {
        let key = TlsKey::from_pem(key_pem)?;
        Self::begin(chain::read_pem(chain_pem)?, &key, Origin::Given)
    }

    /// The certificate in use.
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Checks an ordered chain and puts it in use; connections that exist are not touched.
    ///
    /// `domains` are the names that were ordered; `now_ms` is the time, in milliseconds since the
    /// Unix epoch.
    ///
    /// # Errors
    ///
    /// In this order: [`CertificateError::Malformed`], [`CertificateError::AnotherKey`],
    /// [`CertificateError::NotNow`], [`CertificateError::AnotherName`]. The certificate in use then
    /// stays.
    pub fn install(
        &self,
        chain_pem: &[u8],
        key: &TlsKey,
        domains: &[String],
        now_ms: u64,
    ) -> Result<Arc<Current>, CertificateError> {
        let chain = chain::read_pem(chain_pem)?;
        chain::check(&chain, key, domains, now_ms)?;
        self.swap(chain, key, Origin::Ordered)
    }

    /// Puts a self-signed certificate of `key` in use, until one is ordered for it.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Make`]. The certificate in use then stays.
    pub fn install_self_signed(
        &self,
        key: &TlsKey,
        names: &[String],
        now_ms: u64,
    ) -> Result<(), CertificateError> {
        let leaf = key.self_signed(names, now_ms)?;
        self.swap(vec![leaf], key, Origin::SelfSigned).map(drop)
    }

    fn swap(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &TlsKey,
        origin: Origin,
    ) -> Result<Arc<Current>, CertificateError> {
        let generation = self
            .generations
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        let next = Arc::new(Current::new(chain, key, origin, generation)?);
        self.current.store(Arc::clone(&next));
        Ok(next)
    }

    fn begin(
        chain: Vec<CertificateDer<'static>>,
        key: &TlsKey,
        origin: Origin,
    ) -> Result<Self, CertificateError> {
        let current = Current::new(chain, key, origin, 0)?;
        Ok(Self {
            current: ArcSwap::from_pointee(current),
            generations: AtomicU64::new(0),
        })
    }
}

impl Current {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &TlsKey,
        origin: Origin,
        generation: u64,
    ) -> Result<Self, CertificateError> {
        let leaf = chain
            .first()
            .ok_or(CertificateError::Malformed("has no certificate"))?;
        let validity = validity::of(leaf).ok_or(CertificateError::Malformed("is not X.509"))?;
        let certified = CertifiedKey::new(chain, key.signing());
        certified
            .keys_match()
            .map_err(|_inconsistent| CertificateError::AnotherKey)?;
        Ok(Self {
            certified: Arc::new(certified),
            spki: key.spki(),
            not_after: validity.not_after,
            origin,
            generation,
        })
    }
}

/// Shows the certificate in use, whatever name the client asked for.
impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

/// Shows this certificate and no later one.
impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.certified))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Current")
            .field("not_after", &self.not_after)
            .field("origin", &self.origin)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current.load().fmt(formatter)
    }
}

#[cfg(test)]
mod tests;
