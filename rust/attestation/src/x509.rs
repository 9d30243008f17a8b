//! X.509 certificates as they occur in attestation documents: read into what the chain check needs.
//!
//! A reader of its own, because the enclave carries it and the profile is small: version 3, one
//! signature algorithm, one key type, two extensions with meaning. It reads strictly and decides
//! nothing; [`crate::chain`] does. Each rule names the section of RFC 5280 it comes from.

mod der;

use thiserror::Error;

use self::der::{
    BIT_STRING, BOOLEAN, Der, EXTENSIONS, Element, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID,
    Problem, SEQUENCE, UTC_TIME, VERSION,
};
use crate::signature::P384PublicKey;
use crate::time::{UnixMillis, days_from_civil};

/// A certificate, read and not yet believed.
#[derive(Debug, Clone)]
pub(crate) struct Certificate<'a> {
    /// The signed part, as it stands.
    pub(crate) signed: &'a [u8],
    /// The signature, in DER.
    pub(crate) signature: &'a [u8],
    /// True when the signature is ECDSA with SHA-384.
    pub(crate) is_es384: bool,
    /// Name of the issuer, as it stands.
    pub(crate) issuer: &'a [u8],
    /// Name of the subject, as it stands.
    pub(crate) subject: &'a [u8],
    /// First moment of validity.
    pub(crate) not_before: UnixMillis,
    /// Last moment of validity.
    pub(crate) not_after: UnixMillis,
    /// The key, when it is an uncompressed P-384 point.
    pub(crate) public_key: Option<P384PublicKey>,
    /// basicConstraints says CA.
    pub(crate) is_ca: bool,
    /// basicConstraints' pathLenConstraint.
    pub(crate) path_length: Option<u8>,
    /// keyUsage; nothing is allowed when it is absent.
    pub(crate) key_usage: KeyUsage,
    /// A critical extension that is neither of the two was seen.
    pub(crate) has_unknown_critical: bool,
}

/// The two purposes that matter here (RFC 5280 §4.2.1.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyUsage {
    pub(crate) can_sign_data: bool,
    pub(crate) can_sign_certificates: bool,
}

/// A certificate that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CertificateError(pub(crate) Problem);

impl From<Problem> for CertificateError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl<'a> Certificate<'a> {
    /// Reads one certificate (RFC 5280 §4.1).
    pub(crate) fn parse(input: &'a [u8]) -> Result<Self, CertificateError> {
        let mut outer = Der::new(input);
        let mut certificate = outer.inside(SEQUENCE)?;
        outer.finish()?;
        let signed = certificate.expect(SEQUENCE)?;
        let algorithm = certificate.expect(SEQUENCE)?;
        let signature = der::whole_bytes(certificate.expect(BIT_STRING)?.contents)?;
        certificate.finish()?;
        read_signed(signed, algorithm.contents, signature)
    }
}

/// Reads the `TBSCertificate`; `algorithm` is that of the outer certificate.
fn read_signed<'a>(
    signed: Element<'a>,
    algorithm: &[u8],
    signature: &'a [u8],
) -> Result<Certificate<'a>, CertificateError> {
    let mut fields = Der::new(signed.contents);
    // §4.1.2.1: extensions need version 3, which is written as 2.
    let mut version = fields.inside(VERSION)?;
    if version.expect(INTEGER)?.contents != [2] {
        return Err("is not of version 3".into());
    }
    version.finish()?;
    // NOTE: §4.1.2.2 allows 20 bytes; genuine instance certificates have 21 (a 160-bit number with
    // its sign byte). The serial has no meaning here, so it is only bounded.
    let serial = fields.expect(INTEGER)?.contents;
    if serial.is_empty() || serial.len() > MAX_SERIAL_BYTES {
        return Err("has a serial number of a wrong length".into());
    }
    // §4.1.1.2: the algorithm outside must be the one that is signed.
    if fields.expect(SEQUENCE)?.contents != algorithm {
        return Err("names two signature algorithms".into());
    }
    let issuer = fields.expect(SEQUENCE)?;
    // §4.1.2.4: a name that is not empty.
    if issuer.contents.is_empty() {
        return Err("has no name of an issuer".into());
    }
    let mut validity = fields.inside(SEQUENCE)?;
    let not_before = time(validity.any()?)?;
    let not_after = time(validity.any()?)?;
    validity.finish()?;
    if not_after < not_before {
        return Err("ends before it begins".into());
    }
    let subject = fields.expect(SEQUENCE)?.whole;
    let public_key = public_key(fields.inside(SEQUENCE)?)?;
    // §4.1.2.8: unique identifiers must not be used; what is not an extension is refused here.
    let extensions = match fields.peek() {
        Some(EXTENSIONS) => Some(fields.inside(EXTENSIONS)?),
        _ => None,
    };
    fields.finish()?;
    let mut certificate = Certificate {
        signed: signed.whole,
        signature,
        is_es384: algorithm == ECDSA_WITH_SHA384,
        issuer: issuer.whole,
        subject,
        not_before,
        not_after,
        public_key,
        is_ca: false,
        path_length: None,
        key_usage: KeyUsage::default(),
        has_unknown_critical: false,
    };
    if let Some(mut extensions) = extensions {
        read_extensions(extensions.inside(SEQUENCE)?, &mut certificate)?;
        extensions.finish()?;
    }
    Ok(certificate)
}

