//! Published vectors of the formats below: RFC 8949 appendix A (CBOR), the COSE working group's examples,
//! and those of gluecose. They decide what the reader reads.
//!
//! The COSE vectors have other algorithms and headers than these documents, so as they stand each is
//! refused, for a reason that is named here. What they say is checked besides: the bytes that are
//! signed, the signatures that are ES384, and each of their failures on a genuine document.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking, on facts of files that are in the repository"
)]

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloister_attestation::cbor::{CborError, Reader, Remaining, Writer};
use cloister_attestation::document::signature_input;
use cloister_attestation::{
    AwsLc, P384PublicKey, SignatureForm, SignatureVerifier, VerifyError, decode_unverified, verify,
};
use minicbor::Decoder;
use serde_json::Value;

#[path = "support/documents.rs"]
#[expect(dead_code, reason = "shared with the other tests of documents")]
mod documents;

use documents::{Taken, any_policy, good, json, vectors};

/// What RFC 8949 appendix A has and no document does: refused whatever is asked for.
const NEVER_READ: [&str; 27] = [
    // Floating-point numbers.
    "f90000",
    "f98000",
    "f93c00",
    "fb3ff199999999999a",
    "f93e00",
    "f97bff",
    "fa47c35000",
    "fa7f7fffff",
    "fb7e37e43c8800759c",
    "f90001",
    "f90400",
    "f9c400",
    "fbc010666666666666",
    "f97c00",
    "f97e00",
    "f9fc00",
    "fa7f800000",
    "fa7fc00000",
    "faff800000",
    "fb7ff0000000000000",
    "fb7ff8000000000000",
    "fbfff0000000000000",
    // undefined, and simple values without a meaning.
    "f7",
    "f0",
    "f818",
    "f8ff",
    // A tag around a floating-point number.
    "c1fb41d452d9ec200000",
];
/// Strings in pieces: each value has many spellings.
const IN_PIECES: [&str; 2] = ["5f42010243030405ff", "7f657374726561646d696e67ff"];
/// Passed over where anything may stand, and never read: tags other than the document's own, and a
/// number beyond 64 bits.
const ONLY_PASSED_OVER: [&str; 8] = [
    "c249010000000000000000",
    "c349010000000000000000",
    "3bffffffffffffffff",
    "c074323031332d30332d32315432303a30343a30305a",
    "c11a514b67b0",
    "d74401020304",
    "d818456449455446",
    "d82076687474703a2f2f7777772e6578616d706c652e636f6d",
];

#[test]
fn rfc_8949_appendix_a_is_read_as_it_says() {
    let Value::Array(cases) = json("cbor/appendix_a.json") else {
        panic!("no list");
    };
    let mut read = 0;
    for case in &cases {
        let hex = case["hex"].as_str().expect("hex");
        let bytes = STANDARD
            .decode(case["cbor"].as_str().expect("cbor"))
            .expect("base64");
        let mut skipping = Reader::new(&bytes);
        let skipped = skipping.skip(4).and_then(|()| skipping.finish());
        let mut reader = Reader::new(&bytes);
        let value = value(&mut reader, 4).and_then(|value| reader.finish().map(|()| value));
        if NEVER_READ.contains(&hex) || IN_PIECES.contains(&hex) {
            skipped.expect_err(hex);
            value.expect_err(hex);
            continue;
        }
        skipped.expect(hex);
        if ONLY_PASSED_OVER.contains(&hex) {
            value.expect_err(hex);
            continue;
        }
        read += 1;
        let value = value.expect(hex);
        if let Some(expected) = case.get("decoded") {
            assert_eq!(&value, expected, "{hex}");
        } else {
            let expected = case["diagnostic"].as_str().expect("one of the two");
            assert_eq!(Value::from(expected), value, "{hex}");
        }
        // What has one spelling is written in it.
        if case["roundtrip"] == Value::Bool(true) {
            let mut out = Writer::new();
            write(&mut out, &value);
            assert_eq!(out.into_bytes(), bytes, "{hex}");
        }
        // And cut short it is nothing.
        for length in 0..bytes.len() {
            Reader::new(&bytes[..length]).skip(4).expect_err(hex);
        }
    }
    let refused = NEVER_READ.len() + IN_PIECES.len() + ONLY_PASSED_OVER.len();
    assert_eq!((cases.len(), read), (82, 82 - refused));
}

