//! Opening tokens: one session per request, so that its work is bounded.
//!
//! What an ephemeral key makes with an app key is kept in a [`KeyCache`], which sessions may share. A
//! session can be told how many keys it may derive before it is asked again
//! ([`OpenSession::grant`]): one that has used them up is *paused*, has done nothing of what it was
//! asked last, and goes on when it is granted more. So whoever runs it decides how long it keeps a
//! thread.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::curve::Curve;
use crate::file::{EncryptedFile, Unfit};
use crate::key_cache::{DerivedKeys, EphemeralKey, Found, KeyCache};
use crate::keys::{Keyring, OpeningKey};
use crate::metadata;
use crate::room::wipe;
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
    /// An encrypted file whose checksum is wrong.
    #[error("the encrypted file is damaged or cut short: its checksum is wrong")]
    Damaged,
    /// A token of the SDKs' debug mode outside a debug enclave.
    #[error("the ciphertext was made in debug mode, which this enclave does not accept")]
    Debug,
    /// Not an encrypted file.
    #[error("not an encrypted file: it does not have the form of one")]
    NotAFile,
    /// Not yet: the session may derive no more keys until it is granted some.
    #[error("the ciphertext is not opened yet")]
    Paused,
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
    /// An encrypted file of a version that used a nonce twice.
    #[error(
        "the encrypted file is of version 04 or 05, which used a nonce twice: it is not opened"
    )]
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

impl Drop for Opened {
    fn drop(&mut self) {
        wipe(&mut self.clear);
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The work of one request.
pub struct OpenSession<'k> {
    keyring: &'k Keyring,
    policy: OpenPolicy,
    keys: Keys<'k>,
    /// Ephemeral keys of this request.
    distinct: HashSet<EphemeralKey>,
    /// The last of them: most documents have one.
    last: Option<EphemeralKey>,
    /// The last one that was read, and how it was written.
    last_text: Option<([u8; 44], EphemeralKey)>,
    allowance: u32,
    is_paused: bool,
    counts: OpenCounts,
}

/// What a session has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Keys that were derived: one ECDH each.
    pub derived: u64,
    /// Values for which every key was at hand.
    pub hits: u64,
    /// Values that were opened.
    pub opened: u64,
}

/// Where derived keys are kept.
enum Keys<'k> {
    Own(Box<RefCell<DerivedKeys>>),
    Shared(&'k RefCell<DerivedKeys>),
}

impl Keys<'_> {
    fn cell(&self) -> &RefCell<DerivedKeys> {
        match self {
            Self::Own(keys) => keys,
            Self::Shared(keys) => keys,
        }
    }
}

impl<'k> OpenSession<'k> {
    /// A session that keeps what it derives to itself, and is never paused.
    pub fn new(keyring: &'k Keyring, policy: OpenPolicy) -> Self {
        Self::with(keyring, policy, Keys::Own(Box::default()), u32::MAX)
    }

    /// A session that shares what it derives. It is paused at the first key that is not there, until
    /// it is granted some.
    pub fn shared(cache: &'k KeyCache, policy: OpenPolicy) -> Self {
        Self::with(cache.keyring(), policy, Keys::Shared(&cache.keys), 0)
    }

    fn with(keyring: &'k Keyring, policy: OpenPolicy, keys: Keys<'k>, allowance: u32) -> Self {
        Self {
            keyring,
            policy,
            keys,
            distinct: HashSet::new(),
            last: None,
            last_text: None,
            allowance,
            is_paused: false,
            counts: OpenCounts::default(),
        }
    }

    /// How many values were opened.
    pub fn opened(&self) -> u64 {
        self.counts.opened
    }

    /// What it has done so far.
    pub fn counts(&self) -> OpenCounts {
        self.counts
    }

    /// Whether it waits to be granted keys.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// It may derive so many keys from here on, whatever was left of an earlier grant.
    pub fn grant(&mut self, keys: u32) {
        self.allowance = keys;
        self.is_paused = false;
    }

    /// It may derive no more until it is granted some; whether it is paused stays.
    pub fn withdraw(&mut self) {
        self.allowance = 0;
    }

