//! Any bytes as a certificate: as a root, as what a TLS key is read of, and as the leaf of a document
//! whose signatures are all believed, so that the fuzzer gets to the rules of the chain.

#![no_main]

use std::cell::RefCell;

use cloister_attestation::cbor::Writer;
use cloister_attestation::{
    P384PublicKey, Policy, SignatureForm, SignatureRefused, SignatureVerifier, TrustAnchor,
    decode_unverified, subject_public_key_info, verify_with,
};
use libfuzzer_sys::fuzz_target;

/// Believes every signature, and notes whose the last one would be.
#[derive(Default)]
struct Credulous(RefCell<Option<P384PublicKey>>);

impl SignatureVerifier for Credulous {
    fn verify_es384(
        &self,
        key: &P384PublicKey,
        _form: SignatureForm,
        _message: &[u8],
        _signature: &[u8],
    ) -> Result<(), SignatureRefused> {
        *self.0.borrow_mut() = Some(*key);
        Ok(())
    }

    fn sha384(&self, _parts: &[&[u8]]) -> [u8; 48] {
        [0; 48]
    }
}

fn document(leaf: &[u8], anchor: &TrustAnchor, timestamp: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.map(9);
    out.text("module_id").text("i-1-enc1");
    out.text("digest").text("SHA384");
    out.text("timestamp").unsigned(timestamp);
    out.text("pcrs").map(1).unsigned(0).bytes(&[1; 48]);
    out.text("certificate").bytes(leaf);
    out.text("cabundle").array(1).bytes(anchor.der());
    out.text("public_key").null();
    out.text("user_data").null();
    out.text("nonce").null();
    let payload = out.into_bytes();
    let mut out = Writer::new();
    out.array(4)
        .bytes(&[0xa1, 0x01, 0x38, 0x22])
        .map(0)
        .bytes(&payload)
        .bytes(&[1; 96]);
    out.into_bytes()
}

fuzz_target!(|data: &[u8]| {
    let key_info = subject_public_key_info(data);
    if TrustAnchor::dangerous_root(data).is_ok() {
        let key_info = key_info.expect("a root has a key");
        assert!(data.windows(key_info.len()).any(|part| part == key_info));
        let longer = [data, &[0]].concat();
        TrustAnchor::dangerous_root(&longer).expect_err("bytes behind the end");
        TrustAnchor::dangerous_root(&data[..data.len() - 1]).expect_err("cut short");
    }
    let anchor = TrustAnchor::aws_nitro();
    let policy = Policy::builder()
        .dangerous_any_measurement()
        .build()
        .expect("a policy of two options");
    let Ok(decoded) = decode_unverified(&document(data, &anchor, 1)) else {
        return;
    };
    let (begin, end) = *decoded.validity.last().expect("the leaf is there");
    assert!(begin <= end);
    // At its own first moment, if the root is there by then.
    let now = begin.0.max(decoded.validity[0].0.0).max(1);
    let believed = Credulous::default();
    let document = document(data, &anchor, now);
    if let Ok(claims) = verify_with(
        &document,
        &policy,
        cloister_attestation::UnixMillis(now),
        &believed,
    ) {
        // The document is checked with the key that its leaf shows to everybody.
        let key = believed
            .0
            .into_inner()
            .expect("the signature of the document is checked");
        let key_info = subject_public_key_info(data).expect("a leaf has a key");
        assert!(key_info.ends_with(&key.0));
        assert_eq!(claims.certificate_not_after, end);
    }
});