/// The `SubjectPublicKeyInfo` of a certificate, as it stands: what a document binds a TLS key by. Of
/// the rest only the form is looked at; the key may be of any kind.
///
/// # Errors
///
/// [`CertificateError`]: not an X.509 certificate in DER.
pub fn subject_public_key_info(certificate: &[u8]) -> Result<&[u8], CertificateError> {
    let mut outer = Der::new(certificate);
    let mut fields = outer.inside(SEQUENCE)?.inside(SEQUENCE)?;
    outer.finish()?;
    if fields.peek() == Some(VERSION) {
        fields.any()?;
    }
    fields.expect(INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        fields.expect(SEQUENCE)?;
    }
    Ok(fields.expect(SEQUENCE)?.whole)
}

/// §4.1.2.9 and §4.2: each extension at most once; those without meaning here are passed over unless
/// they are critical.
fn read_extensions(mut all: Der<'_>, certificate: &mut Certificate<'_>) -> Result<(), Problem> {
    // §4.1: `SEQUENCE SIZE (1..MAX) OF Extension`.
    if all.is_empty() {
        return Err("has a list of no extensions");
    }
    let mut seen = Vec::new();
    while !all.is_empty() {
        let mut extension = all.inside(SEQUENCE)?;
        let name = extension.expect(OID)?.contents;
        let is_critical = match extension.peek() {
            Some(BOOLEAN) => der::boolean(extension.any()?.contents)?,
            _ => false,
        };
        let value = extension.expect(OCTET_STRING)?.contents;
        extension.finish()?;
        if seen.contains(&name) {
            return Err("has one extension twice");
        }
        if seen.len() >= MAX_EXTENSIONS {
            return Err("has too many extensions");
        }
        seen.push(name);
        match name {
            BASIC_CONSTRAINTS => {
                (certificate.is_ca, certificate.path_length) = basic_constraints(value)?;
            }
            KEY_USAGE => certificate.key_usage = key_usage(value)?,
            _ if is_critical => certificate.has_unknown_critical = true,
            _ => {}
        }
    }
    Ok(())
}

/// §4.2.1.9: `SEQUENCE { cA BOOLEAN DEFAULT FALSE, pathLenConstraint INTEGER OPTIONAL }`.
fn basic_constraints(value: &[u8]) -> Result<(bool, Option<u8>), Problem> {
    let mut outer = Der::new(value);
    let mut fields = outer.inside(SEQUENCE)?;
    outer.finish()?;
    let is_ca = match fields.peek() {
        Some(BOOLEAN) => der::boolean(fields.any()?.contents)?,
        _ => false,
    };
    let path_length = match fields.peek() {
        Some(INTEGER) => match fields.any()?.contents {
            [length @ 0..=127] => Some(*length),
            _ => return Err("has a path length out of range"),
        },
        _ => None,
    };
    fields.finish()?;
    if path_length.is_some() && !is_ca {
        return Err("has a path length and is not a CA");
    }
    Ok((is_ca, path_length))
}

/// §4.2.1.3: bit 0 is digitalSignature, bit 5 keyCertSign, counted from the most significant; nine bits
/// are named, and at least one must be set.
fn key_usage(value: &[u8]) -> Result<KeyUsage, Problem> {
    let mut outer = Der::new(value);
    let bits = der::named_bits(outer.expect(BIT_STRING)?.contents)?;
    outer.finish()?;
    match bits {
        [first] | [first, 0x80] => Ok(KeyUsage {
            can_sign_data: first & 0x80 != 0,
            can_sign_certificates: first & 0x04 != 0,
        }),
        _ => Err("has a key usage of a wrong length"),
    }
}

/// RFC 5480 §2.1.1 and §2.2: `id-ecPublicKey` with the named curve secp384r1, uncompressed.
fn public_key(mut fields: Der<'_>) -> Result<Option<P384PublicKey>, Problem> {
    let algorithm = fields.expect(SEQUENCE)?.contents;
    let point = der::whole_bytes(fields.expect(BIT_STRING)?.contents)?;
    fields.finish()?;
    Ok(match <[u8; 97]>::try_from(point) {
        Ok(point) if algorithm == EC_P384 && point.first() == Some(&4) => {
            Some(P384PublicKey(point))
        }
        _ => None,
    })
}

