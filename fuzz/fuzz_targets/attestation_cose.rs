//! Any bytes around a genuine payload and signature: the envelope of a document has eight spellings
//! (tag or none, array and empty map definite or not), and none but those verifies.
//!
//! `PAYLOAD` and `SIGNATURE` in the input stand for the two, so that the fuzzer need not find them.
//! The signature check accepts everything: what nobody signed is what is looked at.

#![no_main]

use std::sync::OnceLock;

use cloister_attestation::cbor::{Reader, Writer};
use cloister_attestation::{
    P384PublicKey, Policy, SignatureForm, SignatureRefused, SignatureVerifier, decode_unverified,
    verify_with,
};
use libfuzzer_sys::fuzz_target;

const DOCUMENT: &[u8] =
    include_bytes!("../../tests/vectors/attestation/2025-11-10_prod_mystenlabs_8e5652f3.cbor");
const PROTECTED: &[u8] = &[0x44, 0xa1, 0x01, 0x38, 0x22];

struct Credulous;

impl SignatureVerifier for Credulous {
    fn verify_es384(
        &self,
        _key: &P384PublicKey,
        _form: SignatureForm,
        _message: &[u8],
        _signature: &[u8],
    ) -> Result<(), SignatureRefused> {
        Ok(())
    }

    fn sha384(&self, _parts: &[&[u8]]) -> [u8; 48] {
        [0; 48]
    }
}

/// Payload and signature of the genuine document, each with its head, and all spellings of it.
struct Pieces {
    payload: Vec<u8>,
    signature: Vec<u8>,
    spellings: Vec<Vec<u8>>,
}

fn pieces() -> Option<Pieces> {
    let mut reader = Reader::new(DOCUMENT);
    let mut parts = reader.array(4).ok()?;
    reader.has_next(&mut parts).ok()?;
    reader.bytes(64).ok()?;
    reader.skip(1).ok()?;
    let mut writer = Writer::new();
    writer.bytes(reader.bytes(DOCUMENT.len()).ok()?);
    let payload = writer.into_bytes();
    let mut writer = Writer::new();
    writer.bytes(reader.bytes(96).ok()?);
    let signature = writer.into_bytes();
    let mut spellings = Vec::new();
    for tag in [&[][..], &[0xd2]] {
        for (start, end) in [(&[0x84][..], &[][..]), (&[0x9f], &[0xff])] {
            for unprotected in [&[0xa0][..], &[0xbf, 0xff]] {
                let spelling = [
                    tag,
                    start,
                    PROTECTED,
                    unprotected,
                    &payload,
                    &signature,
                    end,
                ];
                spellings.push(spelling.concat());
            }
        }
    }
    Some(Pieces {
        payload,
        signature,
        spellings,
    })
}

fn filled(data: &[u8], pieces: &Pieces) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = data;
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"PAYLOAD") {
            out.extend(&pieces.payload);
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix(b"SIGNATURE") {
            out.extend(&pieces.signature);
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    static PIECES: OnceLock<Option<Pieces>> = OnceLock::new();
    let pieces = PIECES
        .get_or_init(pieces)
        .as_ref()
        .expect("the vector is a document");
    let policy = Policy::builder()
        .dangerous_any_measurement()
        .build()
        .expect("a policy of two options");
    let document = filled(data, pieces);
    let Ok(decoded) = decode_unverified(&document) else {
        return;
    };
    let genuine = decode_unverified(DOCUMENT).expect("the vector is a document");
    if decoded == genuine && verify_with(&document, &policy, decoded.timestamp, &Credulous).is_ok()
    {
        let signature_at = document
            .windows(pieces.signature.len())
            .any(|at| at == pieces.signature);
        // Another signature of 96 bytes is for the check that is left out here to refuse.
        assert!(!signature_at || pieces.spellings.contains(&document));
    }
});