/// Whatever comes next, as JSON; a byte string as the text of its diagnostic notation.
fn value(reader: &mut Reader<'_>, depth: usize) -> Result<Value, CborError> {
    let depth = depth.checked_sub(1).expect("the vectors are not deep");
    let scalar = asked(reader, |reader| reader.unsigned().map(Value::from))
        .or_else(|_| asked(reader, |reader| reader.integer().map(Value::from)))
        .or_else(|_| asked(reader, |reader| reader.boolean().map(Value::from)))
        .or_else(|_| asked(reader, |reader| reader.text(64).map(Value::from)))
        .or_else(|_| asked(reader, |reader| reader.bytes_or_null(64).map(diagnostic)));
    if scalar.is_ok() {
        return scalar;
    }
    if let Ok(items) = asked(reader, |reader| reader.array(32)) {
        return list(reader, items, depth);
    }
    let pairs = asked(reader, |reader| reader.map(32))?;
    object(reader, pairs, depth)
}

/// The reader is not moved by a question that it does not answer.
fn asked<'a, T>(
    reader: &mut Reader<'a>,
    question: impl FnOnce(&mut Reader<'a>) -> Result<T, CborError>,
) -> Result<T, CborError> {
    let start = format!("{reader:?}");
    let answer = question(reader);
    if answer.is_err() {
        assert_eq!(format!("{reader:?}"), start);
    }
    answer
}

fn diagnostic(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| {
        Value::from(format!("h'{}'", cloister_attestation::hex(bytes)))
    })
}

fn list(reader: &mut Reader<'_>, mut items: Remaining, depth: usize) -> Result<Value, CborError> {
    let mut all = Vec::new();
    while reader.has_next(&mut items)? {
        all.push(value(reader, depth)?);
    }
    Ok(Value::from(all))
}

/// Keys that are not text, as `{1: 2}` has, make the diagnostic notation.
fn object(reader: &mut Reader<'_>, mut pairs: Remaining, depth: usize) -> Result<Value, CborError> {
    let mut all = Vec::new();
    while reader.has_next(&mut pairs)? {
        all.push((value(reader, depth)?, value(reader, depth)?));
    }
    if all.iter().all(|(key, _)| key.is_string()) {
        let named = all.into_iter().map(|(key, value)| {
            let Value::String(key) = key else {
                panic!("text");
            };
            (key, value)
        });
        return Ok(named.collect());
    }
    let written: Vec<String> = all
        .iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    Ok(Value::from(format!("{{{}}}", written.join(", "))))
}

fn write(out: &mut Writer, value: &Value) {
    match value {
        Value::Null => {
            out.null();
        }
        Value::Bool(value) => {
            out.boolean(*value);
        }
        Value::Number(number) => {
            match number.as_u64() {
                Some(number) => out.unsigned(number),
                None => out.integer(number.as_i64().expect("an integer")),
            };
        }
        Value::String(text) if text == "{1: 2, 3: 4}" => {
            out.map(2).unsigned(1).unsigned(2).unsigned(3).unsigned(4);
        }
        Value::String(text) if text.starts_with("h'") => {
            out.bytes(&unhex(text.trim_matches(['h', '\''])));
        }
        Value::String(text) => {
            out.text(text);
        }
        Value::Array(items) => {
            out.array(items.len() as u64);
            for item in items {
                write(out, item);
            }
        }
        Value::Object(pairs) => {
            out.map(pairs.len() as u64);
            for (key, value) in pairs {
                out.text(key);
                write(out, value);
            }
        }
    }
}

/// A COSE vector: its message, and what its `Sig_structure` is when the vector says so.
struct Cose {
    name: String,
    message: Vec<u8>,
    facts: Value,
}

