//! Opening tokens: one session per request, so that its work is bounded.
//!
//! SDKs use one ephemeral key for many fields of a document. A session keeps the AES key it derived
//! for each (app key, ephemeral key), so those fields cost one ECDH together.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::EncryptedFile;
use crate::kdf;
use crate::keys::{AppPrivateKey, Keyring, decompress};
use crate::metadata;
use crate::token::Token;
use crate::version::{AdditionalData, ValueType};

/// Why a token was not opened. No variant carries clear text, and everything that depends on the
/// content of the token says the same words.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// No app key opens it, or what it holds is not what it says it holds.
    #[error("the ciphertext cannot be opened with any key of this app")]
    CannotOpen,
    /// It holds bytes that cannot stand where it stands.
    #[error("the clear text cannot stand where its ciphertext stands")]
    CannotStand,
    /// A token of the SDKs' debug mode outside a debug enclave.
    #[error("the ciphertext was made in debug mode, which this enclave does not accept")]
    Debug,
    /// More ephemeral keys in one request than the limit.
    #[error("more than {limit} distinct ephemeral keys in one request")]
    TooManyKeys {
        /// The limit.
        limit: u32,
    },
    /// Longer than the limit.
    #[error("a ciphertext is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// JSON nested deeper than the scanner follows.
    #[error("JSON is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A version on secp256k1.
    #[error("the ciphertext is of a secp256k1 version, which this enclave does not open")]
    UnsupportedVersion,
}

/// What a session accepts.
#[derive(Clone, Copy, Debug)]
pub struct OpenPolicy {
    /// Whether `ev:debug:` tokens are opened. Only a debug enclave sets it.
    pub dangerous_accept_debug: bool,
    /// Most distinct ephemeral keys.
    pub distinct_keys: u32,
}

/// A value that was opened.
#[derive(PartialEq, Eq)]
pub struct Opened {
    /// Its type.
    pub kind: ValueType,
    /// Its clear text, wiped when dropped.
    pub clear: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The derived keys of one request.
pub struct OpenSession<'k> {
    keyring: &'k Keyring,
    policy: OpenPolicy,
    ephemeral: HashMap<[u8; 33], Ephemeral>,
    opened: u64,
}

/// What is known of one ephemeral key.
struct Ephemeral {
    point: [u8; 65],
    /// For each app key, newest first: with and without KDF.
    derived: Vec<Derived>,
}

#[derive(Default)]
struct Derived {
    with_kdf: Option<LessSafeKey>,
    without: Option<LessSafeKey>,
}

impl<'k> OpenSession<'k> {
    /// A session that has opened nothing.
    pub fn new(keyring: &'k Keyring, policy: OpenPolicy) -> Self {
        Self {
            keyring,
            policy,
            ephemeral: HashMap::new(),
            opened: 0,
        }
    }

    /// How many values were opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Opens a token. `bytes` starts with it; inside JSON its `/` may be written `\/`.
    ///
    /// # Errors
    ///
    /// [`OpenError::Debug`], [`OpenError::UnsupportedVersion`], [`OpenError::TooManyKeys`],
    /// [`OpenError::CannotOpen`], in this order.
    pub fn open(&mut self, bytes: &[u8], token: &Token) -> Result<Opened, OpenError> {
        if token.is_debug && !self.policy.dangerous_accept_debug {
            return Err(OpenError::Debug);
        }
        if !token.version.is_p256() {
            return Err(OpenError::UnsupportedVersion);
        }
        let iv: [u8; 12] = array(bytes, &token.iv)?;
        let compressed: [u8; 33] = array(bytes, &token.key)?;
        let sealed = Zeroizing::new(decode(bytes, &token.data)?);
        self.admit(compressed)?;
        let opened = self
            .try_keys(token, &iv, &compressed, &sealed)
            .ok_or(OpenError::CannotOpen)?;
        self.opened = self.opened.saturating_add(1);
        Ok(opened)
    }