/// §4.1.2.5: `UTCTime` with seconds and Z until 2049, `GeneralizedTime` with seconds and Z from 2050.
fn time(element: Element<'_>) -> Result<UnixMillis, Problem> {
    const WRONG: Problem = "has a time that is not of RFC 5280's form";
    let digits = match element.tag {
        UTC_TIME | GENERALIZED_TIME => element.contents.strip_suffix(b"Z").ok_or(WRONG)?,
        _ => return Err(WRONG),
    };
    let number = |range: std::ops::Range<usize>| -> Result<u64, Problem> {
        digits
            .get(range)
            .ok_or(WRONG)?
            .iter()
            .try_fold(0_u64, |sum, digit| {
                let digit = (*digit as char).to_digit(10).ok_or(WRONG)?;
                Ok(sum.saturating_mul(10).saturating_add(u64::from(digit)))
            })
    };
    let (year, at) = match (element.tag, digits.len()) {
        (UTC_TIME, 12) => match number(0..2)? {
            short @ 50.. => (short.saturating_add(1900), 2),
            short => (short.saturating_add(2000), 2),
        },
        (GENERALIZED_TIME, 14) => match number(0..4)? {
            late @ 2050.. => (late, 4),
            _ => return Err(WRONG),
        },
        _ => return Err(WRONG),
    };
    let part = |index: usize| -> Result<u64, Problem> {
        let start = index.saturating_mul(2).saturating_add(at);
        number(start..start.saturating_add(2))
    };
    let days = days_from_civil(year, part(0)?, part(1)?).ok_or(WRONG)?;
    let (hour, minute, second) = (part(2)?, part(3)?, part(4)?);
    if hour > 23 || minute > 59 || second > 59 {
        return Err(WRONG);
    }
    let seconds = hour
        .saturating_mul(3600)
        .saturating_add(minute.saturating_mul(60))
        .saturating_add(second);
    Ok(UnixMillis::from_seconds(
        days.saturating_mul(86_400).saturating_add(seconds),
    ))
}

/// `ecdsa-with-SHA384`, 1.2.840.10045.4.3.3, without parameters (RFC 5758 §3.2).
const ECDSA_WITH_SHA384: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
/// `id-ecPublicKey` 1.2.840.10045.2.1 with secp384r1 1.3.132.0.34 (RFC 5480 §2.1.1).
const EC_P384: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];
/// 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// 2.5.29.15.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const MAX_SERIAL_BYTES: usize = 32;
const MAX_EXTENSIONS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Result<UnixMillis, Problem> {
        time(Element {
            tag: UTC_TIME,
            contents: text.as_bytes(),
            whole: &[],
        })
    }

    fn generalized(text: &str) -> Result<UnixMillis, Problem> {
        time(Element {
            tag: GENERALIZED_TIME,
            contents: text.as_bytes(),
            whole: &[],
        })
    }

    #[test]
    fn times_are_read_in_their_two_forms_and_no_other() {
        assert_eq!(
            utc("210305170149Z").unwrap().to_string(),
            "2021-03-05T17:01:49Z"
        );
        assert_eq!(
            utc("491231235959Z").unwrap().to_string(),
            "2049-12-31T23:59:59Z"
        );
        assert_eq!(
            generalized("20500101000000Z").unwrap().to_string(),
            "2050-01-01T00:00:00Z"
        );
        for wrong in [
            "2103051701Z",
            "210305170149",
            "210305170149+0000",
            "210230000000Z",
            "210305240000Z",
            "2103051701x9Z",
            "500101000000Z",
            "",
        ] {
            assert!(utc(wrong).is_err(), "{wrong}");
        }
        for wrong in ["20500101000000.5Z", "20491231235959Z", "00010101000000Z"] {
            assert!(generalized(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn constraints_are_read_as_written() {
        assert_eq!(basic_constraints(&[0x30, 0]), Ok((false, None)));
        assert_eq!(basic_constraints(&[0x30, 3, 1, 1, 0xff]), Ok((true, None)));
        assert_eq!(
            basic_constraints(&[0x30, 6, 1, 1, 0xff, 2, 1, 2]),
            Ok((true, Some(2)))
        );
        basic_constraints(&[0x30, 3, 2, 1, 2]).unwrap_err();
        basic_constraints(&[0x30, 0, 0]).unwrap_err();
        let sign_only = KeyUsage {
            can_sign_data: true,
            can_sign_certificates: false,
        };
        assert_eq!(key_usage(&[3, 2, 6, 0xc0]), Ok(sign_only));
        let certify = KeyUsage {
            can_sign_data: false,
            can_sign_certificates: true,
        };
        assert_eq!(key_usage(&[3, 2, 2, 0x04]), Ok(certify));
        assert_eq!(key_usage(&[3, 3, 7, 0x04, 0x80]), Ok(certify));
        // No bit; bits beyond the nine; more zeros than needed; padding that would read as keyCertSign.
        for wrong in [
            &[3, 1, 0][..],
            &[3, 3, 6, 0x04, 0x40],
            &[3, 2, 0, 0x04],
            &[3, 2, 8, 0],
            &[3, 2, 7, 0x84],
        ] {
            key_usage(wrong).unwrap_err();
        }
    }
}
