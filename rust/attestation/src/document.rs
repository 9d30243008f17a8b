//! The document as bytes: `COSE_Sign1` (RFC 9052 §4.2) around one CBOR map ([NSM-AP] §3.1, §3.2.2).
//!
//! Reading borrows and believes nothing. The unprotected header must be empty: it is the one part no
//! signature covers, and genuine documents have nothing in it. Unknown and missing fields are
//! refused, so a `NitroTPM` document, which chains to the same root and has `nitrotpm_pcrs` in place
//! of `pcrs`, is not one of ours.
//!
//! [NSM-AP]: https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md

use std::collections::BTreeMap;

use crate::cbor::{CborError, Reader, Writer};
use crate::error::VerifyError;
use crate::measurements::{PCR_COUNT, PcrIndex, Pcrs};
use crate::time::UnixMillis;

/// A document, read and not yet believed.
#[derive(Debug, Clone)]
pub(crate) struct Document<'a> {
    pub(crate) protected: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) signature: &'a [u8; SIGNATURE_BYTES],
    pub(crate) fields: Fields<'a>,
}

/// The fields of the payload, each within its bounds.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    pub(crate) module_id: &'a str,
    pub(crate) timestamp: UnixMillis,
    pub(crate) pcrs: Pcrs,
    pub(crate) certificate: &'a [u8],
    pub(crate) cabundle: Vec<&'a [u8]>,
    pub(crate) public_key: Option<&'a [u8]>,
    pub(crate) user_data: Option<&'a [u8]>,
    pub(crate) nonce: Option<&'a [u8]>,
}

