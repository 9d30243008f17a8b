//! Writing X.509 certificates (RFC 5280) with the exact extensions of the hypervisor's.
//!
//! A writer of its own, because the shape matters: the genuine leaf has basicConstraints and keyUsage
//! and nothing else, which certificate libraries do not write. Tests use it to make chains that are
//! wrong in one place.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use cloister_attestation::UnixMillis;

use crate::error::SimulatorError;

/// A P-384 key pair.
#[derive(Debug)]
pub struct SigningKey {
    pair: EcdsaKeyPair,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::Crypto`].
    pub fn generate() -> Result<Self, SimulatorError> {
        EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)
            .map(|pair| Self { pair })
            .map_err(|_| SimulatorError::Crypto { what: "make a key" })
    }

    /// A key from PKCS#8 in DER.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::Crypto`]: not a P-384 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SimulatorError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der)
            .map(|pair| Self { pair })
            .map_err(|_| SimulatorError::Crypto {
                what: "read a P-384 key",
            })
    }

    /// The key as PKCS#8 in DER.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::Crypto`].
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, SimulatorError> {
        self.pair
            .to_pkcs8v1()
            .map(|document| document.as_ref().to_vec())
            .map_err(|_| SimulatorError::Crypto {
                what: "write a key",
            })
    }

    /// The public half: an uncompressed point of 97 bytes.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// An ES384 signature as `r ‖ s`, 96 bytes.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::Crypto`]: no entropy.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| SimulatorError::Crypto { what: "sign" })
    }
}

/// What a certificate shall say.
#[derive(Debug, Clone)]
pub struct Certificate<'a> {
    /// Common name of the subject.
    pub subject: &'a str,
    /// Common name of the issuer.
    pub issuer: &'a str,
    /// The subject's key, as [`SigningKey::public`] gives it.
    pub public_key: &'a [u8],
    /// The issuer's key, for the authority key identifier.
    pub issuer_public_key: &'a [u8],
    /// First moment of validity; seconds count.
    pub not_before: UnixMillis,
    /// Last moment of validity; seconds count.
    pub not_after: UnixMillis,
    /// basicConstraints and, with it, which extensions there are.
    pub role: Role,
    /// keyUsage: the first byte of its bits.
    pub key_usage: u8,
    /// More extensions, for tests: object identifier (contents), critical, value.
    pub extra: &'a [(&'a [u8], bool, &'a [u8])],
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Certificate authority, with its path length.
    Authority(Option<u8>),
    /// Signs documents: no key identifiers, as the hypervisor's leaf.
    Leaf,
}

/// keyUsage of an authority: digitalSignature, keyCertSign, cRLSign.
pub const AUTHORITY_USAGE: u8 = 0x86;
/// keyUsage of the instance's certificate: keyCertSign.
pub const INSTANCE_USAGE: u8 = 0x04;
/// keyUsage of a leaf: digitalSignature, contentCommitment.
pub const LEAF_USAGE: u8 = 0xc0;

impl Certificate<'_> {
    /// The certificate in DER, signed with `issuer_key`.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::Crypto`]: no entropy.
    pub fn sign(&self, issuer_key: &SigningKey) -> Result<Vec<u8>, SimulatorError> {
        let signed = sequence(&[
            &tlv(0xa0, &[&tlv(INTEGER, &[&[2]])]),
            &serial()?,
            &signature_algorithm(),
            &name(self.issuer),
            &sequence(&[&time(self.not_before), &time(self.not_after)]),
            &name(self.subject),
            &public_key_info(self.public_key),
            &tlv(0xa3, &[&sequence(&[&self.extensions()])]),
        ]);
        let signature = der_signature(&issuer_key.sign(&signed)?);
        Ok(sequence(&[
            &signed,
            &signature_algorithm(),
            &bit_string(0, &signature),
        ]))
    }

    /// In the order of the hypervisor's certificates.
    fn extensions(&self) -> Vec<u8> {
        let constraints = match self.role {
            Role::Leaf => sequence(&[]),
            Role::Authority(None) => sequence(&[&tlv(BOOLEAN, &[&[0xff]])]),
            Role::Authority(Some(length)) => {
                sequence(&[&tlv(BOOLEAN, &[&[0xff]]), &tlv(INTEGER, &[&[length]])])
            }
        };
        let mut out = extension(BASIC_CONSTRAINTS, true, &constraints);
        if matches!(self.role, Role::Authority(_)) {
            if self.subject != self.issuer {
                let authority = sequence(&[&tlv(0x80, &[&key_id(self.issuer_public_key)])]);
                out.extend(extension(AUTHORITY_KEY_ID, false, &authority));
            }
            let subject = tlv(OCTET_STRING, &[&key_id(self.public_key)]);
            out.extend(extension(SUBJECT_KEY_ID, false, &subject));
        }
        let is_critical = matches!(self.role, Role::Authority(_));
        // DER drops trailing zero bits (X.690 §11.2.2).
        let unused = u8::try_from(self.key_usage.trailing_zeros().min(7)).unwrap_or(7);
        out.extend(extension(
            KEY_USAGE,
            is_critical,
            &bit_string(unused, &[self.key_usage]),
        ));
        for (oid, critical, value) in self.extra {
            out.extend(extension(oid, *critical, value));
        }
        out
    }
}

