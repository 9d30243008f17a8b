//! `POST /attestation-doc`: which documents an application may have made (data-plane.md §5, T-21).
//!
//! Two kinds of document mean something to others: one whose `user_data` is a TLS key binds that
//! key, and one whose `user_data` is [`PROVISION_USER_DATA`] is released secrets to. Neither can be
//! asked for here: `user_data` is text, and text that could be read as either is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_nsm::DocumentRequest;
use cloister_sealing::PROVISION_USER_DATA;
use serde::Deserialize;
use thiserror::Error;

/// Why no document is made.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum RequestError {
    /// Not an object of three texts.
    #[error(
        "line {line}, column {column}: not a JSON object with `nonce`, `challenge` and `publicKey` as text"
    )]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The challenge could pass for a provisioning request.
    #[error("`challenge` is refused: it starts like a provisioning request")]
    LikeProvisioning,
    /// The challenge could pass for the binding of a TLS key.
    #[error("`challenge` is refused: it can be read as a public key (SubjectPublicKeyInfo)")]
    LikePublicKey,
    /// `publicKey` is not base64.
    #[error("`publicKey` is not standard base64")]
    NotBase64,
    /// A field is longer than the NSM takes.
    #[error("`{field}` is {length} bytes long, the limit is {limit}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length, bytes.
        length: usize,
        /// The limit, bytes.
        limit: usize,
    },
}

#[derive(Default, Deserialize)]
struct Body {
    nonce: Option<String>,
    challenge: Option<String>,
    #[serde(rename = "publicKey")]
    public_key: Option<String>,
}

/// What to ask the NSM for. An empty body asks for a document without any of the three.
///
/// # Errors
///
/// [`RequestError`], in the order of its variants' checks: JSON, lengths, base64, content.
pub fn request(body: &[u8]) -> Result<DocumentRequest, RequestError> {
    let fields = if body.iter().all(u8::is_ascii_whitespace) {
        Body::default()
    } else {
        serde_json::from_slice(body).map_err(|error| RequestError::Json {
            line: error.line(),
            column: error.column(),
        })?
    };
    let nonce = bounded(
        "nonce",
        fields.nonce.map(String::into_bytes),
        MAX_TEXT_BYTES,
    )?;
    let challenge = fields.challenge.map(String::into_bytes);
    let challenge = bounded("challenge", challenge, MAX_TEXT_BYTES)?;
    let public_key = match fields.public_key {
        Some(text) => Some(STANDARD.decode(text).map_err(|_| RequestError::NotBase64)?),
        None => None,
    };
    let public_key = bounded("publicKey", public_key, MAX_PUBLIC_KEY_BYTES)?;
    if let Some(challenge) = &challenge {
        if is_like_provisioning(challenge) {
            return Err(RequestError::LikeProvisioning);
        }
        if is_like_public_key(challenge) {
            return Err(RequestError::LikePublicKey);
        }
    }
    Ok(DocumentRequest {
        user_data: challenge,
        nonce,
        public_key,
    })
}

fn bounded(
    field: &'static str,
    value: Option<Vec<u8>>,
    limit: usize,
) -> Result<Option<Vec<u8>>, RequestError> {
    match &value {
        Some(bytes) if bytes.len() > limit => Err(RequestError::TooLong {
            field,
            length: bytes.len(),
            limit,
        }),
        _ => Ok(value),
    }
}

/// Text never has the first byte of [`PROVISION_USER_DATA`]. What follows that byte is refused too,
/// so that no one who compares less than all of it is misled.
fn is_like_provisioning(challenge: &[u8]) -> bool {
    let purpose = PROVISION_USER_DATA.get(1..).unwrap_or_default();
    challenge.starts_with(PROVISION_USER_DATA)
        || challenge.starts_with(purpose)
        || challenge.starts_with("\u{FF}".as_bytes())
}

/// Whether bytes begin with something that reads as `SubjectPublicKeyInfo` (RFC 5280 §4.1):
/// a SEQUENCE of an algorithm (a SEQUENCE that starts with an OID) and a BIT STRING.
///
/// This is laxer than any reader of keys: lengths of any form, anything after the end.
fn is_like_public_key(bytes: &[u8]) -> bool {
    let inside = || {
        let (info, _) = element(bytes, SEQUENCE)?;
        let (algorithm, rest) = element(info, SEQUENCE)?;
        element(algorithm, OBJECT_IDENTIFIER)?;
        element(rest, BIT_STRING)
    };
    inside().is_some()
}

