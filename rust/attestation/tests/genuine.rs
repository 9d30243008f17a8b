//! Genuine documents, 2021 to 2026: each verifies at its own time under the pinned root, except the
//! one whose signature is bad. Origins are in `tests/vectors/attestation/manifest.json`.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "facts of a manifest that is in the repository"
)]

use std::time::Duration;

use cloister_attestation::{
    AwsLc, ChainError, Measurements, PcrIndex, Policy, Remembering, VerifyError, decode_unverified,
    verify, verify_with,
};

#[path = "support/documents.rs"]
#[expect(dead_code, reason = "shared with the other tests of documents")]
mod documents;

use documents::{all, any_policy as any_debug};

fn any() -> Policy {
    Policy::builder()
        .dangerous_any_measurement()
        .build()
        .expect("a policy")
}

#[test]
fn sixteen_of_seventeen_verify_at_their_own_time() {
    let mut verified = 0;
    for document in all() {
        let name = &document.name;
        match document.kind.as_str() {
            "badsig" => {
                let refused = verify(&document.bytes, &any_debug(), document.at);
                assert_eq!(refused, Err(VerifyError::BadSignature), "{name}");
                continue;
            }
            "debug" => {
                let refused = verify(&document.bytes, &any(), document.at);
                assert_eq!(refused, Err(VerifyError::DebugEnclave), "{name}");
            }
            _ => {
                verify(&document.bytes, &any(), document.at).expect(name);
            }
        }
        let claims = verify(&document.bytes, &any_debug(), document.at).expect(name);
        assert_eq!(claims.is_debug, document.kind == "debug", "{name}");
        assert_eq!(
            Some(claims.module_id.as_str()),
            document.facts["module_id"].as_str(),
            "{name}"
        );
        assert_eq!(claims.timestamp, document.at, "{name}");
        let count = document.facts["pcr_count"].as_u64().expect("pcr_count");
        assert_eq!(claims.pcrs.iter().count() as u64, count, "{name}");
        for (field, value) in [
            ("public_key_len", &claims.public_key),
            ("user_data_len", &claims.user_data),
            ("nonce_len", &claims.nonce),
        ] {
            let length = value.as_ref().map(|bytes| bytes.len() as u64);
            assert_eq!(length, document.facts[field].as_u64(), "{name} {field}");
        }
        verified += 1;
    }
    assert_eq!(verified, 16);
}

/// The production PCRs of a document are accepted, one digit off is not.
#[test]
fn measurements_decide() {
    for document in all().iter().filter(|document| document.kind == "prod") {
        let decoded = decode_unverified(&document.bytes).expect("decodes");
        let registers = |flip: u8| {
            [0_u64, 1, 2].map(|index| {
                let index = PcrIndex::new(index).expect("an index");
                let mut value: [u8; 48] = decoded
                    .pcrs
                    .value(index)
                    .expect("there")
                    .try_into()
                    .expect("48 bytes");
                if index.number() == 2 {
                    value[47] ^= flip;
                }
                (index, value)
            })
        };
        let policy = |flip| {
            let set = Measurements::new(registers(flip)).expect("a set");
            Policy::builder().accept(set).build().expect("a policy")
        };
        verify(&document.bytes, &policy(0), document.at).expect(&document.name);
        let refused = verify(&document.bytes, &policy(1), document.at).expect_err("one bit off");
        assert!(matches!(refused, VerifyError::MeasurementMismatch { .. }));
        let text = refused.to_string();
        assert!(
            text.contains("PCR2 expected") && text.contains("PCR2 received"),
            "{text}"
        );
    }
}

/// A leaf lives 3 hours: a document of yesterday is refused, whatever `max_age` says.
#[test]
fn an_old_document_is_refused() {
    for document in all().iter().filter(|document| document.kind == "prod") {
        let policy = Policy::builder()
            .dangerous_any_measurement()
            .max_age(Duration::from_secs(30 * 24 * 3600))
            .build()
            .expect("a policy");
        let tomorrow = document.at.plus(Duration::from_secs(24 * 3600));
        verify(&document.bytes, &policy, document.at).expect(&document.name);
        assert!(matches!(
            verify(&document.bytes, &policy, tomorrow),
            Err(VerifyError::UntrustedChain(ChainError::Expired { .. }))
        ));
        let yesterday = document.at.minus(Duration::from_secs(24 * 3600));
        assert!(matches!(
            verify(&document.bytes, &policy, yesterday),
            Err(VerifyError::UntrustedChain(ChainError::NotYetValid { .. }))
        ));
    }
}

/// Tagged and untagged are the same document: the tag is not signed.
#[test]
fn the_tag_may_be_there() {
    let documents = all();
    let document = documents
        .iter()
        .find(|document| document.kind == "prod")
        .expect("one");
    let mut tagged = vec![0xd2];
    tagged.extend_from_slice(&document.bytes);
    verify(&tagged, &any(), document.at).expect("tag 18");
    tagged[0] = 0xd1;
    assert!(matches!(
        verify(&tagged, &any(), document.at),
        Err(VerifyError::Malformed {
            field: "document",
            ..
        })
    ));
}

/// Every byte of one genuine document, changed by one bit: refused, each of them. About 4500
/// verifications; most end at the form, the chain or the signature. Of the others, `mutations.rs`.
#[test]
fn every_changed_byte_of_a_genuine_document_is_refused() {
    let documents = all();
    let document = documents
        .iter()
        .rfind(|document| document.kind == "prod")
        .expect("one");
    let verifier = Remembering::new(AwsLc);
    let verify = |bytes: &[u8]| verify_with(bytes, &any(), document.at, &verifier);
    verify(&document.bytes).expect("the unchanged twin");
    let mut changed = document.bytes.clone();
    for position in 0..changed.len() {
        changed[position] ^= 1 << (position % 8);
        assert!(verify(&changed).is_err(), "byte {position}");
        changed[position] = document.bytes[position];
    }
    verify(&changed).expect("restored");
}

#[test]
fn every_truncated_document_is_refused() {
    let documents = all();
    let document = documents
        .iter()
        .find(|document| document.kind == "prod")
        .expect("one");
    for length in 0..document.bytes.len() {
        assert!(matches!(
            verify(&document.bytes[..length], &any(), document.at),
            Err(VerifyError::Malformed { .. })
        ));
    }
    verify(&document.bytes, &any(), document.at).expect("the whole");
}
