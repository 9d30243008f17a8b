//! Any bytes as an attestation document: read or refused, never a panic, never believed.
//!
//! The signature check is replaced by one that accepts everything, so that the fuzzer gets behind it,
//! to the chain rules, freshness, measurements and binding.

#![no_main]

use cloister_attestation::{
    P384PublicKey, Policy, SignatureForm, SignatureRefused, SignatureVerifier, UnixMillis,
    decode_unverified, subject_public_key_info, verify, verify_with,
};
use libfuzzer_sys::fuzz_target;

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

fuzz_target!(|data: &[u8]| {
    let Ok(policy) = Policy::builder().dangerous_any_measurement().dangerous_accept_debug().build()
    else {
        return;
    };
    let policy = policy.with_user_data(b"spki");
    let decoded = decode_unverified(data);
    if let Ok(decoded) = &decoded {
        let _ = subject_public_key_info(&decoded.certificate);
        // What a document says cannot contradict what it proves.
        if let Ok(claims) = verify_with(data, &policy, decoded.timestamp, &Credulous) {
            assert_eq!(claims.pcrs, decoded.pcrs);
            assert_eq!(claims.user_data.as_deref(), Some(&b"spki"[..]));
        }
    }
    // Nobody can make the fuzzer's bytes genuine and bound to this user data.
    let refused = verify(data, &policy, UnixMillis(1_790_000_000_000));
    if let Err(error) = &refused {
        let _ = (error.to_string(), error.hint());
    }
    assert!(refused.is_err());
});
