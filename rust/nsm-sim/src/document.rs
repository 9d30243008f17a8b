//! Writing and signing documents, as the hypervisor does since 2025-09: `COSE_Sign1` without a tag,
//! around an indefinite map.

use cloister_attestation::UnixMillis;
use cloister_attestation::cbor::Writer;
use cloister_attestation::document::{DIGEST, ES384, HEADER_ALGORITHM, signature_input};

use crate::certificate::SigningKey;
use crate::error::SimulatorError;

/// What a document shall say.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    /// Id of the enclave.
    pub module_id: &'a str,
    /// When it is made.
    pub timestamp: UnixMillis,
    /// Registers by index.
    pub pcrs: &'a [(u16, &'a [u8])],
    /// The leaf in DER.
    pub certificate: &'a [u8],
    /// The other certificates in DER, root first.
    pub cabundle: &'a [&'a [u8]],
    /// A key.
    pub public_key: Option<&'a [u8]>,
    /// Bytes of the enclave's choice.
    pub user_data: Option<&'a [u8]>,
    /// Bytes of the verifier's choice.
    pub nonce: Option<&'a [u8]>,
}

impl Payload<'_> {
    /// The payload as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.indefinite_map();
        out.text("module_id").text(self.module_id);
        out.text("digest").text(DIGEST);
        out.text("timestamp").unsigned(self.timestamp.0);
        out.text("pcrs").map(count(self.pcrs));
        for (index, value) in self.pcrs {
            out.unsigned(u64::from(*index)).bytes(value);
        }
        out.text("certificate").bytes(self.certificate);
        out.text("cabundle").array(count(self.cabundle));
        for certificate in self.cabundle {
            out.bytes(certificate);
        }
        out.text("public_key").bytes_or_null(self.public_key);
        out.text("user_data").bytes_or_null(self.user_data);
        out.text("nonce").bytes_or_null(self.nonce);
        out.end();
        out.into_bytes()
    }
}

/// A document around `payload`, signed with the leaf's key.
///
/// # Errors
///
/// [`SimulatorError::Crypto`]: no entropy.
pub fn sign(payload: &[u8], leaf: &SigningKey) -> Result<Vec<u8>, SimulatorError> {
    let mut header = Writer::new();
    header.map(1).integer(HEADER_ALGORITHM).integer(ES384);
    let header = header.into_bytes();
    let signature = leaf.sign(&signature_input(&header, payload))?;
    let mut out = Writer::new();
    out.array(4)
        .bytes(&header)
        .map(0)
        .bytes(payload)
        .bytes(&signature);
    Ok(out.into_bytes())
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}
