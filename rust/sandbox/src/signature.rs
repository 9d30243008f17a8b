//! The signature section of an EIF: CBOR, a certificate and a COSE signature over PCR0.
//!
//! Checked as the hypervisor does before it fills PCR8: the payload is PCR0 of this image and the
//! signature is the certificate's. Whether the certificate is anyone's to trust is not asked here;
//! PCR8 is its hash, and clients pin that.
//!
//! Both `signing_certificate` and `signature` are arrays of small integers, not byte strings, as
//! [aws-nitro-enclaves-image-format] writes them (`src/utils/eif_signer.rs`).
//!
//! [aws-nitro-enclaves-image-format]: https://github.com/aws/aws-nitro-enclaves-image-format

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minicbor::{Decoder, Encoder};
use thiserror::Error;

/// Largest signature section read, in bytes.
pub const MAX_SECTION_BYTES: usize = 32 << 10;

/// Why a signed image was refused.
#[non_exhaustive]
#[derive(Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The signature is not the certificate's.
    #[error("the image's signature was not made by its signing certificate")]
    Forged,
    /// Not the CBOR, PEM or DER that it should be.
    #[error("EIF signature section: `{0}` is malformed")]
    Malformed(&'static str),
    /// It signs another image.
    #[error("the image's signature is for another image: it signs another PCR0")]
    OtherImage,
}

/// Checks the section against `pcr0` and returns the signing certificate, DER.
///
/// # Errors
///
/// [`SignatureError`], in the order: the section's form, the payload, the signature.
pub fn verify(section: &[u8], pcr0: &[u8; 48]) -> Result<Vec<u8>, SignatureError> {
    let bad = |what: &'static str| SignatureError::Malformed(what);
    if section.len() > MAX_SECTION_BYTES {
        return Err(bad("length"));
    }
    let (pem, cose) = read_section(section).ok_or_else(|| bad("section"))?;
    let certificate = pem_to_der(&pem).ok_or_else(|| bad("signing_certificate"))?;
    let message = Message::read(&cose).ok_or_else(|| bad("signature"))?;
    if message.protected != ES384 {
        return Err(bad("protected header"));
    }
    let (index, value) = read_payload(&message.payload).ok_or_else(|| bad("payload"))?;
    if index != 0 || value != pcr0 {
        return Err(SignatureError::OtherImage);
    }
    let point = p384_point(&certificate).ok_or_else(|| bad("public key"))?;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .verify(&message.to_be_signed(), &message.signature)
        .map_err(|_| SignatureError::Forged)?;
    Ok(certificate)
}

/// `{1: -35}`: the algorithm is ES384.
const ES384: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

struct Message {
    protected: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Message {
    fn read(cose: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(cose);
        if decoder.array().ok()? != Some(4) {
            return None;
        }
        let protected = decoder.bytes().ok()?.to_vec();
        if decoder.map().ok()? != Some(0) {
            return None;
        }
        let payload = decoder.bytes().ok()?.to_vec();
        let signature = decoder.bytes().ok()?.to_vec();
        (decoder.position() == cose.len()).then_some(Self {
            protected,
            payload,
            signature,
        })
    }

    /// `Sig_structure` of RFC 9052 §4.4.
    fn to_be_signed(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        // Writing to a vector cannot fail.
        let _ = encoder.array(4).and_then(|encoder| {
            encoder
                .str("Signature1")?
                .bytes(&self.protected)?
                .bytes(&[])?
                .bytes(&self.payload)
        });
        encoder.into_writer()
    }
}

fn read_section(section: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut decoder = Decoder::new(section);
    if decoder.array().ok()? != Some(1) || decoder.map().ok()? != Some(2) {
        return None;
    }
    let (mut certificate, mut signature) = (None, None);
    for _ in 0..2 {
        let slot = match decoder.str().ok()? {
            "signing_certificate" => &mut certificate,
            "signature" => &mut signature,
            _ => return None,
        };
        if slot.is_some() {
            return None;
        }
        *slot = Some(small_integers(&mut decoder)?);
    }
    (decoder.position() == section.len()).then_some((certificate?, signature?))
}

fn read_payload(payload: &[u8]) -> Option<(i32, Vec<u8>)> {
    let mut decoder = Decoder::new(payload);
    if decoder.map().ok()? != Some(2) {
        return None;
    }
    let (mut index, mut value) = (None, None);
    for _ in 0..2 {
        match decoder.str().ok()? {
            "register_index" if index.is_none() => index = Some(decoder.i32().ok()?),
            "register_value" if value.is_none() => value = Some(small_integers(&mut decoder)?),
            _ => return None,
        }
    }
    (decoder.position() == payload.len()).then_some((index?, value?))
}

fn small_integers(decoder: &mut Decoder<'_>) -> Option<Vec<u8>> {
    let length = decoder.array().ok()??;
    // Each integer takes at least a byte of the section, which is bounded: no allocation from the
    // number itself.
    let mut bytes = Vec::new();
    for _ in 0..length {
        bytes.push(decoder.u8().ok()?);
    }
    Some(bytes)
}

fn pem_to_der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?.trim();
    let body = text
        .strip_prefix("-----BEGIN CERTIFICATE-----")?
        .strip_suffix("-----END CERTIFICATE-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

/// The public key of an X.509 certificate (RFC 5280 §4.1), when it is an uncompressed P-384 point.
fn p384_point(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, after) = element(certificate, SEQUENCE)?;
    if !after.is_empty() {
        return None;
    }
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    if let Some((_, after)) = element(fields, EXPLICIT_0) {
        fields = after;
    }
    // Serial number, signature algorithm, issuer, validity, subject.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        (_, fields) = element(fields, tag)?;
    }
    let (key, _) = element(fields, SEQUENCE)?;
    let (algorithm, key) = element(key, SEQUENCE)?;
    let (point, after) = element(key, BIT_STRING)?;
    if algorithm != EC_P384 || !after.is_empty() {
        return None;
    }
    // The first byte of a bit string counts the unused bits of its last.
    point.strip_prefix(&[0])
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const EXPLICIT_0: u8 = 0xa0;
/// `id-ecPublicKey`, `secp384r1` (RFC 5480 §2.1.1).
const EC_P384: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];

