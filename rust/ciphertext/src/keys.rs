//! App keys: the public half that anybody encrypts with, the private half that opens.

use std::fmt;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPublicKeyCompressedBin};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::curve::Curve;
use crate::random::Random;
use crate::secp256k1;

/// Most keys of one curve in a keyring: more would multiply the cost of a token that none opens.
pub const MAX_KEYS: usize = 4;

/// Why a key was refused.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A curve that is neither of the two.
    #[error("the curve of a key is neither `P-256` nor `secp256k1`")]
    Curve,
    /// Not 32 bytes of a scalar between 1 and the order of its curve.
    #[error("not a private key of its curve, 32 bytes")]
    Private,
    /// Not a compressed point of P-256.
    #[error("not a compressed P-256 public key of 33 bytes")]
    Public,
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    Random,
    /// More than [`MAX_KEYS`].
    #[error("{count} app keys of one curve, the limit is 4")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

/// The public half of an app key, P-256: what ciphertexts are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct AppPublicKey {
    compressed: [u8; 33],
    uncompressed: [u8; 65],
}

impl AppPublicKey {
    /// Reads a compressed point (SEC 1 §2.3.3), 33 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::Public`]: another length, another form, or not on the curve.
    pub fn from_compressed(bytes: &[u8]) -> Result<Self, KeyError> {
        let compressed: [u8; 33] = bytes.try_into().map_err(|_| KeyError::Public)?;
        let uncompressed = Curve::P256
            .decompress(&compressed)
            .ok_or(KeyError::Public)?;
        Ok(Self {
            compressed,
            uncompressed,
        })
    }

    /// The compressed point.
    pub fn compressed(&self) -> &[u8; 33] {
        &self.compressed
    }

    pub(crate) fn uncompressed(&self) -> &[u8; 65] {
        &self.uncompressed
    }
}

impl fmt::Debug for AppPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppPublicKey").finish_non_exhaustive()
    }
}

/// The private half of an app key, P-256. Not copied, not printed, wiped when dropped.
pub struct AppPrivateKey {
    private: PrivateKey,
    public: AppPublicKey,
    /// Boxed: a key that is moved would leave a copy where it was.
    scalar: Box<Zeroizing<[u8; 32]>>,
}

impl AppPrivateKey {
    /// Takes a stored scalar, 32 bytes, big-endian.
    ///
    /// # Errors
    ///
    /// [`KeyError::Private`].
    pub fn from_bytes(scalar: &[u8; 32]) -> Result<Self, KeyError> {
        let private =
            PrivateKey::from_private_key(&ECDH_P256, scalar).map_err(|_| KeyError::Private)?;
        let point = private
            .compute_public_key()
            .map_err(|_| KeyError::Private)?;
        let compressed: EcPublicKeyCompressedBin<'_> =
            point.as_be_bytes().map_err(|_| KeyError::Private)?;
        let public = AppPublicKey::from_compressed(compressed.as_ref())?;
        Ok(Self {
            private,
            public,
            scalar: Box::new(Zeroizing::new(*scalar)),
        })
    }

    /// Makes a key pair.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`].
    pub fn generate(random: &mut dyn Random) -> Result<Self, KeyError> {
        let mut scalar = Zeroizing::new([0; 32]);
        // One draw in 2^32 is no scalar of the curve; eight in a row mean a broken source.
        for _ in 0..8 {
            random
                .fill(scalar.as_mut_slice())
                .map_err(|_| KeyError::Random)?;
            if let Ok(key) = Self::from_bytes(&scalar) {
                return Ok(key);
            }
        }
        Err(KeyError::Random)
    }

    /// The public half.
    pub fn public(&self) -> &AppPublicKey {
        &self.public
    }

    /// The scalar, for the platform's store.
    pub fn scalar(&self) -> &[u8; 32] {
        &self.scalar
    }

    /// The x coordinate of the shared point, 32 bytes; `None` when `point` is not on the curve.
    pub(crate) fn agree(&self, point: &[u8; 65]) -> Option<Zeroizing<[u8; 32]>> {
        let peer = UnparsedPublicKey::new(&ECDH_P256, point.as_slice());
        agreement::agree(&self.private, peer, (), |shared| {
            shared.try_into().map(Zeroizing::new).map_err(|_| ())
        })
        .ok()
    }
}

/// The private half of an app key on secp256k1. It opens; nothing is made for it. Not copied, not
/// printed, wiped when dropped.
pub struct Secp256k1PrivateKey {
    scalar: Box<Zeroizing<[u8; 32]>>,
    public: [u8; 33],
}

impl Secp256k1PrivateKey {
    /// Takes a stored scalar, 32 bytes, big-endian.
    ///
    /// # Errors
    ///
    /// [`KeyError::Private`].
    pub fn from_bytes(scalar: &[u8; 32]) -> Result<Self, KeyError> {
        let public = secp256k1::public(scalar).ok_or(KeyError::Private)?;
        Ok(Self {
            scalar: Box::new(Zeroizing::new(*scalar)),
            public,
        })
    }

    /// The compressed public half.
    pub fn public(&self) -> &[u8; 33] {
        &self.public
    }
}

/// A private half that opens ciphertexts of its curve.
#[derive(Clone, Copy)]
pub(crate) enum OpeningKey<'k> {
    P256(&'k AppPrivateKey),
    Secp256k1(&'k Secp256k1PrivateKey),
}

impl OpeningKey<'_> {
    /// The compressed public half, as it is authenticated.
    pub(crate) fn public(&self) -> &[u8; 33] {
        match self {
            Self::P256(key) => key.public().compressed(),
            Self::Secp256k1(key) => key.public(),
        }
    }

    /// The x coordinate of the shared point; `None` when `point` is not on the curve.
    pub(crate) fn agree(&self, point: &[u8; 65]) -> Option<Zeroizing<[u8; 32]>> {
        match self {
            Self::P256(key) => key.agree(point),
            Self::Secp256k1(key) => secp256k1::agree(&key.scalar, point),
        }
    }
}

