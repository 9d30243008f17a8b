//! The curves of app keys, and what is public about their points.

use p256::elliptic_curve::sec1::ToSec1Point as _;

/// Curve of an app key.
///
/// Ciphertexts are made on P-256 alone; what was made on secp256k1 is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256, also called secp256r1.
    P256,
    /// secp256k1.
    Secp256k1,
}

impl Curve {
    /// The number of the curve in AADv2.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Secp256k1 => 0,
            Self::P256 => 1,
        }
    }

    /// The uncompressed form of a compressed point (SEC 1 §2.3.4); `None` when it is not on the
    /// curve.
    pub(crate) fn decompress(self, compressed: &[u8; 33]) -> Option<[u8; 65]> {
        let point = match self {
            Self::P256 => p256::PublicKey::from_sec1_bytes(compressed)
                .ok()?
                .to_sec1_point(false)
                .as_bytes()
                .try_into(),
            Self::Secp256k1 => k256::PublicKey::from_sec1_bytes(compressed)
                .ok()?
                .to_sec1_point(false)
                .as_bytes()
                .try_into(),
        };
        point.ok()
    }
}
