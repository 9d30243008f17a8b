//! Whether a certificate chain that came from outside may be used.

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::key::TlsKey;
use super::{CertificateError, validity};

/// Reads a PEM chain, leaf first: 1 to [`MAX_CHAIN`] certificates.
///
/// # Errors
///
/// [`CertificateError::Malformed`].
pub fn read_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(CertificateError::Malformed("is longer than 256 KiB"));
    }
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        chain.push(certificate.map_err(|_| CertificateError::Malformed("is not PEM"))?);
        if chain.len() > MAX_CHAIN {
            return Err(CertificateError::Malformed("has more than 10 certificates"));
        }
    }
    if chain.is_empty() {
        return Err(CertificateError::Malformed("has no certificate"));
    }
    Ok(chain)
}

/// Checks that the leaf carries `key`, is valid at `now_ms` and is for every name of `domains`.
///
/// Who signed it is not checked: that is for clients to judge.
pub(super) fn check(
    chain: &[CertificateDer<'static>],
    key: &TlsKey,
    domains: &[String],
    now_ms: u64,
) -> Result<(), CertificateError> {
    let leaf = chain
        .first()
        .ok_or(CertificateError::Malformed("has no certificate"))?;
    let parsed = ParsedCertificate::try_from(leaf)
        .map_err(|_| CertificateError::Malformed("is not X.509 version 3"))?;
    CertifiedKey::new(chain.to_vec(), key.signing())
        .keys_match()
        .map_err(|_inconsistent| CertificateError::AnotherKey)?;
    let dates = validity::of(leaf).ok_or(CertificateError::Malformed("is not X.509"))?;
    let now_s = i64::try_from(now_ms.checked_div(1_000).unwrap_or(0)).unwrap_or(i64::MAX);
    // A fresh certificate may begin a little after this clock.
    let begins = dates.not_before.saturating_sub(LEEWAY_S);
    if now_s < begins || now_s >= dates.not_after {
        return Err(CertificateError::NotNow {
            now_s,
            not_before: dates.not_before,
            not_after: dates.not_after,
        });
    }
    for name in domains {
        let refused = || CertificateError::AnotherName { name: name.clone() };
        let server = ServerName::try_from(name.as_str()).map_err(|_| refused())?;
        verify_server_name(&parsed, &server).map_err(|_| refused())?;
    }
    Ok(())
}

/// Most certificates in a chain.
pub const MAX_CHAIN: usize = 10;
/// Longest chain read, PEM bytes.
const MAX_PEM_BYTES: usize = 256 * 1024;
/// How far a certificate's begin may lie ahead, seconds.
const LEEWAY_S: i64 = 300;