impl fmt::Debug for Secp256k1PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secp256k1PrivateKey")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AppPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppPrivateKey").finish_non_exhaustive()
    }
}

/// The app keys that open ciphertexts, of each curve oldest first.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<AppPrivateKey>,
    secp256k1: Vec<Secp256k1PrivateKey>,
}

impl Keyring {
    /// Takes up to [`MAX_KEYS`] keys on P-256, oldest first.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooMany`].
    pub fn new(keys: Vec<AppPrivateKey>) -> Result<Self, KeyError> {
        Self::with_secp256k1(keys, Vec::new())
    }

    /// Takes up to [`MAX_KEYS`] keys of each curve, oldest first.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooMany`].
    pub fn with_secp256k1(
        keys: Vec<AppPrivateKey>,
        secp256k1: Vec<Secp256k1PrivateKey>,
    ) -> Result<Self, KeyError> {
        let count = keys.len().max(secp256k1.len());
        if count > MAX_KEYS {
            return Err(KeyError::TooMany { count });
        }
        Ok(Self { keys, secp256k1 })
    }

    /// The key that new ciphertexts are made with.
    pub fn newest(&self) -> Option<&AppPublicKey> {
        self.keys.last().map(AppPrivateKey::public)
    }

    /// Newest first: what was encrypted last is asked for most.
    pub(crate) fn newest_first(&self, curve: Curve) -> impl Iterator<Item = OpeningKey<'_>> {
        let (p256, secp256k1) = match curve {
            Curve::P256 => (self.keys.as_slice(), &[][..]),
            Curve::Secp256k1 => (&[][..], self.secp256k1.as_slice()),
        };
        let p256 = p256.iter().rev().map(OpeningKey::P256);
        p256.chain(secp256k1.iter().rev().map(OpeningKey::Secp256k1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_is_not_on_the_curve_is_refused() {
        let good = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let mut bytes = *good.public().compressed();
        AppPublicKey::from_compressed(&bytes).unwrap();
        bytes[0] = 4;
        assert_eq!(AppPublicKey::from_compressed(&bytes), Err(KeyError::Public));
        assert_eq!(
            AppPublicKey::from_compressed(&bytes[1..]),
            Err(KeyError::Public)
        );
        let off_curve = (0..=255).map(|last| {
            let mut x = [0xFF; 33];
            x[0] = 2;
            x[1] = 0;
            x[32] = last;
            AppPublicKey::from_compressed(&x).is_err()
        });
        assert!(off_curve.filter(|refused| *refused).count() > 60);
    }

    #[test]
    fn zero_and_the_order_are_no_private_keys() {
        AppPrivateKey::from_bytes(&[0; 32]).unwrap_err();
        AppPrivateKey::from_bytes(&[0xFF; 32]).unwrap_err();
        AppPrivateKey::from_bytes(&[1; 32]).unwrap();
    }

    #[test]
    fn a_fifth_key_is_refused() {
        let keys = |count: u8| {
            (1..=count)
                .map(|byte| AppPrivateKey::from_bytes(&[byte; 32]).unwrap())
                .collect()
        };
        Keyring::new(keys(4)).unwrap();
        assert_eq!(
            Keyring::new(keys(5)).unwrap_err(),
            KeyError::TooMany { count: 5 }
        );
    }

    #[test]
    fn each_curve_has_room_for_its_own_keys() {
        let p256 = |count: u8| {
            (1..=count)
                .map(|byte| AppPrivateKey::from_bytes(&[byte; 32]).unwrap())
                .collect::<Vec<_>>()
        };
        let secp256k1 = |count: u8| {
            (1..=count)
                .map(|byte| Secp256k1PrivateKey::from_bytes(&[byte; 32]).unwrap())
                .collect::<Vec<_>>()
        };
        let both = Keyring::with_secp256k1(p256(4), secp256k1(4)).unwrap();
        assert_eq!(both.newest_first(Curve::P256).count(), 4);
        assert_eq!(both.newest_first(Curve::Secp256k1).count(), 4);
        assert_eq!(
            Keyring::with_secp256k1(p256(1), secp256k1(5)).unwrap_err(),
            KeyError::TooMany { count: 5 }
        );
    }

    /// SEC 2 §2.4.1: the scalar 1 gives the base point; zero and the order give none.
    #[test]
    fn secp256k1_scalars_are_those_below_its_order() {
        let one = {
            let mut scalar = [0; 32];
            scalar[31] = 1;
            scalar
        };
        let base = Secp256k1PrivateKey::from_bytes(&one).unwrap();
        assert_eq!(base.public()[..4], [0x02, 0x79, 0xBE, 0x66]);
        Secp256k1PrivateKey::from_bytes(&[0; 32]).unwrap_err();
        let order = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xba\xae\xdc\xe6\xaf\x48\xa0\x3b\xbf\xd2\x5e\x8c\xd0\x36\x41\x41";
        assert_eq!(
            Secp256k1PrivateKey::from_bytes(&order).unwrap_err(),
            KeyError::Private
        );
        let mut last = order;
        last[31] -= 1;
        Secp256k1PrivateKey::from_bytes(&last).unwrap();
    }

    #[test]
    fn t19_a_private_key_does_not_show_itself() {
        let key = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "AppPrivateKey { .. }");
        let key = Secp256k1PrivateKey::from_bytes(&[0x11; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "Secp256k1PrivateKey { .. }");
    }
}