fn cose() -> Vec<Cose> {
    let mut all = Vec::new();
    for folder in ["sign1-tests", "ecdsa-examples", "RFC8152", "x509-examples"] {
        for entry in fs::read_dir(vectors().join("cose").join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let facts = json(&path);
            all.push(Cose {
                name: path
                    .file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
                message: unhex(facts["output"]["cbor"].as_str().expect("hex")),
                facts,
            });
        }
    }
    for number in 0..7 {
        let facts = json(format!("gluecose/sign1-verify-000{number}.json"));
        let message = &facts["sign1::verify"]["taggedCOSESign1"]["cborHex"];
        all.push(Cose {
            name: format!("gluecose-{number}"),
            message: unhex(message.as_str().expect("hex")),
            facts,
        });
    }
    assert_eq!(all.len(), 9 + 8 + 17 + 5 + 7);
    all
}

/// None has the profile of an attestation document. Each is refused by the first rule that sees the
/// difference: the tag of another message, another algorithm, or a header that is not signed.
#[test]
fn no_other_cose_message_is_taken_for_a_document() {
    for vector in cose() {
        let expected = match vector.name.as_str() {
            // Tag 998, and those of COSE_Sign, COSE_Encrypt0, COSE_Mac0 and their like.
            "sign-fail-01" => "document",
            name if name.starts_with("Appendix") && name != "Appendix_C_2_1" => "document",
            "ecdsa-01" | "ecdsa-02" | "ecdsa-03" | "ecdsa-04" => "document",
            name if name.starts_with("signed-") => "document",
            // ES384, with a key id in the header that nobody signs.
            "ecdsa-sig-02" | "gluecose-2" => "unprotected",
            // ES256 or another algorithm, none, or more headers than one.
            _ => "protected",
        };
        let VerifyError::Malformed { field, .. } =
            decode_unverified(&vector.message).expect_err(&vector.name)
        else {
            panic!("{}", vector.name);
        };
        assert_eq!(field, expected, "{}", vector.name);
    }
}

fn parts(message: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut decoder = Decoder::new(message);
    if message[0] >> 5 == 6 {
        decoder.tag().expect("a tag");
    }
    decoder.array().expect("an array");
    let protected = decoder.bytes().expect("protected").to_vec();
    decoder.skip().expect("unprotected");
    let payload = decoder.bytes().expect("payload").to_vec();
    (
        protected,
        payload,
        decoder.bytes().expect("signature").to_vec(),
    )
}

/// RFC 9052 §4.4. Where the vector says that its message was changed afterwards, the bytes differ.
#[test]
fn what_is_signed_is_what_the_vectors_say() {
    let mut compared = 0;
    for vector in cose() {
        let Some(expected) = vector.facts["intermediates"]["ToBeSign_hex"].as_str() else {
            continue;
        };
        let (protected, payload, _) = parts(&vector.message);
        let ours = signature_input(&protected, &payload);
        // A header of an empty map is signed as if it were none (RFC 9052 §3), and there is no external
        // data here: two messages that could not be verified, and are refused above.
        let differs = matches!(
            vector.name.as_str(),
            "sign-pass-01"
                | "sign-pass-02"
                | "sign-fail-02"
                | "sign-fail-03"
                | "sign-fail-04"
                | "sign-fail-06"
                | "sign-fail-07"
        );
        assert_eq!(ours != unhex(expected), differs, "{}", vector.name);
        compared += 1;
    }
    assert_eq!(compared, 9 + 4 + 1);
}