/// The contents of the element at the front, when it has this tag, and what follows it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = input.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, rest) = rest.split_first()?;
    if *first < 0x80 {
        return rest.split_at_checked(usize::from(*first));
    }
    let (digits, rest) = rest.split_at_checked(usize::from(*first & 0x7F))?;
    let length = digits.iter().try_fold(0_usize, |length, byte| {
        length.checked_mul(256)?.checked_add(usize::from(*byte))
    })?;
    rest.split_at_checked(length)
}

const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// Longest body, bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// Longest `nonce` and `challenge`, bytes: the NSM's limits for nonce and user data.
pub const MAX_TEXT_BYTES: usize = 512;
/// Longest `publicKey`, bytes: the NSM's limit.
pub const MAX_PUBLIC_KEY_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &serde_json::Value) -> Result<DocumentRequest, RequestError> {
        request(body.to_string().as_bytes())
    }

    /// An Ed25519 key whose 32 bytes are letters: the shortest key that is also valid UTF-8.
    fn textual_key() -> String {
        let mut der = vec![
            0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        der.extend([b'k'; 32]);
        String::from_utf8(der).unwrap()
    }

    #[test]
    fn the_three_fields_go_where_they_belong() {
        let made = asked(&serde_json::json!({
            "nonce": "n", "challenge": "hello", "publicKey": "AQID"
        }))
        .unwrap();
        assert_eq!(made.nonce.as_deref(), Some(b"n".as_slice()));
        assert_eq!(made.user_data.as_deref(), Some(b"hello".as_slice()));
        assert_eq!(made.public_key.as_deref(), Some([1, 2, 3].as_slice()));
        assert_eq!(request(b" ").unwrap(), DocumentRequest::default());
    }

    /// T-21: clients take a document whose user data is a TLS key for the proof of that key.
    #[test]
    fn a_challenge_that_reads_as_a_public_key_is_refused() {
        let key = textual_key();
        let challenge = |text: &str| asked(&serde_json::json!({ "challenge": text }));
        assert!(matches!(challenge(&key), Err(RequestError::LikePublicKey)));
        let longer = format!("{key} and more");
        assert!(matches!(
            challenge(&longer),
            Err(RequestError::LikePublicKey)
        ));
        // The positive twins: text that starts with the same letter, and a key that is cut short.
        challenge("0123456789").unwrap();
        challenge(key.strip_suffix('k').unwrap()).unwrap();
    }

    /// T-21: the platform releases secrets to whoever has a document with this user data.
    #[test]
    fn a_challenge_that_starts_like_a_provisioning_request_is_refused() {
        for challenge in ["cloister/provision/v1", "\u{FF}cloister/provision/v1"] {
            let made = asked(&serde_json::json!({ "challenge": challenge }));
            assert!(
                matches!(made, Err(RequestError::LikeProvisioning)),
                "{challenge}"
            );
        }
        asked(&serde_json::json!({ "challenge": "about cloister/provision/v1" })).unwrap();
    }

    /// JSON is UTF-8, so no spelling of it gives the byte FF.
    #[test]
    fn no_spelling_of_json_gives_the_prefix_of_provisioning() {
        let raw = [b"{\"challenge\":\"".as_slice(), PROVISION_USER_DATA, b"\"}"].concat();
        assert!(matches!(request(&raw), Err(RequestError::Json { .. })));
        let escaped = br#"{"challenge":"\u00FFcloister/provision/v1"}"#;
        assert!(matches!(
            request(escaped),
            Err(RequestError::LikeProvisioning)
        ));
    }

    #[test]
    fn a_mistake_in_the_json_is_located() {
        let error = request(b"{\n \"nonce\": 1}").unwrap_err();
        assert!(error.to_string().starts_with("line 2, column"), "{error}");
        request(br#"{"nonce":"a","nonce":"b"}"#).unwrap_err();
    }

    #[test]
    fn the_limits_are_those_of_the_nsm() {
        let nonce = |length| asked(&serde_json::json!({ "nonce": "x".repeat(length) }));
        nonce(MAX_TEXT_BYTES).unwrap();
        assert!(matches!(
            nonce(MAX_TEXT_BYTES + 1),
            Err(RequestError::TooLong { field: "nonce", .. })
        ));
        let key =
            |length| asked(&serde_json::json!({ "publicKey": STANDARD.encode(vec![7; length]) }));
        key(MAX_PUBLIC_KEY_BYTES).unwrap();
        key(MAX_PUBLIC_KEY_BYTES + 1).unwrap_err();
        assert!(matches!(
            asked(&serde_json::json!({ "publicKey": "%%" })),
            Err(RequestError::NotBase64)
        ));
    }
}
