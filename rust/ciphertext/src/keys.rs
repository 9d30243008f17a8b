//! App keys: the public half that anybody encrypts with, the private half that opens.

use std::fmt;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPublicKeyCompressedBin};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::random::Random;

/// Most keys of one curve in a keyring: more would multiply the cost of a token that none opens.
pub const MAX_KEYS: usize = 4;

/// Why a key was refused.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not 32 bytes of a scalar between 1 and the order of P-256.
    #[error("not a P-256 private key of 32 bytes")]
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

/// The public half of an app key, P-256.
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
        let uncompressed = decompress(&compressed).ok_or(KeyError::Public)?;
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

impl fmt::Debug for AppPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppPrivateKey").finish_non_exhaustive()
    }
}

/// The app keys that open ciphertexts, oldest first.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<AppPrivateKey>,
}

impl Keyring {
    /// Takes up to [`MAX_KEYS`] keys, oldest first.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooMany`].
    pub fn new(keys: Vec<AppPrivateKey>) -> Result<Self, KeyError> {
        if keys.len() > MAX_KEYS {
            return Err(KeyError::TooMany { count: keys.len() });
        }
        Ok(Self { keys })
    }

    /// The key that new ciphertexts are made with.
    pub fn newest(&self) -> Option<&AppPublicKey> {
        self.keys.last().map(AppPrivateKey::public)
    }

    /// Newest first: what was encrypted last is asked for most.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &AppPrivateKey> {
        self.keys.iter().rev()
    }
}

/// The uncompressed form of a compressed point; `None` when it is not on the curve.
pub(crate) fn decompress(compressed: &[u8; 33]) -> Option<[u8; 65]> {
    let key = p256::PublicKey::from_sec1_bytes(compressed).ok()?;
    key.to_sec1_point(false).as_bytes().try_into().ok()
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
    fn a_private_key_does_not_show_itself() {
        let key = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "AppPrivateKey { .. }");
    }
}