    /// Opens a token. `bytes` starts with it; inside JSON its `/` may be written `\/`.
    ///
    /// # Errors
    ///
    /// [`OpenError::Debug`], [`OpenError::TooManyKeys`], [`OpenError::Paused`],
    /// [`OpenError::CannotOpen`], in this order.
    pub fn open(&mut self, bytes: &[u8], token: &Token) -> Result<Opened, OpenError> {
        if token.is_debug && !self.policy.dangerous_accept_debug {
            return Err(OpenError::Debug);
        }
        let iv: [u8; 12] = array(bytes, &token.iv)?;
        let ephemeral = self.ephemeral_key(bytes, token)?;
        let text = bytes.get(token.data.clone()).unwrap_or_default();
        self.work(&ephemeral, |session| {
            let has_kdf = token.version.has_kdf();
            let aad = |app: &[u8; 33]| additional_data(token, &ephemeral.compressed, app);
            let fill = |buffer: &mut Vec<u8>| decode(text, buffer);
            let room = text.len();
            let clear = session.try_keys(&ephemeral, has_kdf, iv, aad, (room, fill))?;
            accept(token, clear).ok_or(OpenError::CannotOpen)
        })
    }

    /// The ephemeral key of a token. Most documents have one, written in the same characters.
    fn ephemeral_key(&mut self, bytes: &[u8], token: &Token) -> Result<EphemeralKey, OpenError> {
        let curve = token.version.curve();
        let text = bytes.get(token.key.clone()).unwrap_or_default();
        if let Some((known, key)) = &self.last_text
            && known == text
            && key.curve == curve
        {
            return Ok(*key);
        }
        let compressed = array(bytes, &token.key)?;
        let key = EphemeralKey { curve, compressed };
        self.last_text = text.try_into().ok().map(|text| (text, key));
        Ok(key)
    }

    /// Opens an encrypted file.
    ///
    /// # Errors
    ///
    /// [`OpenError::Debug`], [`OpenError::TooManyKeys`], [`OpenError::Paused`],
    /// [`OpenError::CannotOpen`], in this order.
    pub(crate) fn open_file(
        &mut self,
        file: &EncryptedFile<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if file.is_debug && !self.policy.dangerous_accept_debug {
            return Err(OpenError::Debug);
        }
        // The version on secp256k1 came before KDF and additional data.
        let is_p256 = file.ephemeral.curve == Curve::P256;
        self.work(&file.ephemeral, |session| {
            let aad = |app: &[u8; 33]| {
                let app = if is_p256 { app.as_slice() } else { &[] };
                Additional::from_parts(&[app])
            };
            let fill = |buffer: &mut Vec<u8>| {
                buffer.extend_from_slice(file.sealed);
                Ok(())
            };
            let room = file.sealed.len();
            session.try_keys(&file.ephemeral, is_p256, file.iv, aad, (room, fill))
        })
    }

    /// Opens something that was made with an ephemeral key, and counts it.
    fn work<T>(
        &mut self,
        ephemeral: &EphemeralKey,
        open: impl FnOnce(&mut Self) -> Result<T, OpenError>,
    ) -> Result<T, OpenError> {
        let derived = self.counts.derived;
        let opened = self.admit(ephemeral).and_then(|()| open(self));
        self.is_paused = matches!(opened, Err(OpenError::Paused));
        if !self.is_paused {
            self.counts.opened = self.counts.opened.saturating_add(u64::from(opened.is_ok()));
            let is_hit = derived == self.counts.derived;
            self.counts.hits = self.counts.hits.saturating_add(u64::from(is_hit));
        }
        opened
    }

