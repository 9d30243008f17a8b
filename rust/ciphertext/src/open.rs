//! Opening tokens: one session per request, so that its work is bounded.
//!
//! What an ephemeral key makes with an app key is kept in a [`KeyCache`], which sessions may share. A
//! session can be told how many keys it may derive before it is asked again
//! ([`OpenSession::grant`]): one that has used them up is *paused*, has done nothing of what it was
//! asked last, and goes on when it is granted more. So whoever runs it decides how long it keeps a
//! thread.

mod error;
mod opened;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use zeroize::Zeroizing;

use crate::additional::Additional;
use crate::curve::Curve;
use crate::decode::{array, decode, iv};
use crate::file::{EncryptedFile, Unfit};
use crate::key_cache::{DerivedKeys, EphemeralKey, Found, KeyCache, Number};
use crate::keys::{Keyring, OpeningKey};
use crate::metadata;
use crate::room::Room;
use crate::token::Token;
use crate::version::ValueType;

pub use error::OpenError;
pub use opened::Opened;

/// What a session accepts.
#[derive(Clone, Copy, Debug)]
pub struct OpenPolicy {
    /// Whether `ev:debug:` tokens are opened. Only a debug enclave sets it.
    pub dangerous_accept_debug: bool,
    /// Most distinct ephemeral keys.
    pub distinct_keys: u32,
}

/// The work of one request.
pub struct OpenSession<'k> {
    keyring: &'k Keyring,
    policy: OpenPolicy,
    keys: Keys<'k>,
    /// Ephemeral keys of this request.
    distinct: HashSet<EphemeralKey>,
    /// The last of them: most documents have one.
    last: Option<Admitted>,
    /// Memory to open the next token in, all zero; taken while one is opened. (An empty one in its place
    /// would be dropped, and to wipe no bytes at no address is slow: a masked store that faults.)
    room: Option<Room>,
    allowance: u32,
    is_paused: bool,
    counts: OpenCounts,
}

/// An ephemeral key that was made room for.
struct Admitted {
    key: EphemeralKey,
    /// How the token wrote it.
    text: Option<[u8; 44]>,
    number: Number,
}

