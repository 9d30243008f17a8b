//! A TLS key, P-256, and what is signed with it: requests and self-signed certificates.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

use super::CertificateError;

/// A private key for TLS. It has no text form.
pub struct TlsKey {
    signing: Arc<dyn SigningKey>,
    spki: Arc<[u8]>,
    /// The same key in the form that signs requests; absent for a key that was given.
    pair: Option<KeyPair>,
}

impl TlsKey {
    /// Makes a P-256 key from the process's random source.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Make`].
    pub fn generate() -> Result<Self, CertificateError> {
        let pair = KeyPair::generate().map_err(make)?;
        let pkcs8 = Zeroizing::new(pair.serialize_der());
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
        let signing = any_supported_type(&der).map_err(make)?;
        let spki = pair.subject_public_key_info().into();
        Ok(Self {
            signing,
            spki,
            pair: Some(pair),
        })
    }

    /// Takes a key back that [`TlsKey::to_pkcs8`] gave.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Make`]: not a P-256 key in PKCS#8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, CertificateError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(make)?;
        let signing = any_supported_type(&PrivateKeyDer::Pkcs8(der)).map_err(make)?;
        let spki = pair.subject_public_key_info().into();
        Ok(Self {
            signing,
            spki,
            pair: Some(pair),
        })
    }

    /// The key in PKCS#8, to be sealed; `None` for one that was given.
    pub fn to_pkcs8(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.pair
            .as_ref()
            .map(|pair| Zeroizing::new(pair.serialize_der()))
    }

    /// Reads a key from PEM (PKCS#8, SEC1 or PKCS#1).
    ///
    /// # Errors
    ///
    /// [`CertificateError::Make`]: not a private key, or of an algorithm that TLS does not use here.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(make)?;
        let signing = any_supported_type(&der).map_err(make)?;
        let spki = signing
            .public_key()
            .ok_or_else(|| CertificateError::Make("the key has no public half".to_owned()))?
            .as_ref()
            .into();
        Ok(Self {
            signing,
            spki,
            pair: None,
        })
    }

    /// DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> Arc<[u8]> {
        Arc::clone(&self.spki)
    }

    /// A PKCS#10 request for `names`, DER.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Make`].
    pub fn request(&self, names: &[String]) -> Result<Vec<u8>, CertificateError> {
        let params = parameters(names)?;
        let request = params.serialize_request(self.pair()?).map_err(make)?;
        Ok(request.der().to_vec())
    }

    pub(super) fn signing(&self) -> Arc<dyn SigningKey> {
        Arc::clone(&self.signing)
    }

    /// A certificate that this key signs for itself, good from a day ago for [`SELF_SIGNED_LIFE`].
    pub(super) fn self_signed(
        &self,
        names: &[String],
        now_ms: u64,
    ) -> Result<CertificateDer<'static>, CertificateError> {
        let mut params = parameters(names)?;
        limit(&mut params, now_ms);
        let certificate = params.self_signed(self.pair()?).map_err(make)?;
        Ok(certificate.der().clone())
    }

    fn pair(&self) -> Result<&KeyPair, CertificateError> {
        self.pair
            .as_ref()
            .ok_or_else(|| CertificateError::Make("the key was given, not made here".to_owned()))
    }
}

fn parameters(names: &[String]) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names).map_err(make)?;
    let mut subject = DistinguishedName::new();
    if let Some(first) = names.first() {
        subject.push(DnType::CommonName, first.as_str());
    }
    params.distinguished_name = subject;
    Ok(params)
}

/// Valid from a day before `now_ms` to [`SELF_SIGNED_LIFE`] after it.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "the time is cut to a year that X.509 can say"
)]
fn limit(params: &mut CertificateParams, now_ms: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(now_ms).min(LATEST);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + SELF_SIGNED_LIFE;
}

fn make(error: impl fmt::Display) -> CertificateError {
    CertificateError::Make(error.to_string())
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsKey").finish_non_exhaustive()
    }
}

/// Names that every local certificate is for, whatever the configured domains.
pub const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Life of a self-signed certificate; it is a stand-in.
const SELF_SIGNED_LIFE: Duration = Duration::from_secs(30 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);
/// About the year 9500; X.509 ends in 9999.
const LATEST: Duration = Duration::from_secs(7_530 * 31_556_952);
