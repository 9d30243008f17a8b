//! `COSE_Sign1` with Ed25519 (RFC 9052 §4.2, RFC 9053 §2.2): exactly one form of it.
//!
//! Untagged, protected header `{1: -8}`, unprotected header empty. Whatever else COSE allows is
//! refused, so that there is one encoding of one signed bundle.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use cloister_attestation::cbor::{CborError, Reader, Writer};
use zeroize::Zeroizing;

use crate::error::BundleError;
use crate::keys::ServiceKey;

/// `external_aad` of the signature.
const CONTEXT: &[u8] = b"cloister/bundle/v1";
/// CBOR of `{1: -8}`: algorithm `EdDSA`.
const PROTECTED: [u8; 3] = [0xA1, 0x01, 0x27];

/// Signs `payload`. The result holds its secrets.
pub(crate) fn sign(payload: &[u8], signer: &ServiceKey) -> Zeroizing<Vec<u8>> {
    let signature = signer.sign(&to_be_signed(payload));
    let mut out = Writer::with_capacity(payload.len().saturating_add(OVERHEAD_BYTES));
    out.array(4)
        .bytes(&PROTECTED)
        .map(0)
        .bytes(payload)
        .bytes(&signature);
    Zeroizing::new(out.into_bytes())
}

/// Checks the form and the signature, and returns the payload.
pub(crate) fn verify<'b>(
    message: &'b [u8],
    service_keys: &[[u8; 32]],
) -> Result<&'b [u8], BundleError> {
    let (payload, signature) = parse(message).map_err(|_| BundleError::Malformed {
        field: "signed",
        problem: "is not a COSE_Sign1 of the one form accepted",
    })?;
    let signed = to_be_signed(payload);
    let genuine = service_keys.iter().any(|key| {
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&signed, signature)
            .is_ok()
    });
    if genuine {
        Ok(payload)
    } else {
        Err(BundleError::Signer)
    }
}

fn parse(message: &[u8]) -> Result<(&[u8], &[u8]), CborError> {
    let mut input = Reader::new(message);
    let mut items = input.array(4)?;
    let mut next = |input: &mut Reader<'_>| {
        if input.has_next(&mut items)? {
            Ok(())
        } else {
            Err(CborError("has too few items"))
        }
    };
    next(&mut input)?;
    if input.bytes(PROTECTED.len())? != PROTECTED {
        return Err(CborError("has another protected header"));
    }
    next(&mut input)?;
    let mut unprotected = input.map(0)?;
    if input.has_next(&mut unprotected)? {
        return Err(CborError("has unprotected headers"));
    }
    next(&mut input)?;
    let payload = input.bytes(message.len())?;
    next(&mut input)?;
    let signature = input.bytes(SIGNATURE_BYTES)?;
    if next(&mut input).is_ok() {
        return Err(CborError("has too many items"));
    }
    input.finish()?;
    Ok((payload, signature))
}

/// `Sig_structure` of RFC 9052 §4.4, with the payload and so with its secrets.
fn to_be_signed(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Writer::with_capacity(payload.len().saturating_add(OVERHEAD_BYTES));
    out.array(4)
        .text("Signature1")
        .bytes(&PROTECTED)
        .bytes(CONTEXT)
        .bytes(payload);
    Zeroizing::new(out.into_bytes())
}

/// More than what stands around a payload, signature included.
const OVERHEAD_BYTES: usize = 128;

/// Length of an Ed25519 signature (RFC 8032 §5.1.6).
const SIGNATURE_BYTES: usize = 64;
