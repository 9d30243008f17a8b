//! The genuine documents of `tests/vectors/attestation`, and documents taken apart and put together again.
//!
//! They are taken apart with `minicbor`, which has nothing to do with the reader that is tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloister_attestation::cbor::Writer;
use cloister_attestation::{Policy, PolicyBuilder, TrustAnchor, UnixMillis, decode_unverified};
use minicbor::Decoder;
use serde_json::Value;

/// One document of the manifest.
pub(crate) struct Genuine {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: UnixMillis,
    pub(crate) facts: Value,
}

pub(crate) fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

pub(crate) fn json(path: impl AsRef<Path>) -> Value {
    let text = fs::read_to_string(vectors().join(path)).expect("a file of the vectors");
    serde_json::from_str(&text).expect("JSON")
}

/// All seventeen, the one with the bad signature too.
pub(crate) fn all() -> Vec<Genuine> {
    let Value::Array(entries) = json("attestation/manifest.json") else {
        panic!("the manifest is no list");
    };
    assert_eq!(entries.len(), 17);
    entries
        .into_iter()
        .map(|facts| {
            let name = facts["file"].as_str().expect("file").to_owned();
            Genuine {
                kind: facts["kind"].as_str().expect("kind").to_owned(),
                bytes: fs::read(vectors().join("attestation").join(&name)).expect("the document"),
                at: UnixMillis(facts["timestamp_ms"].as_u64().expect("timestamp")),
                name,
                facts,
            }
        })
        .collect()
}

/// The sixteen that verify.
pub(crate) fn good() -> Vec<Genuine> {
    let good: Vec<Genuine> = all()
        .into_iter()
        .filter(|document| document.kind != "badsig")
        .collect();
    assert_eq!(good.len(), 16);
    good
}

/// What accepts any enclave, debug ones too.
pub(crate) fn any() -> PolicyBuilder {
    Policy::builder()
        .dangerous_any_measurement()
        .dangerous_accept_debug()
}

pub(crate) fn any_policy() -> Policy {
    any().build().expect("a policy")
}

pub(crate) fn under(root: &[u8]) -> Policy {
    any()
        .anchor(TrustAnchor::dangerous_root(root).expect("an anchor"))
        .build()
        .expect("a policy")
}

/// A document in its pieces, each value as it stands.
#[derive(Clone)]
pub(crate) struct Taken {
    pub(crate) protected: Vec<u8>,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) is_indefinite: bool,
    pub(crate) signature: Vec<u8>,
}

impl Taken {
    pub(crate) fn apart(document: &[u8]) -> Self {
        let mut decoder = Decoder::new(document);
        assert_eq!(decoder.array().expect("an array"), Some(4));
        let protected = decoder.bytes().expect("protected").to_vec();
        assert_eq!(decoder.map().expect("unprotected"), Some(0));
        let payload = decoder.bytes().expect("payload");
        let signature = decoder.bytes().expect("signature").to_vec();
        assert_eq!(decoder.position(), document.len());
        let mut inside = Decoder::new(payload);
        let count = inside.map().expect("a map");
        let mut fields = Vec::new();
        while inside.position() < payload.len() && payload[inside.position()] != 0xff {
            let key = inside.str().expect("a key").to_owned();
            let start = inside.position();
            inside.skip().expect("a value");
            fields.push((key, payload[start..inside.position()].to_vec()));
        }
        assert_eq!(fields.len(), 9);
        let taken = Self {
            protected,
            fields,
            is_indefinite: count.is_none(),
            signature,
        };
        assert_eq!(taken.payload(), payload, "nothing is lost");
        assert_eq!(taken.together(), document, "nothing is lost");
        taken
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        let mut out = Writer::new();
        if self.is_indefinite {
            out.indefinite_map();
        } else {
            out.map(self.fields.len() as u64);
        }
        let mut out = out.into_bytes();
        for (key, value) in &self.fields {
            let mut name = Writer::new();
            name.text(key);
            out.extend(name.into_bytes());
            out.extend(value);
        }
        if self.is_indefinite {
            out.push(0xff);
        }
        out
    }

    pub(crate) fn together(&self) -> Vec<u8> {
        envelope(
            &[0x84],
            &self.protected,
            &[0xa0],
            &self.payload(),
            &self.signature,
            &[],
        )
    }

    pub(crate) fn value(&self, key: &str) -> &[u8] {
        &self.field(key).1
    }

    pub(crate) fn set(&mut self, key: &str, value: Vec<u8>) {
        let position = self.position(key);
        self.fields[position].1 = value;
    }

    pub(crate) fn position(&self, key: &str) -> usize {
        self.fields
            .iter()
            .position(|(name, _)| name == key)
            .expect("a field")
    }

    fn field(&self, key: &str) -> &(String, Vec<u8>) {
        &self.fields[self.position(key)]
    }

    /// The certificates of the bundle, in DER.
    pub(crate) fn bundle(&self) -> Vec<Vec<u8>> {
        let mut decoder = Decoder::new(self.value("cabundle"));
        decoder
            .array_iter::<&minicbor::bytes::ByteSlice>()
            .expect("an array")
            .map(|item| item.expect("bytes").to_vec())
            .collect()
    }

    pub(crate) fn set_bundle(&mut self, certificates: &[Vec<u8>]) {
        let mut out = Writer::new();
        out.array(certificates.len() as u64);
        for certificate in certificates {
            out.bytes(certificate);
        }
        self.set("cabundle", out.into_bytes());
    }
}

/// A `COSE_Sign1` of these pieces, whatever they are.
pub(crate) fn envelope(
    start: &[u8],
    protected: &[u8],
    unprotected: &[u8],
    payload: &[u8],
    signature: &[u8],
    end: &[u8],
) -> Vec<u8> {
    let item = |bytes: &[u8]| {
        let mut out = Writer::new();
        out.bytes(bytes);
        out.into_bytes()
    };
    [
        start,
        &item(protected),
        unprotected,
        &item(payload),
        &item(signature),
        end,
    ]
    .concat()
}

/// The last of the moments at which a certificate of the chain begins, and the first at which one ends:
/// its whole last second counts.
pub(crate) fn window(document: &[u8]) -> (UnixMillis, UnixMillis) {
    let validity = decode_unverified(document).expect("decodes").validity;
    // The root of the bundle has no say; the pinned one, which is the same, has.
    assert_eq!(validity.len(), 5);
    let begin = validity
        .iter()
        .map(|(begin, _)| *begin)
        .max()
        .expect("five");
    let end = validity.iter().map(|(_, end)| *end).min().expect("five");
    (begin, end.plus(Duration::from_secs(1)))
}