fn serial() -> Result<Vec<u8>, SimulatorError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SimulatorError::Crypto { what: "draw" })?;
    // Positive and in its shortest form: the first byte is 64 to 127.
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(tlv(INTEGER, &[&bytes]))
}

/// Names say at every place that this is not AWS.
fn name(common: &str) -> Vec<u8> {
    let part = |oid: &[u8], value: &str| {
        let pair = sequence(&[&tlv(OID, &[oid]), &tlv(UTF8_STRING, &[value.as_bytes()])]);
        tlv(SET, &[&pair])
    };
    sequence(&[
        &part(&[0x55, 4, 10], "Cloister development"),
        &part(&[0x55, 4, 11], "simulated, not AWS"),
        &part(&[0x55, 4, 3], common),
    ])
}

/// RFC 5280 §4.1.2.5: `UTCTime` until 2049.
fn time(at: UnixMillis) -> Vec<u8> {
    let digits: String = at
        .to_string()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    match digits.split_at_checked(2) {
        Some(("19" | "20", short)) if digits.as_str() < "2050" => {
            tlv(UTC_TIME, &[format!("{short}Z").as_bytes()])
        }
        _ => tlv(GENERALIZED_TIME, &[format!("{digits}Z").as_bytes()]),
    }
}

fn signature_algorithm() -> Vec<u8> {
    sequence(&[&tlv(OID, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]])])
}

fn public_key_info(point: &[u8]) -> Vec<u8> {
    let algorithm = sequence(&[
        &tlv(OID, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]]),
        &tlv(OID, &[&[0x2b, 0x81, 4, 0, 0x22]]),
    ]);
    sequence(&[&algorithm, &bit_string(0, point)])
}

/// RFC 7093 §2, method 1: the first 160 bits of SHA-256.
fn key_id(public_key: &[u8]) -> Vec<u8> {
    digest(&SHA256, public_key)
        .as_ref()
        .iter()
        .copied()
        .take(20)
        .collect()
}

fn extension(oid: &[u8], is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = tlv(BOOLEAN, &[&[0xff]]);
    let critical: &[u8] = if is_critical { &critical } else { &[] };
    sequence(&[&tlv(OID, &[oid]), critical, &tlv(OCTET_STRING, &[value])])
}

/// From `r ‖ s` to a sequence of two integers (RFC 5480, appendix A).
fn der_signature(fixed: &[u8]) -> Vec<u8> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    sequence(&[&unsigned(r), &unsigned(s)])
}

fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits: Vec<u8> = bytes.iter().copied().skip(zeros).collect();
    match digits.first() {
        None => tlv(INTEGER, &[&[0]]),
        Some(0x80..) => tlv(INTEGER, &[&[0], &digits]),
        Some(_) => tlv(INTEGER, &[&digits]),
    }
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, parts)
}

fn bit_string(unused: u8, bits: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[unused], bits])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let mut out = vec![tag];
    match (u8::try_from(contents.len()), u16::try_from(contents.len())) {
        (Ok(short @ 0..=0x7f), _) => out.push(short),
        (Ok(short), _) => out.extend_from_slice(&[0x81, short]),
        (Err(_), Ok(long)) => {
            out.push(0x82);
            out.extend_from_slice(&long.to_be_bytes());
        }
        // No caller has 64 KiB to write; the reader refuses such a length.
        (Err(_), Err(_)) => out.push(0xff),
    }
    out.extend(contents);
    out
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// 2.5.29.35.
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
/// 2.5.29.14.
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
/// 2.5.29.15.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
