//! Agreement on secp256k1, which aws-lc does not have.
//!
//! Only what opening needs: nothing new is made on this curve. The scalar is borrowed from its
//! owner, and what is derived from it here is wiped. Multiplication is `k256`'s, in constant time.

use k256::ecdh::diffie_hellman;
use k256::elliptic_curve::sec1::ToSec1Point as _;
use zeroize::Zeroizing;

/// The compressed public half; `None` when the scalar is zero or not below the order.
pub(crate) fn public(scalar: &[u8; 32]) -> Option<[u8; 33]> {
    let secret = k256::SecretKey::from_slice(scalar).ok()?;
    let public = secret.public_key();
    public.to_sec1_point(true).as_bytes().try_into().ok()
}

/// The x coordinate of the shared point; `None` when `point` is not on the curve.
pub(crate) fn agree(scalar: &[u8; 32], point: &[u8; 65]) -> Option<Zeroizing<[u8; 32]>> {
    let secret = k256::SecretKey::from_slice(scalar).ok()?;
    let peer = k256::PublicKey::from_sec1_bytes(point).ok()?;
    let multiplier = Zeroizing::new(secret.to_nonzero_scalar());
    let shared = diffie_hellman(&*multiplier, peer.as_affine());
    let mut x = Zeroizing::new([0; 32]);
    for (to, from) in x.iter_mut().zip(shared.raw_secret_bytes()) {
        *to = *from;
    }
    Some(x)
}
