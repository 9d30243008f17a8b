//! AES keys that were derived, for as long as they may be used again.
//!
//! SDKs seal many fields, and many documents, with one ephemeral key. What one costs (decompression,
//! ECDH, KDF, key schedule) is some 60 µs; with the expanded key at hand a field costs a fraction of
//! one. A cache belongs to one keyring: another keyring has a cache of its own, so a key of an app key
//! that was taken away is found nowhere.
//!
//! It is bounded in keys and in time. It reads no clock: its owner says what time it is, with
//! [`KeyCache::expire`]. The keys lie in memory of aws-lc, which wipes what it gives back.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};

use crate::curve::Curve;
use crate::kdf;
use crate::keys::{Keyring, OpeningKey};

/// Most AES keys of one cache: beyond them the ephemeral key that came first goes. Each takes less
/// than a kibibyte.
pub const MAX_CACHED_KEYS: usize = 4096;
/// How long a key is kept, by what its owner says the time is.
pub const KEY_LIFE: Duration = Duration::from_secs(9);

/// A keyring, and what was derived with it. Shared by the sessions of one thread.
pub struct KeyCache {
    keyring: Arc<Keyring>,
    pub(crate) keys: RefCell<DerivedKeys>,
}

impl KeyCache {
    /// A cache that has derived nothing.
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self {
            keyring,
            keys: RefCell::default(),
        }
    }

    /// The keyring that it belongs to.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Says that it is `now`, since any moment that stays the same, and forgets what is older than
    /// [`KEY_LIFE`]. A key counts from the last call before it was derived: with a call every second
    /// none is kept for longer than ten.
    pub fn expire(&self, now: Duration) {
        self.keys.borrow_mut().expire(now);
    }

    /// AES keys that it holds.
    pub fn len(&self) -> usize {
        self.keys.borrow().count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// An ephemeral public key: a compressed point, and of which curve. The same bytes can be a point of
/// both.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EphemeralKey {
    pub(crate) curve: Curve,
    pub(crate) compressed: [u8; 33],
}

/// What was derived, by ephemeral key.
#[derive(Default)]
pub(crate) struct DerivedKeys {
    /// Oldest first: they come at one end and go at the other, so that each keeps its number.
    ephemeral: VecDeque<Ephemeral>,
    /// How many have gone: the number of the oldest.
    gone: u64,
    numbers: HashMap<EphemeralKey, Number>,
    now: Duration,
    count: usize,
}

/// The number of an ephemeral key that was taken up. A cache gives each once, so who has one finds that
/// key or none: values with one ephemeral key come one after the other, and to look for it by its bytes
/// takes longer than to decrypt a short value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u64);

/// One ephemeral key, and what it makes with each app key, newest first.
struct Ephemeral {
    key: EphemeralKey,
    since: Duration,
    point: [u8; 65],
    derived: Vec<WithAppKey>,
}

#[derive(Default)]
struct WithAppKey {
    with_kdf: Slot,
    without: Slot,
}

#[derive(Default)]
enum Slot {
    #[default]
    Unknown,
    /// The two make none: the shared point is the point at infinity.
    None,
    Key(Box<LessSafeKey>),
}

/// What a look for a key came to.
pub(crate) enum Found<'c> {
    Key(&'c LessSafeKey),
    /// The ephemeral key was let go of since.
    Gone,
    /// There is no such key.
    None,
    /// It would have to be derived, and there is no leave for that.
    Paused,
}

impl DerivedKeys {
    /// The number of an ephemeral key that was taken up.
    pub(crate) fn number(&self, key: &EphemeralKey) -> Option<Number> {
        self.numbers.get(key).copied()
    }

    /// Takes an ephemeral key up that has no number; `None` when it is not on the curve.
    pub(crate) fn admit(&mut self, key: &EphemeralKey) -> Option<Number> {
        // An ephemeral key takes room before anything is derived with it, and nothing may be.
        while self.count.max(self.ephemeral.len()) >= MAX_CACHED_KEYS && self.forget_oldest() {}
        let point = key.curve.decompress(&key.compressed)?;
        let before = u64::try_from(self.ephemeral.len()).ok()?;
        let number = Number(self.gone.checked_add(before)?);
        self.numbers.insert(*key, number);
        self.ephemeral.push_back(Ephemeral {
            key: *key,
            since: self.now,
            point,
            derived: Vec::new(),
        });
        Some(number)
    }

    /// The key that an ephemeral key makes with the app key at a position among those of its curve.
    /// `may_derive` is asked when it is not there yet.
    pub(crate) fn key(
        &mut self,
        number: Number,
        (position, app_key): (usize, OpeningKey<'_>),
        has_kdf: bool,
        may_derive: impl FnOnce() -> bool,
    ) -> Found<'_> {
        let place = number.0.checked_sub(self.gone);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let Some(ephemeral) = place.and_then(|place| self.ephemeral.get_mut(place)) else {
            return Found::Gone;
        };
        if ephemeral.derived.len() <= position {
            let room = position.saturating_add(1);
            ephemeral.derived.resize_with(room, WithAppKey::default);
        }
        let Some(derived) = ephemeral.derived.get_mut(position) else {
            return Found::None;
        };
        let slot = if has_kdf {
            &mut derived.with_kdf
        } else {
            &mut derived.without
        };
        if matches!(slot, Slot::Unknown) {
            if !may_derive() {
                return Found::Paused;
            }
            let kdf = has_kdf.then_some(ephemeral.key.curve);
            *slot = derive(app_key, &ephemeral.point, kdf);
            self.count = self.count.saturating_add(1);
        }
        match slot {
            Slot::Key(key) => Found::Key(key),
            Slot::None | Slot::Unknown => Found::None,
        }
    }

    fn expire(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let is_over = |since: &Duration| since.checked_add(KEY_LIFE).is_none_or(|end| end <= now);
        while self
            .ephemeral
            .front()
            .is_some_and(|kept| is_over(&kept.since))
        {
            self.forget_oldest();
        }
        if self.ephemeral.is_empty() {
            // Room that a flood took is given back.
            (self.numbers, self.ephemeral) = (HashMap::new(), VecDeque::new());
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.ephemeral.pop_front() else {
            return false;
        };
        self.gone = self.gone.saturating_add(1);
        self.numbers.remove(&oldest.key);
        let slots = oldest
            .derived
            .iter()
            .flat_map(|keys| [&keys.with_kdf, &keys.without]);
        let known = slots.filter(|slot| !matches!(slot, Slot::Unknown));
        self.count = self.count.saturating_sub(known.count());
        true
    }
}

/// The expanded AES key, through the KDF of a curve or as the two agree on it.
fn derive(app_key: OpeningKey<'_>, point: &[u8; 65], kdf: Option<Curve>) -> Slot {
    let Some(shared) = app_key.agree(point) else {
        return Slot::None;
    };
    let key = match kdf {
        Some(curve) => kdf::derive(curve, shared.as_slice(), point),
        None => shared,
    };
    match UnboundKey::new(&AES_256_GCM, key.as_slice()) {
        Ok(key) => Slot::Key(Box::new(LessSafeKey::new(key))),
        Err(_) => Slot::None,
    }
}

#[cfg(test)]
mod tests;
