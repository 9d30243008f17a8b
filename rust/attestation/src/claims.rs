//! What a document says: believed ([`Claims`]) or not ([`Decoded`]).

use crate::document::{Document, malformed};
use crate::error::VerifyError;
use crate::measurements::Pcrs;
use crate::time::UnixMillis;
use crate::x509::Certificate;

/// What a document proved. Only [`crate::verify()`] makes it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Id of the enclave: instance id and enclave id on Nitro.
    pub module_id: String,
    /// When the document was made, by the hypervisor's clock.
    pub timestamp: UnixMillis,
    /// The locked registers.
    pub pcrs: Pcrs,
    /// A key of the enclave's choice.
    pub public_key: Option<Vec<u8>>,
    /// Bytes of the enclave's choice.
    pub user_data: Option<Vec<u8>>,
    /// The verifier's nonce.
    pub nonce: Option<Vec<u8>>,
    /// True for a debug enclave, which only a policy that asks for it accepts.
    pub is_debug: bool,
    /// When the leaf certificate expires.
    pub certificate_not_after: UnixMillis,
}

/// What a document says, **without anything being checked** but its form.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Id of the enclave, as it says.
    pub module_id: String,
    /// When the document was made, as it says.
    pub timestamp: UnixMillis,
    /// The registers, as it says.
    pub pcrs: Pcrs,
    /// A key.
    pub public_key: Option<Vec<u8>>,
    /// Bytes of the enclave's choice.
    pub user_data: Option<Vec<u8>>,
    /// A nonce.
    pub nonce: Option<Vec<u8>>,
    /// True when PCR0 is zero.
    pub is_debug: bool,
    /// The leaf certificate in DER.
    pub certificate: Vec<u8>,
    /// The other certificates in DER, root first.
    pub cabundle: Vec<Vec<u8>>,
    /// First and last moment of each certificate, root first, leaf last.
    pub validity: Vec<(UnixMillis, UnixMillis)>,
}

/// Reads a document and believes nothing of it.
///
/// # Errors
///
/// [`VerifyError::Malformed`]: the form is wrong, certificates included.
pub fn decode_unverified(document: &[u8]) -> Result<Decoded, VerifyError> {
    let document = Document::parse(document)?;
    let fields = document.fields;
    let mut validity = Vec::new();
    for der in &fields.cabundle {
        let certificate =
            Certificate::parse(der).map_err(|problem| malformed("cabundle", problem.0))?;
        validity.push((certificate.not_before, certificate.not_after));
    }
    let leaf = Certificate::parse(fields.certificate)
        .map_err(|problem| malformed("certificate", problem.0))?;
    validity.push((leaf.not_before, leaf.not_after));
    Ok(Decoded {
        module_id: fields.module_id.to_owned(),
        timestamp: fields.timestamp,
        is_debug: fields.pcrs.is_debug(),
        pcrs: fields.pcrs,
        public_key: fields.public_key.map(<[u8]>::to_vec),
        user_data: fields.user_data.map(<[u8]>::to_vec),
        nonce: fields.nonce.map(<[u8]>::to_vec),
        certificate: fields.certificate.to_vec(),
        cabundle: fields.cabundle.iter().map(|der| der.to_vec()).collect(),
        validity,
    })
}