    /// Opens an encrypted file.
    ///
    /// # Errors
    ///
    /// [`OpenError::Debug`], [`OpenError::TooManyKeys`], [`OpenError::CannotOpen`], in this order.
    pub(crate) fn open_file(
        &mut self,
        file: &EncryptedFile<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if file.is_debug && !self.policy.dangerous_accept_debug {
            return Err(OpenError::Debug);
        }
        self.admit(file.ephemeral)?;
        let ephemeral = self.ephemeral.get_mut(&file.ephemeral);
        let ephemeral = ephemeral.ok_or(OpenError::CannotOpen)?;
        let mut buffer = Zeroizing::new(Vec::with_capacity(file.sealed.len()));
        for (position, app_key) in self.keyring.newest_first().enumerate() {
            let Some(key) = ephemeral.key(position, true, app_key) else {
                continue;
            };
            buffer.clear();
            buffer.extend_from_slice(file.sealed);
            let nonce = Nonce::assume_unique_for_key(file.iv);
            let aad = Aad::from(app_key.public().compressed());
            if let Ok(clear) = key.open_in_place(nonce, aad, buffer.as_mut_slice()) {
                let length = clear.len();
                buffer.truncate(length);
                self.opened = self.opened.saturating_add(1);
                return Ok(buffer);
            }
        }
        Err(OpenError::CannotOpen)
    }

    /// Makes room for an ephemeral key, within the limit.
    fn admit(&mut self, compressed: [u8; 33]) -> Result<(), OpenError> {
        if self.ephemeral.contains_key(&compressed) {
            return Ok(());
        }
        let limit = self.policy.distinct_keys;
        if self.ephemeral.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return Err(OpenError::TooManyKeys { limit });
        }
        let point = decompress(&compressed).ok_or(OpenError::CannotOpen)?;
        self.ephemeral.insert(
            compressed,
            Ephemeral {
                point,
                derived: Vec::new(),
            },
        );
        Ok(())
    }

    fn try_keys(
        &mut self,
        token: &Token,
        iv: &[u8; 12],
        compressed: &[u8; 33],
        sealed: &[u8],
    ) -> Option<Opened> {
        let ephemeral = self.ephemeral.get_mut(compressed)?;
        for (position, app_key) in self.keyring.newest_first().enumerate() {
            let key = ephemeral.key(position, token.version.has_kdf(), app_key)?;
            let aad = additional_data(token, compressed, app_key.public().compressed());
            let mut buffer = Zeroizing::new(sealed.to_vec());
            let nonce = Nonce::assume_unique_for_key(*iv);
            let Ok(clear) = key.open_in_place(nonce, Aad::from(aad), &mut buffer) else {
                continue;
            };
            return accept(token, clear);
        }
        None
    }
}

impl fmt::Debug for OpenSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSession")
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}

impl Ephemeral {
    /// The key it makes with the app key at a position of the keyring.
    fn key(
        &mut self,
        position: usize,
        has_kdf: bool,
        app_key: &AppPrivateKey,
    ) -> Option<&LessSafeKey> {
        if self.derived.len() <= position {
            self.derived.push(Derived::default());
        }
        let derived = self.derived.get_mut(position)?;
        derived.key(has_kdf, app_key, &self.point)
    }
}

impl Derived {
    fn key(
        &mut self,
        has_kdf: bool,
        app_key: &AppPrivateKey,
        point: &[u8; 65],
    ) -> Option<&LessSafeKey> {
        let slot = if has_kdf {
            &mut self.with_kdf
        } else {
            &mut self.without
        };
        if slot.is_none() {
            let shared = app_key.agree(point)?;
            let key = if has_kdf {
                kdf::derive(shared.as_slice(), point)
            } else {
                shared
            };
            *slot = UnboundKey::new(&AES_256_GCM, key.as_slice())
                .ok()
                .map(LessSafeKey::new);
        }
        slot.as_ref()
    }
}

/// Cuts the metadata off and checks the type.
fn accept(token: &Token, clear: &[u8]) -> Option<Opened> {
    let value = if token.version.has_metadata() {
        metadata::skip(clear)?
    } else {
        clear
    };
    // Older versions do not authenticate the type, and the newest authenticates what anybody may
    // have written: a number that is none would add fields to a document.
    let is_typed = token.kind.admits(value);
    is_typed.then(|| Opened {
        kind: token.kind,
        clear: Zeroizing::new(value.to_vec()),
    })
}

/// What the version authenticates besides the ciphertext, at most 67 bytes.
pub(crate) fn additional_data(token: &Token, ephemeral: &[u8; 33], app: &[u8; 33]) -> Vec<u8> {
    match token.version.additional_data() {
        AdditionalData::None => Vec::new(),
        AdditionalData::AppKey => app.to_vec(),
        AdditionalData::V2 => {
            let head = if token.is_debug {
                0x80
            } else {
                (token.kind.number() << 4) | CURVE_P256
            };
            let mut out = vec![head];
            out.extend_from_slice(ephemeral);
            out.extend_from_slice(app);
            out
        }
    }
}

