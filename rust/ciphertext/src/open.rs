//! Opening tokens: one session per request, so that its work is bounded.
//!
//! What an ephemeral key makes with an app key is kept in a [`KeyCache`], which sessions may share. A
//! session can be told how many keys it may derive before it is asked again
//! ([`OpenSession::grant`]): one that has used them up is *paused*, has done nothing of what it was
//! asked last, and goes on when it is granted more. So whoever runs it decides how long it keeps a
//! thread.

mod error;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use zeroize::Zeroizing;

use crate::additional::{Additional, additional_data};
use crate::curve::Curve;
use crate::decode::{array, decode};
use crate::file::{EncryptedFile, Unfit};
use crate::key_cache::{DerivedKeys, EphemeralKey, Found, KeyCache};
use crate::keys::{Keyring, OpeningKey};
use crate::metadata;
use crate::room::wipe;
use crate::token::Token;
use crate::version::ValueType;

pub use error::OpenError;

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

impl Opened {
    /// The clear text alone.
    pub fn into_clear(mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.clear)
    }
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
    Ok(Some(opened.into_clear()))
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

#[cfg(test)]
mod tests;