    /// Makes room for an ephemeral key, within the limit.
    fn admit(&mut self, ephemeral: &EphemeralKey) -> Result<(), OpenError> {
        if self.last.as_ref() == Some(ephemeral) {
            // Whether it is still known is found out where its key is looked for.
            return Ok(());
        }
        if !self.distinct.contains(ephemeral) {
            let limit = self.policy.distinct_keys;
            if self.distinct.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                return Err(OpenError::TooManyKeys { limit });
            }
            self.distinct.insert(*ephemeral);
        }
        self.take_up(ephemeral)?;
        self.last = Some(*ephemeral);
        Ok(())
    }

    /// Has the cache know an ephemeral key.
    fn take_up(&mut self, ephemeral: &EphemeralKey) -> Result<(), OpenError> {
        let mut keys = self.keys.cell().borrow_mut();
        if keys.knows(ephemeral) {
            return Ok(());
        }
        if self.allowance == 0 {
            return Err(OpenError::Paused);
        }
        if keys.admit(ephemeral) {
            return Ok(());
        }
        // Finding that it is no point of the curve is work, too.
        self.allowance = self.allowance.saturating_sub(1);
        Err(OpenError::CannotOpen)
    }

    /// Tries every app key of the curve, newest first. `fill` writes the ciphertext and its tag into an
    /// empty buffer of this room; it is asked once for each key that is tried.
    fn try_keys(
        &mut self,
        ephemeral: &EphemeralKey,
        has_kdf: bool,
        iv: [u8; 12],
        aad: impl Fn(&[u8; 33]) -> Additional,
        (room, fill): (usize, impl Fn(&mut Vec<u8>) -> Result<(), OpenError>),
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut buffer = Zeroizing::new(Vec::with_capacity(room));
        for (position, app_key) in self.keyring.newest_first(ephemeral.curve).enumerate() {
            let key = loop {
                let mut keys = self.keys.cell().borrow_mut();
                let (allowance, derived) = (&mut self.allowance, &mut self.counts.derived);
                let may_derive = || {
                    let left = allowance.checked_sub(1);
                    *derived = derived.saturating_add(u64::from(left.is_some()));
                    *allowance = left.unwrap_or(0);
                    left.is_some()
                };
                match keys.key(ephemeral, (position, app_key), has_kdf, may_derive) {
                    Found::Key(key) => {
                        break Some(open_with(key, iv, &aad, app_key, &fill, &mut buffer)?);
                    }
                    Found::None => break None,
                    Found::Paused => return Err(OpenError::Paused),
                    Found::Gone => {}
                }
                drop(keys);
                self.take_up(ephemeral)?;
            };
            if key == Some(true) {
                return Ok(buffer);
            }
        }
        Err(OpenError::CannotOpen)
    }
}

/// Whether `key` opens what `fill` writes; if so, `buffer` is the clear text.
fn open_with(
    key: &LessSafeKey,
    iv: [u8; 12],
    aad: impl Fn(&[u8; 33]) -> Additional,
    app_key: OpeningKey<'_>,
    fill: impl Fn(&mut Vec<u8>) -> Result<(), OpenError>,
    buffer: &mut Vec<u8>,
) -> Result<bool, OpenError> {
    buffer.clear();
    fill(buffer)?;
    let nonce = Nonce::assume_unique_for_key(iv);
    let aad = Aad::from(aad(app_key.public()));
    let Ok(clear) = key.open_in_place(nonce, aad, buffer.as_mut_slice()) else {
        return Ok(false);
    };
    let length = clear.len();
    buffer.truncate(length);
    Ok(true)
}

impl fmt::Debug for OpenSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSession")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Cuts the metadata off and checks the type.
fn accept(token: &Token, mut clear: Zeroizing<Vec<u8>>) -> Option<Opened> {
    if token.version.has_metadata() {
        let value = metadata::skip(&clear)?;
        let start = clear.len().checked_sub(value.len())?;
        clear.drain(..start);
    }
    // Older versions do not authenticate the type, and the newest authenticates what anybody may
    // have written: a number that is none would add fields to a document.
    let kind = token.kind;
    kind.admits(&clear).then_some(Opened { kind, clear })
}

/// What is authenticated besides the ciphertext.
pub(crate) struct Additional {
    bytes: [u8; MOST_ADDITIONAL_BYTES],
    length: usize,
}

impl Additional {
    /// The parts, one after the other; together at most [`MOST_ADDITIONAL_BYTES`].
    fn from_parts(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; MOST_ADDITIONAL_BYTES];
        let mut length = 0_usize;
        for part in parts {
            let end = length.saturating_add(part.len());
            if let Some(to) = bytes.get_mut(length..end) {
                to.copy_from_slice(part);
                length = end;
            }
        }
        Self { bytes, length }
    }
}