/// Opens a header whose whole value is one token.
///
/// `None`: it is not a token and passes as it is. The clear text is raw; one that could end the
/// header or the head is refused.
///
/// # Errors
///
/// As [`OpenSession::open`], and [`OpenError::CannotStand`] for CR, LF or NUL.
pub fn open_header_value(
    value: &[u8],
    session: &mut OpenSession<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, OpenError> {
    if !value.starts_with(crate::token::START) {
        return Ok(None);
    }
    let Some(token) = Token::parse(value) else {
        return Ok(None);
    };
    let opened = session.open(value, &token)?;
    if memchr::memchr3(b'\r', b'\n', 0, &opened.clear).is_some() {
        return Err(OpenError::CannotStand);
    }
    Ok(Some(opened.clear))
}

fn array<const N: usize>(
    bytes: &[u8],
    range: &std::ops::Range<usize>,
) -> Result<[u8; N], OpenError> {
    decode(bytes, range)?
        .try_into()
        .map_err(|_| OpenError::CannotOpen)
}

/// Decodes base64 without or with padding; a `\/` of JSON is a `/`.
fn decode(bytes: &[u8], range: &std::ops::Range<usize>) -> Result<Vec<u8>, OpenError> {
    let text = bytes.get(range.clone()).ok_or(OpenError::CannotOpen)?;
    let decoded = if memchr::memchr(b'\\', text).is_none() {
        BASE64.decode(text)
    } else {
        let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\\').collect();
        BASE64.decode(plain)
    };
    decoded.map_err(|_| OpenError::CannotOpen)
}

/// Standard alphabet; padding may be there; bits behind the last byte are not looked at, as the
/// SDKs' decoders do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The curve's number in AADv2.
const CURVE_P256: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const POLICY: OpenPolicy = OpenPolicy {
        dangerous_accept_debug: false,
        distinct_keys: 3,
    };

    fn vectors() -> Value {
        let text = include_str!("../../../tests/vectors/ciphertext/vectors.json");
        serde_json::from_str(text).unwrap()
    }

    fn keyring() -> Keyring {
        let other = AppPrivateKey::from_bytes(&[0x33; 32]).unwrap();
        let ours = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let newest = AppPrivateKey::from_bytes(&[0x44; 32]).unwrap();
        Keyring::new(vec![other, ours, newest]).unwrap()
    }

    fn open(text: &str) -> Result<Opened, OpenError> {
        let keyring = keyring();
        let token = Token::parse(text.as_bytes()).unwrap();
        OpenSession::new(&keyring, POLICY).open(text.as_bytes(), &token)
    }

    #[test]
    fn known_answers_open_whichever_key_of_the_app_made_them() {
        let mut opened = 0;
        for vector in vectors()["strings"].as_array().unwrap() {
            let text = vector["token"].as_str().unwrap();
            if vector["curve"] == "SECP256K1" {
                assert_eq!(open(text), Err(OpenError::UnsupportedVersion), "{text}");
                continue;
            }
            let plain = match &vector["plain"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(
                open(text).unwrap().clear.as_slice(),
                plain.as_bytes(),
                "{text}"
            );
            opened += 1;
        }
        assert_eq!(opened, 12);
    }

    /// Without a KDF and without additional data the type is anybody's word.
    #[test]
    fn a_swapped_type_is_refused_with_the_words_of_every_refusal() {
        let text = "ev:Tk9D:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:ye0W7ZzhtSI6hgogEw1itJWVkTBDSJ3730Af:$";
        assert_eq!(open(text).unwrap().kind, ValueType::String);
        let swapped = text.replace("Tk9D:", "Tk9D:number:");
        assert_eq!(open(&swapped), Err(OpenError::CannotOpen));
    }

    #[test]
    fn every_changed_character_is_refused() {
        let text = "ev:QkTC:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:u4j5I5ezaywkhgG0EosdAYhOR+Re08tSdCsTMrxUwE+c+crXDvCWSd3DoYnIRreTuh+/a8THrQ:$";
        open(text).unwrap();
        for at in 8..text.len() - 3 {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            if let Some(token) = Token::parse(changed.as_bytes()) {
                let keyring = keyring();
                let mut session = OpenSession::new(&keyring, POLICY);
                // The last character carries two bits that decode to nothing.
                if at != text.len() - 4 {
                    let refused = session.open(changed.as_bytes(), &token);
                    assert_eq!(refused, Err(OpenError::CannotOpen), "{at}");
                }
            }
        }
    }

    #[test]
    fn a_debug_token_is_refused_unless_the_policy_says_otherwise() {
        let text = "ev:debug:QkTC:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:u4j5I5ezaywkhgG0EosdAYhOR+Re08tSdCsTMrxUwE:$";
        assert_eq!(open(text), Err(OpenError::Debug));
    }

    /// Built from the primitives, because nothing here writes debug tokens.
    #[test]
    fn a_debug_token_opens_where_the_policy_says_so() {
        use base64::engine::general_purpose::STANDARD_NO_PAD;

        let ours = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let ephemeral = AppPrivateKey::from_bytes(&[0x22; 32]).unwrap();
        let shared = ephemeral.agree(ours.public().uncompressed()).unwrap();
        let key = kdf::derive(shared.as_slice(), ephemeral.public().uncompressed());
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).unwrap());
        let token = |head: u8| {
            let (point, app) = (ephemeral.public().compressed(), ours.public().compressed());
            let aad = [&[head], point.as_slice(), app.as_slice()].concat();
            let mut data = b"\x01\x00\x80clear".to_vec();
            let nonce = Nonce::assume_unique_for_key([3; 12]);
            key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut data)
                .unwrap();
            let [iv, point, data] = [&[3; 12], point.as_slice(), data.as_slice()]
                .map(|bytes| STANDARD_NO_PAD.encode(bytes));
            format!("ev:debug:QkTC:{iv}:{point}:{data}:$")
        };
        let keyring = keyring();
        let policy = OpenPolicy {
            dangerous_accept_debug: true,
            ..POLICY
        };
        let mut session = OpenSession::new(&keyring, policy);
        let mut open = |text: &str| {
            let token = Token::parse(text.as_bytes()).unwrap();
            session.open(text.as_bytes(), &token)
        };
        assert_eq!(open(&token(0x80)).unwrap().clear.as_slice(), b"clear");
        // An ordinary token does not become one of debug mode by its head, nor the reverse.
        assert_eq!(open(&token(0x01)), Err(OpenError::CannotOpen));
        let plain = token(0x01).replace("debug:", "");
        assert_eq!(open(&plain).unwrap().clear.as_slice(), b"clear");
        let stripped = token(0x80).replace("debug:", "");
        assert_eq!(open(&stripped), Err(OpenError::CannotOpen));
    }

    #[test]
    fn t05_distinct_keys_are_bounded_and_one_key_counts_once() {
        let keyring = keyring();
        let mut session = OpenSession::new(&keyring, POLICY);
        let mut counter = crate::seal::tests::Counting(1);
        let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let mut seal = || {
            crate::seal::seal(
                b"x",
                ValueType::String,
                app.public(),
                &crate::seal::tests::OPTIONS,
                &mut counter,
            )
            .unwrap()
        };
        let first = seal();
        for text in [&first, &first, &seal(), &seal()] {
            session
                .open(text.as_bytes(), &Token::parse(text.as_bytes()).unwrap())
                .unwrap();
        }
        let fourth = seal();
        let refused = session.open(fourth.as_bytes(), &Token::parse(fourth.as_bytes()).unwrap());
        assert_eq!(refused, Err(OpenError::TooManyKeys { limit: 3 }));
        assert_eq!(session.opened(), 4);
    }

    #[test]
    fn a_header_is_opened_only_when_it_is_one_token() {
        let keyring = keyring();
        let mut session = OpenSession::new(&keyring, POLICY);
        let mut counter = crate::seal::tests::Counting(1);
        let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let mut seal = |clear: &[u8]| {
            crate::seal::seal(
                clear,
                ValueType::String,
                app.public(),
                &crate::seal::tests::OPTIONS,
                &mut counter,
            )
            .unwrap()
        };
        let good = seal(b"secret");
        let opened = open_header_value(good.as_bytes(), &mut session)
            .unwrap()
            .unwrap();
        assert_eq!(opened.as_slice(), b"secret");
        let padded = format!("{good} ");
        assert_eq!(open_header_value(padded.as_bytes(), &mut session), Ok(None));
        assert_eq!(open_header_value(b"ev:123", &mut session), Ok(None));
        let evil = seal(b"a\r\nx-admin: 1");
        assert_eq!(
            open_header_value(evil.as_bytes(), &mut session),
            Err(OpenError::CannotStand)
        );
    }
}
