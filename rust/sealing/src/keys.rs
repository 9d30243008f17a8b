//! The two keys of provisioning: the owner's service key and the enclave's boot key.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use cloister_ciphertext::Random;
use hpke::{Deserializable as _, Kem as _, Serializable as _, kem::X25519HkdfSha256};
use zeroize::Zeroizing;

use crate::error::SealingError;

type PrivateKey = <X25519HkdfSha256 as hpke::Kem>::PrivateKey;

/// X25519 key pair of one boot of one enclave. The private half never leaves the process; it is
/// wiped when this is dropped, and neither printed nor copied.
pub struct BootKey {
    private: PrivateKey,
    public: [u8; 32],
}

impl BootKey {
    /// Makes a key pair from 32 random bytes (RFC 9180 §7.1.3, `DeriveKeyPair`).
    ///
    /// # Errors
    ///
    /// [`SealingError::Random`].
    pub fn generate(random: &mut dyn Random) -> Result<Self, SealingError> {
        let mut material = Zeroizing::new([0; 32]);
        random
            .fill(material.as_mut_slice())
            .map_err(|_| SealingError::Random)?;
        let (private, public) = X25519HkdfSha256::derive_keypair(material.as_slice());
        Ok(Self {
            private,
            public: public.to_bytes().into(),
        })
    }

    /// The public half, 32 bytes: the document's `public_key`.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    pub(crate) fn private(&self) -> &PrivateKey {
        &self.private
    }
}

impl fmt::Debug for BootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootKey").finish_non_exhaustive()
    }
}

/// Ed25519 key pair with which the owner's platform signs bundles.
pub struct ServiceKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; 32]>,
}

impl ServiceKey {
    /// Makes a key pair.
    ///
    /// # Errors
    ///
    /// [`SealingError::Random`].
    pub fn generate(random: &mut dyn Random) -> Result<Self, SealingError> {
        let mut seed = Zeroizing::new([0; 32]);
        random
            .fill(seed.as_mut_slice())
            .map_err(|_| SealingError::Random)?;
        Self::from_seed(&seed)
    }

    /// Takes a stored 32-byte seed (RFC 8032 §5.1.5).
    ///
    /// # Errors
    ///
    /// [`SealingError::ServiceKey`].
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, SealingError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SealingError::ServiceKey)?;
        Ok(Self {
            pair,
            seed: Zeroizing::new(*seed),
        })
    }

    /// The seed, for the platform's store.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half, 32 bytes: one of the configuration's `service_keys`.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        for (to, from) in public.iter_mut().zip(self.pair.public_key().as_ref()) {
            *to = *from;
        }
        public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKey").finish_non_exhaustive()
    }
}

/// Reads an X25519 public key.
pub(crate) fn recipient(
    public: &[u8; 32],
) -> Result<<X25519HkdfSha256 as hpke::Kem>::PublicKey, SealingError> {
    <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(public)
        .map_err(|_| SealingError::Recipient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::tests::Counting;

    #[test]
    fn keys_do_not_show_themselves() {
        let mut random = Counting(1);
        let service = ServiceKey::generate(&mut random).unwrap();
        assert_eq!(format!("{service:?}"), "ServiceKey { .. }");
        assert_eq!(
            format!("{:?}", BootKey::generate(&mut random).unwrap()),
            "BootKey { .. }"
        );
    }

    #[test]
    fn a_stored_seed_gives_the_same_key() {
        let service = ServiceKey::generate(&mut Counting(7)).unwrap();
        assert_eq!(
            ServiceKey::from_seed(service.seed()).unwrap().public(),
            service.public()
        );
    }

    #[test]
    fn two_boots_have_two_keys() {
        let mut random = Counting(9);
        let first = BootKey::generate(&mut random).unwrap();
        assert_ne!(
            first.public(),
            BootKey::generate(&mut random).unwrap().public()
        );
    }
}