impl<'a> Document<'a> {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Malformed`] with the first field that breaks a rule.
    pub(crate) fn parse(input: &'a [u8]) -> Result<Self, VerifyError> {
        if input.len() > MAX_DOCUMENT_BYTES {
            return Err(malformed("document", "is longer than 16 KiB"));
        }
        let mut reader = Reader::new(input);
        match reader.tag().map_err(at("document"))? {
            None | Some(COSE_SIGN1) => {}
            Some(_) => {
                return Err(malformed(
                    "document",
                    "has another tag than COSE_Sign1's 18",
                ));
            }
        }
        let mut parts = reader.array(4).map_err(at("document"))?;
        let mut next = |reader: &mut Reader<'a>| match reader.has_next(&mut parts) {
            Ok(true) => Ok(()),
            Ok(false) => Err(malformed(
                "document",
                "has fewer than the 4 parts of COSE_Sign1",
            )),
            Err(problem) => Err(at("document")(problem)),
        };
        next(&mut reader)?;
        let protected = reader.bytes(MAX_HEADER_BYTES).map_err(at("protected"))?;
        check_protected(protected)?;
        next(&mut reader)?;
        let mut unprotected = reader.map(0).map_err(at("unprotected"))?;
        if reader
            .has_next(&mut unprotected)
            .map_err(at("unprotected"))?
        {
            return Err(malformed("unprotected", "is not empty"));
        }
        next(&mut reader)?;
        let payload = reader.bytes(MAX_DOCUMENT_BYTES).map_err(at("payload"))?;
        next(&mut reader)?;
        let signature = reader.bytes(SIGNATURE_BYTES).map_err(at("signature"))?;
        let signature = signature
            .try_into()
            .map_err(|_| malformed("signature", "is not 96 bytes long"))?;
        if reader.has_next(&mut parts).map_err(at("document"))? {
            return Err(malformed(
                "document",
                "has more than the 4 parts of COSE_Sign1",
            ));
        }
        reader.finish().map_err(at("document"))?;
        let fields = Fields::parse(payload)?;
        Ok(Self {
            protected,
            payload,
            signature,
            fields,
        })
    }

    /// The bytes that the signature is over: `Sig_structure` (RFC 9052 §4.4).
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        signature_input(self.protected, self.payload)
    }
}

/// `Sig_structure` of RFC 9052 §4.4 for a `COSE_Sign1` without external data: what its signature is
/// over.
pub fn signature_input(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer
        .array(4)
        .text("Signature1")
        .bytes(protected)
        .bytes(&[])
        .bytes(payload);
    writer.into_bytes()
}

/// The algorithm, and nothing else, is in the protected header: `{1: -35}` (ES384).
fn check_protected(header: &[u8]) -> Result<(), VerifyError> {
    const FIELD: &str = "protected";
    let mut reader = Reader::new(header);
    let mut pairs = reader.map(1).map_err(at(FIELD))?;
    if !reader.has_next(&mut pairs).map_err(at(FIELD))? {
        return Err(malformed(FIELD, "names no algorithm"));
    }
    if reader.integer().map_err(at(FIELD))? != HEADER_ALGORITHM {
        return Err(malformed(FIELD, "has another header than the algorithm"));
    }
    if reader.integer().map_err(at(FIELD))? != ES384 {
        return Err(malformed(FIELD, "names another algorithm than ES384"));
    }
    if reader.has_next(&mut pairs).map_err(at(FIELD))? {
        return Err(malformed(FIELD, "has another header than the algorithm"));
    }
    reader.finish().map_err(at(FIELD))?;
    // What is left is a map until a break.
    if header != PROTECTED {
        return Err(malformed(FIELD, "is not in its shortest form"));
    }
    Ok(())
}

impl<'a> Fields<'a> {
    fn parse(payload: &'a [u8]) -> Result<Self, VerifyError> {
        let mut found = Found::default();
        let mut reader = Reader::new(payload);
        let mut pairs = reader.map(FIELD_COUNT).map_err(at("payload"))?;
        while reader.has_next(&mut pairs).map_err(at("payload"))? {
            let key = reader.text(MAX_KEY_BYTES).map_err(at("payload"))?;
            found.read(key, &mut reader)?;
        }
        reader.finish().map_err(at("payload"))?;
        found.complete()
    }
}

/// Fields seen up to now.
#[derive(Default)]
#[expect(
    clippy::option_option,
    reason = "absent, null and bytes are three states of a field"
)]
struct Found<'a> {
    module_id: Option<&'a str>,
    digest: Option<&'a str>,
    timestamp: Option<u64>,
    pcrs: Option<Pcrs>,
    certificate: Option<&'a [u8]>,
    cabundle: Option<Vec<&'a [u8]>>,
    public_key: Option<Option<&'a [u8]>>,
    user_data: Option<Option<&'a [u8]>>,
    nonce: Option<Option<&'a [u8]>>,
}

impl<'a> Found<'a> {
    fn read(&mut self, key: &str, reader: &mut Reader<'a>) -> Result<(), VerifyError> {
        match key {
            "module_id" => {
                let field = "module_id";
                once(
                    field,
                    &mut self.module_id,
                    reader.text(MAX_MODULE_ID_BYTES).map_err(at(field))?,
                )
            }
            "digest" => {
                let field = "digest";
                once(
                    field,
                    &mut self.digest,
                    reader.text(DIGEST.len()).map_err(at(field))?,
                )
            }
            "timestamp" => {
                let field = "timestamp";
                once(
                    field,
                    &mut self.timestamp,
                    reader.unsigned().map_err(at(field))?,
                )
            }
            "pcrs" => once("pcrs", &mut self.pcrs, read_pcrs(reader)?),
            "certificate" => once(
                "certificate",
                &mut self.certificate,
                read_certificate("certificate", reader)?,
            ),
            "cabundle" => once("cabundle", &mut self.cabundle, read_bundle(reader)?),
            "public_key" => {
                let value = reader.bytes_or_null(MAX_BYTES).map_err(at("public_key"))?;
                once("public_key", &mut self.public_key, value)
            }
            "user_data" => {
                let value = reader.bytes_or_null(MAX_BYTES).map_err(at("user_data"))?;
                once("user_data", &mut self.user_data, value)
            }
            "nonce" => {
                let value = reader.bytes_or_null(MAX_BYTES).map_err(at("nonce"))?;
                once("nonce", &mut self.nonce, value)
            }
            "nitrotpm_pcrs" => Err(malformed(
                "nitrotpm_pcrs",
                "is of a NitroTPM document, which is not of an enclave",
            )),
            _ => Err(malformed("payload", "has an unknown field")),
        }
    }

    fn complete(self) -> Result<Fields<'a>, VerifyError> {
        let module_id = self.module_id.ok_or_else(|| missing("module_id"))?;
        if module_id.is_empty() {
            return Err(malformed("module_id", "is empty"));
        }
        if self.digest.ok_or_else(|| missing("digest"))? != DIGEST {
            return Err(malformed("digest", "is not `SHA384`"));
        }
        let timestamp = self.timestamp.ok_or_else(|| missing("timestamp"))?;
        if timestamp == 0 {
            return Err(malformed("timestamp", "is zero"));
        }
        Ok(Fields {
            module_id,
            timestamp: UnixMillis(timestamp),
            pcrs: self.pcrs.ok_or_else(|| missing("pcrs"))?,
            certificate: self.certificate.ok_or_else(|| missing("certificate"))?,
            cabundle: self.cabundle.ok_or_else(|| missing("cabundle"))?,
            public_key: self.public_key.ok_or_else(|| missing("public_key"))?,
            user_data: self.user_data.ok_or_else(|| missing("user_data"))?,
            nonce: self.nonce.ok_or_else(|| missing("nonce"))?,
        })
    }
}

fn read_pcrs(reader: &mut Reader<'_>) -> Result<Pcrs, VerifyError> {
    const FIELD: &str = "pcrs";
    let mut values = BTreeMap::new();
    let mut pairs = reader.map(usize::from(PCR_COUNT)).map_err(at(FIELD))?;
    while reader.has_next(&mut pairs).map_err(at(FIELD))? {
        let index = PcrIndex::new(reader.unsigned().map_err(at(FIELD))?)
            .ok_or_else(|| malformed(FIELD, "has an index above 31"))?;
        let value = reader.bytes(64).map_err(at(FIELD))?;
        if !matches!(value.len(), 32 | 48 | 64) {
            return Err(malformed(
                FIELD,
                "has a value that is not 32, 48 or 64 bytes long",
            ));
        }
        if values.insert(index, value.to_vec()).is_some() {
            return Err(malformed(FIELD, "has an index twice"));
        }
    }
    // Whether an enclave is a debug one is decided by PCR0, so a document without it says nothing.
    if !values.contains_key(&PcrIndex::IMAGE) {
        return Err(malformed(FIELD, "has no PCR0"));
    }
    Ok(Pcrs(values))
}

fn read_bundle<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, VerifyError> {
    const FIELD: &str = "cabundle";
    let mut bundle = Vec::new();
    let mut items = reader.array(MAX_CERTIFICATES).map_err(at(FIELD))?;
    while reader.has_next(&mut items).map_err(at(FIELD))? {
        bundle.push(read_certificate(FIELD, reader)?);
    }
    if bundle.is_empty() {
        return Err(malformed(FIELD, "is empty"));
    }
    Ok(bundle)
}

fn read_certificate<'a>(
    field: &'static str,
    reader: &mut Reader<'a>,
) -> Result<&'a [u8], VerifyError> {
    let certificate = reader.bytes(MAX_CERTIFICATE_BYTES).map_err(at(field))?;
    if certificate.is_empty() {
        return Err(malformed(field, "has an empty certificate"));
    }
    Ok(certificate)
}

fn once<T>(field: &'static str, slot: &mut Option<T>, value: T) -> Result<(), VerifyError> {
    if slot.is_some() {
        return Err(malformed(field, "is there twice"));
    }
    *slot = Some(value);
    Ok(())
}

fn missing(field: &'static str) -> VerifyError {
    malformed(field, "is missing")
}

pub(crate) fn malformed(field: &'static str, problem: &'static str) -> VerifyError {
    VerifyError::Malformed { field, problem }
}

fn at(field: &'static str) -> impl Fn(CborError) -> VerifyError {
    move |problem| malformed(field, problem.0)
}

/// Largest document accepted, in bytes. The NSM's own response buffer is 12 KiB
/// (`NSM_RESPONSE_MAX_SIZE` in nsm-api, `src/driver/mod.rs`); genuine documents have 4 to 6 KiB.
pub const MAX_DOCUMENT_BYTES: usize = 16_384;
/// Most certificates in `cabundle`; genuine documents have 4.
pub const MAX_CERTIFICATES: usize = 8;
/// Largest certificate in bytes ([NSM-AP] §3.2.2.2).
///
/// [NSM-AP]: https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md
pub const MAX_CERTIFICATE_BYTES: usize = 1024;
/// Longest `public_key`, `user_data` and `nonce`, in bytes.
///
/// [NSM-AP] §2.2 allows 1024 in its grammar, §3.2.2.2 allows 512 for the latter two when validating,
/// which is also what the NSM takes in a request. The larger one is used: genuine documents with more
/// than 512 exist.
///
/// [NSM-AP]: https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md
pub const MAX_BYTES: usize = 1024;
/// Longest `module_id` in bytes; genuine ones have about 40.
pub const MAX_MODULE_ID_BYTES: usize = 256;
/// Length of an ES384 signature: `r ‖ s` (RFC 9053 §2.1).
pub const SIGNATURE_BYTES: usize = 96;
/// The CBOR tag of `COSE_Sign1` (RFC 9052 §2).
pub const COSE_SIGN1: u64 = 18;
/// Label of the algorithm header (RFC 9052 §3.1).
pub const HEADER_ALGORITHM: i64 = 1;
/// ECDSA with SHA-384 (RFC 9053 §2.1).
pub const ES384: i64 = -35;
/// The protected header, `{1: -35}`, in its one spelling.
const PROTECTED: &[u8] = &[0xa1, 0x01, 0x38, 0x22];
/// The digest of the registers.
pub const DIGEST: &str = "SHA384";

const FIELD_COUNT: usize = 9;
const MAX_KEY_BYTES: usize = 32;
const MAX_HEADER_BYTES: usize = 64;