/// An ephemeral key as a ciphertext names it.
enum Ephemeral<'b> {
    /// The one that was admitted last, in the same characters.
    Last,
    /// Whichever, and its characters where it has any.
    Other(EphemeralKey, &'b [u8]),
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
            room: None,
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
        self.open_with(bytes, token, |kind, clear| {
            let mut copy = Zeroizing::new(Vec::with_capacity(clear.len()));
            copy.extend_from_slice(clear);
            Opened { kind, clear: copy }
        })
    }

    /// Opens a token as [`OpenSession::open`], and shows `read` what it holds. The clear text is wiped
    /// when it returns.
    pub(crate) fn open_with<T>(
        &mut self,
        bytes: &[u8],
        token: &Token,
        read: impl FnOnce(ValueType, &[u8]) -> T,
    ) -> Result<T, OpenError> {
        if token.is_debug && !self.policy.dangerous_accept_debug {
            return Err(OpenError::Debug);
        }
        let iv = iv(bytes, &token.iv)?;
        let ephemeral = self.ephemeral(bytes, token)?;
        let text = bytes.get(token.data.clone()).unwrap_or_default();
        let mut room = self.room.take().unwrap_or_default();
        let opened = self.work(&ephemeral, |session| {
            let buffer = room.of(text.len());
            let mut aad = session.additional(token);
            let has_kdf = token.version.has_kdf();
            let clear_length = session.try_keys(token.version.curve(), has_kdf, |key, app| {
                let length = decode(text, buffer)?;
                let sealed = buffer.get_mut(..length).unwrap_or_default();
                Ok(open_in(key, iv, aad.with(app.public()), sealed))
            })?;
            let clear = buffer.get(..clear_length).unwrap_or_default();
            let value = accept(token, clear).ok_or(OpenError::CannotOpen)?;
            Ok(read(token.kind, value))
        });
        room.wipe();
        self.room = Some(room);
        opened
    }

    /// What is authenticated besides a token that names the last ephemeral key.
    fn additional(&self, token: &Token) -> Additional {
        let last = self.last.as_ref();
        last.map_or_else(Additional::none, |last| {
            Additional::of_token(token, &last.key.compressed)
        })
    }

    /// The ephemeral key of a token. Most documents have one, written in the same characters.
    fn ephemeral<'b>(&self, bytes: &'b [u8], token: &Token) -> Result<Ephemeral<'b>, OpenError> {
        let curve = token.version.curve();
        let text = bytes.get(token.key.clone()).unwrap_or_default();
        if let Some(last) = &self.last
            && last.key.curve == curve
            && last.text.is_some_and(|known| known == *text)
        {
            return Ok(Ephemeral::Last);
        }
        let compressed = array(bytes, &token.key)?;
        Ok(Ephemeral::Other(EphemeralKey { curve, compressed }, text))
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
        let ephemeral = Ephemeral::Other(file.ephemeral, &[]);
        self.work(&ephemeral, |session| {
            let mut aad = if is_p256 {
                Additional::app_key()
            } else {
                Additional::none()
            };
            let mut buffer = Zeroizing::new(Vec::with_capacity(file.sealed.len()));
            let length = session.try_keys(file.ephemeral.curve, is_p256, |key, app| {
                buffer.clear();
                buffer.extend_from_slice(file.sealed);
                Ok(open_in(key, file.iv, aad.with(app.public()), &mut buffer))
            })?;
            buffer.truncate(length);
            Ok(buffer)
        })
    }

    /// Opens something that was made with an ephemeral key, and counts it.
    fn work<T>(
        &mut self,
        ephemeral: &Ephemeral<'_>,
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

    /// Makes room for an ephemeral key, within the limit. It is the last one then.
    fn admit(&mut self, ephemeral: &Ephemeral<'_>) -> Result<(), OpenError> {
        let Ephemeral::Other(key, text) = *ephemeral else {
            return Ok(());
        };
        if self.last.as_ref().is_some_and(|last| last.key == key) {
            // Whether it is still known is found out where its key is looked for.
            return Ok(());
        }
        if !self.distinct.contains(&key) {
            let limit = self.policy.distinct_keys;
            if self.distinct.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                return Err(OpenError::TooManyKeys { limit });
            }
            self.distinct.insert(key);
        }
        let number = self.take_up(&key)?;
        let text = text.try_into().ok();
        self.last = Some(Admitted { key, text, number });
        Ok(())
    }

    /// Has the cache know an ephemeral key.
    fn take_up(&mut self, ephemeral: &EphemeralKey) -> Result<Number, OpenError> {
        let mut keys = self.keys.cell().borrow_mut();
        if let Some(number) = keys.number(ephemeral) {
            return Ok(number);
        }
        if self.allowance == 0 {
            return Err(OpenError::Paused);
        }
        if let Some(number) = keys.admit(ephemeral) {
            return Ok(number);
        }
        // Finding that it is no point of the curve is work, too.
        self.allowance = self.allowance.saturating_sub(1);
        Err(OpenError::CannotOpen)
    }

    /// Tries every app key of the curve, newest first, until `attempt` gives the length of a clear text.
    /// The ephemeral key is the last one.
    fn try_keys(
        &mut self,
        curve: Curve,
        has_kdf: bool,
        mut attempt: impl FnMut(&LessSafeKey, OpeningKey<'_>) -> Result<Option<usize>, OpenError>,
    ) -> Result<usize, OpenError> {
        for (position, app_key) in self.keyring.newest_first(curve).enumerate() {
            let length = loop {
                let Some(Admitted { key, number, .. }) = &self.last else {
                    return Err(OpenError::CannotOpen);
                };
                let mut keys = self.keys.cell().borrow_mut();
                let (allowance, derived) = (&mut self.allowance, &mut self.counts.derived);
                let may_derive = || {
                    let left = allowance.checked_sub(1);
                    *derived = derived.saturating_add(u64::from(left.is_some()));
                    *allowance = left.unwrap_or(0);
                    left.is_some()
                };
                match keys.key(*number, (position, app_key), has_kdf, may_derive) {
                    Found::Key(key) => break attempt(key, app_key)?,
                    Found::None => break None,
                    Found::Paused => return Err(OpenError::Paused),
                    Found::Gone => {}
                }
                drop(keys);
                let key = *key;
                let number = self.take_up(&key)?;
                if let Some(last) = &mut self.last {
                    last.number = number;
                }
            };
            if let Some(length) = length {
                return Ok(length);
            }
        }
        Err(OpenError::CannotOpen)
    }
}

/// Opens a ciphertext and its tag where they lie; how long the clear text is, when `key` opens them.
fn open_in(key: &LessSafeKey, iv: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
    let nonce = Nonce::assume_unique_for_key(iv);
    let clear = key.open_in_place(nonce, Aad::from(aad), sealed).ok()?;
    Some(clear.len())
}

impl fmt::Debug for OpenSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSession")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// The value without its metadata, when it is of the token's type.
fn accept<'c>(token: &Token, clear: &'c [u8]) -> Option<&'c [u8]> {
    let value = if token.version.has_metadata() {
        metadata::skip(clear)?
    } else {
        clear
    };
    // Older versions do not authenticate the type, and the newest authenticates what anybody may
    // have written: a number that is none would add fields to a document.
    token.kind.admits(value).then_some(value)
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