#[test]
fn the_signatures_of_es384_verify_and_no_others() {
    let mut verified = 0;
    for vector in cose() {
        let key = match &vector.facts["key"] {
            Value::Null => &vector.facts["input"]["sign0"]["key"],
            key => key,
        };
        if key["crv"] != "P-384" {
            continue;
        }
        let mut point = [4; 97];
        let coordinate = |name: &str| {
            let text = key[name].as_str().expect("a coordinate");
            URL_SAFE_NO_PAD.decode(text).expect("base64url")
        };
        point[1..49].copy_from_slice(&coordinate("x"));
        point[49..].copy_from_slice(&coordinate("y"));
        let (protected, payload, signature) = parts(&vector.message);
        let verify = |key: &[u8; 97], message: &[u8], signature: &[u8]| {
            AwsLc.verify_es384(
                &P384PublicKey(*key),
                SignatureForm::Fixed,
                message,
                signature,
            )
        };
        let message = signature_input(&protected, &payload);
        verify(&point, &message, &signature).expect(&vector.name);
        verify(&point, &signature_input(&protected, b"another"), &signature)
            .expect_err("another payload");
        verify(&point, &signature_input(&[], &payload), &signature).expect_err("another header");
        verify(&point, &message, &signature[..95]).expect_err("cut short");
        verify(&point, &message, &[&signature[..], &[0]].concat()).expect_err("longer");
        let mut off = point;
        off[96] ^= 1;
        verify(&off, &message, &signature).expect_err("no point of the curve");
        off = point;
        off[0] = 2;
        verify(&off, &message, &signature).expect_err("another form of a point");
        verified += 1;
    }
    assert_eq!(verified, 2);
}

/// What the working group's negative vectors do to a message, done to genuine documents.
#[test]
fn each_failure_of_the_working_group_is_refused_in_a_genuine_document() {
    let failures: Vec<(String, Value)> = cose()
        .into_iter()
        .filter(|vector| vector.name.starts_with("sign-"))
        .map(|vector| (vector.name, vector.facts["input"]["failures"].clone()))
        .collect();
    for document in good() {
        let taken = Taken::apart(&document.bytes);
        for (name, failures) in &failures {
            let mut changed = taken.clone();
            let mut tag: &[u8] = &[0xd2];
            let mut expected = None;
            match failures
                .as_object()
                .and_then(|failures| failures.iter().next())
            {
                // Signed together with external data, which is none here; nothing to change.
                None => assert_eq!(name, "sign-pass-02"),
                Some((kind, how)) => match (kind.as_str(), how) {
                    ("ChangeCBORTag", _) => {
                        tag = &[0xd9, 0x03, 0xe6];
                        expected = Some(malformed("document"));
                    }
                    ("RemoveCBORTag", _) => tag = &[],
                    // The last byte of the signed content.
                    ("ChangeTag", _) => {
                        let mut id = taken.value("module_id").to_vec();
                        *id.last_mut().expect("an id") ^= 1;
                        changed.set("module_id", id);
                        expected = Some(VerifyError::BadSignature);
                    }
                    ("ChangeAttr", algorithm) => {
                        let mut out = Writer::new();
                        out.map(1).integer(1);
                        match algorithm["alg"].as_i64() {
                            Some(number) => out.integer(number),
                            None => out.text("unknown"),
                        };
                        changed.protected = out.into_bytes();
                        expected = Some(malformed("protected"));
                    }
                    ("AddProtected", _) => {
                        changed.protected = vec![0xa2, 0x01, 0x38, 0x22, 0x03, 0x00];
                        expected = Some(malformed("protected"));
                    }
                    ("RemoveProtected", _) => {
                        changed.protected = Vec::new();
                        expected = Some(malformed("protected"));
                    }
                    ("ChangeProtected", _) => {
                        changed.protected = vec![0xa0];
                        expected = Some(malformed("protected"));
                    }
                    other => panic!("{name}: {other:?} is not known"),
                },
            }
            let answer = verify(
                &[tag, &changed.together()].concat(),
                &any_policy(),
                document.at,
            );
            match (expected, answer) {
                (None, Ok(_)) => {}
                (
                    Some(VerifyError::Malformed {
                        field: expected, ..
                    }),
                    Err(VerifyError::Malformed { field, .. }),
                ) => assert_eq!(field, expected, "{name}"),
                (Some(expected), Err(error)) => assert_eq!(error, expected, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

fn malformed(field: &'static str) -> VerifyError {
    VerifyError::Malformed { field, problem: "" }
}

fn unhex(text: &str) -> Vec<u8> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    pairs
        .iter()
        .map(|pair| {
            let digits = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(digits, 16).expect("hexadecimal")
        })
        .collect()
}