/// The contents of the DER element of kind `tag` at the start of `bytes`, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0_usize, |length, &digit| length << 8 | usize::from(digit));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    /// Just enough of a certificate around `point`.
    fn certificate(point: &[u8]) -> Vec<u8> {
        fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
            let body = parts.concat();
            let mut out = vec![tag, 0x82];
            out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
            out.extend(body);
            out
        }
        let key = wrap(
            SEQUENCE,
            &[
                &wrap(SEQUENCE, &[EC_P384]),
                &wrap(BIT_STRING, &[&[0], point]),
            ],
        );
        let empty = wrap(SEQUENCE, &[]);
        let version = wrap(EXPLICIT_0, &[&[INTEGER, 1, 2]]);
        let serial = [INTEGER, 1, 1];
        let body = wrap(
            SEQUENCE,
            &[&version, &serial, &empty, &empty, &empty, &empty, &key],
        );
        wrap(SEQUENCE, &[&body, &empty])
    }

    fn integers(encoder: &mut Encoder<Vec<u8>>, bytes: &[u8]) {
        encoder.array(u64::try_from(bytes.len()).unwrap()).unwrap();
        for byte in bytes {
            encoder.u8(*byte).unwrap();
        }
    }

    fn signed(pcr0: &[u8; 48]) -> Vec<u8> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let mut payload = Encoder::new(Vec::new());
        payload
            .map(2)
            .unwrap()
            .str("register_index")
            .unwrap()
            .u8(0)
            .unwrap();
        payload.str("register_value").unwrap();
        integers(&mut payload, pcr0);
        let mut message = Message {
            protected: ES384.to_vec(),
            payload: payload.into_writer(),
            signature: Vec::new(),
        };
        let made = pair
            .sign(&SystemRandom::new(), &message.to_be_signed())
            .unwrap();
        message.signature = made.as_ref().to_vec();
        let mut cose = Encoder::new(Vec::new());
        cose.array(4)
            .unwrap()
            .bytes(&message.protected)
            .unwrap()
            .map(0)
            .unwrap();
        cose.bytes(&message.payload)
            .unwrap()
            .bytes(&message.signature)
            .unwrap();
        let der = certificate(pair.public_key().as_ref());
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(der)
        );
        let mut section = Encoder::new(Vec::new());
        section
            .array(1)
            .unwrap()
            .map(2)
            .unwrap()
            .str("signing_certificate")
            .unwrap();
        integers(&mut section, pem.as_bytes());
        section.str("signature").unwrap();
        integers(&mut section, &cose.into_writer());
        section.into_writer()
    }

    #[test]
    fn a_signature_over_this_image_gives_the_certificate() {
        let section = signed(&[7; 48]);
        assert_eq!(verify(&section, &[7; 48]).unwrap().first(), Some(&SEQUENCE));
    }

    /// A signed image whose contents were replaced afterwards.
    #[test]
    fn a_signature_over_another_image_is_refused() {
        assert_eq!(
            verify(&signed(&[7; 48]), &[8; 48]),
            Err(SignatureError::OtherImage)
        );
    }

    #[test]
    fn no_changed_byte_of_the_signature_passes() {
        let section = signed(&[7; 48]);
        let tail = section.len().saturating_sub(60);
        for at in tail..section.len() {
            let mut forged = section.clone();
            forged[at] ^= 1;
            assert!(verify(&forged, &[7; 48]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_cut_section_is_refused() {
        let section = signed(&[7; 48]);
        for length in 0..section.len() {
            verify(&section[..length], &[7; 48]).unwrap_err();
        }
    }
}