impl AsRef<[u8]> for Additional {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// AADv2: a byte and two compressed points.
const MOST_ADDITIONAL_BYTES: usize = 67;

/// What the version authenticates besides the ciphertext.
pub(crate) fn additional_data(token: &Token, ephemeral: &[u8; 33], app: &[u8; 33]) -> Additional {
    match token.version.additional_data() {
        AdditionalData::None => Additional::from_parts(&[]),
        AdditionalData::AppKey => Additional::from_parts(&[app]),
        AdditionalData::V2 => {
            let head = if token.is_debug {
                0x80
            } else {
                (token.kind.number() << 4) | token.version.curve().number()
            };
            Additional::from_parts(&[&[head], ephemeral, app])
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
    let mut opened = session.open(value, &token)?;
    if memchr::memchr3(b'\r', b'\n', 0, &opened.clear).is_some() {
        return Err(OpenError::CannotStand);
    }
    Ok(Some(std::mem::take(&mut opened.clear)))
}

/// Opens an encrypted file that is there whole.
///
/// # Errors
///
/// [`OpenError::NotAFile`], [`OpenError::Damaged`], [`OpenError::UnsupportedVersion`],
/// [`OpenError::Debug`], [`OpenError::TooManyKeys`], [`OpenError::Paused`],
/// [`OpenError::CannotOpen`], in this order.
pub fn open_file(
    file: &[u8],
    session: &mut OpenSession<'_>,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let file = EncryptedFile::parse(file).map_err(Unfit::as_error)?;
    session.open_file(&file)
}

fn array<const N: usize>(
    bytes: &[u8],
    range: &std::ops::Range<usize>,
) -> Result<[u8; N], OpenError> {
    let text = bytes.get(range.clone()).ok_or(OpenError::CannotOpen)?;
    let mut out = [0; N];
    if let Ok(length) = BASE64.decode_slice(text, &mut out) {
        return (length == N).then_some(out).ok_or(OpenError::CannotOpen);
    }
    // A `\/` of JSON, or longer than what it is.
    let mut decoded = Vec::with_capacity(text.len());
    decode(text, &mut decoded)?;
    decoded.try_into().map_err(|_| OpenError::CannotOpen)
}

/// Decodes base64 without or with padding behind what `out` holds, which has room; a `\/` of JSON is
/// a `/`.
fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
    let decoded = if memchr::memchr(b'\\', text).is_none() {
        BASE64.decode_vec(text, out)
    } else {
        let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\\').collect();
        BASE64.decode_vec(plain, out)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kdf;
    use crate::keys::{AppPrivateKey, Secp256k1PrivateKey};
    use aws_lc_rs::aead::{AES_256_GCM, UnboundKey};
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
        let p256 = [0x33, 0x11, 0x44].map(|byte| AppPrivateKey::from_bytes(&[byte; 32]).unwrap());
        let secp256k1 =
            [0x33, 0x11, 0x44].map(|byte| Secp256k1PrivateKey::from_bytes(&[byte; 32]).unwrap());
        Keyring::with_secp256k1(p256.into(), secp256k1.into()).unwrap()
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
        assert_eq!(opened, 24);
    }

    /// A version that is not written means RFVC, whose type is anybody's word.
    #[test]
    fn a_token_without_a_version_is_the_oldest_on_secp256k1() {
        let text = "ev:RFVC:AAECAwQFBgcICQoL:AkZtf8rlY+XLCaDRhwu1gDRIBGF4eaFJSc8iKF8brj8n:IMG3MCpSmRFsC2GP7RB37fNRDJaxZbqyYEy+:$";
        let bare = text.replace("RFVC:", "");
        assert_eq!(open(&bare).unwrap().clear.as_slice(), b"hello world");
        let typed = text.replace("RFVC:", "RFVC:number:");
        assert_eq!(open(&typed), Err(OpenError::CannotOpen));
        // Another version on the same curve has another key.
        let other = text.replace("RFVC:", "S0lS:");
        assert_eq!(open(&other), Err(OpenError::CannotOpen));
    }

    #[test]
    fn a_curve_without_a_key_opens_nothing() {
        let p256 = Keyring::new(vec![AppPrivateKey::from_bytes(&[0x11; 32]).unwrap()]).unwrap();
        let vectors = vectors();
        let mut seen = [0, 0];
        for vector in vectors["strings"].as_array().unwrap() {
            let text = vector["token"].as_str().unwrap().as_bytes();
            let mut session = OpenSession::new(&p256, POLICY);
            let opened = session.open(text, &Token::parse(text).unwrap());
            let is_p256 = vector["curve"] == "SECP256R1";
            assert_eq!(opened.is_ok(), is_p256);
            seen[usize::from(is_p256)] += 1;
        }
        assert_eq!(seen, [12, 12]);
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
        let key = kdf::derive(
            Curve::P256,
            shared.as_slice(),
            ephemeral.public().uncompressed(),
        );
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
