//! The development CA: signs what the data plane orders, for this process alone.

use std::time::Duration;

use cloister_attestation::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateSigningRequestDer;

/// A CA whose key is kept nowhere.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    leaf_life: Duration,
}

impl Authority {
    /// A CA that begins a day before `now`, and signs certificates that end `leaf_life` after it.
    pub(crate) fn new(now: UnixMillis, leaf_life: Duration) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Cloister development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut params, now, CA_LIFE);
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate_pem,
            leaf_life,
        })
    }

    /// The CA's certificate, PEM.
    pub(crate) fn certificate_pem(&self) -> String {
        self.certificate_pem.clone()
    }

    /// Checks a request's own signature and signs what it asks for: PEM, leaf first.
    pub(crate) fn sign(&self, request: &[u8], now: UnixMillis) -> Result<String, rcgen::Error> {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request)?;
        let params = &mut request.params;
        // Only the names are the asker's choice.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        limit(params, now, self.leaf_life);
        let leaf = request.signed_by(&self.issuer)?;
        Ok(leaf.pem() + &self.certificate_pem)
    }
}

/// From a day before `now` to `life` after it.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "the time is cut to a year that X.509 can say"
)]
fn limit(params: &mut CertificateParams, now: UnixMillis, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(now.0).min(LATEST);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + life;
}

const DAY: Duration = Duration::from_secs(86_400);
const CA_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// About the year 9500; X.509 ends in 9999.
const LATEST: Duration = Duration::from_secs(7_530 * 31_556_952);
