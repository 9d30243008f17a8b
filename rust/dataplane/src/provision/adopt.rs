//! From a bundle that was opened to the state that requests are judged by. No I/O, no clock.

use std::fmt;
use std::sync::Arc;

use cloister_ciphertext::{AppPrivateKey, Keyring, Secp256k1PrivateKey};
use cloister_sealing::{AppKey, Bundle, Curve};
use zeroize::Zeroizing;

use super::ProvisionError;
use crate::live::{ApiKey, ApiKeys, Identity, Live, Serving};

/// What becomes of a bundle.
pub(super) struct Adopted {
    pub(super) live: Live,
    pub(super) variables: Variables,
}

/// Variables of the user process. Values are wiped when dropped, and are not printed.
#[derive(Default, PartialEq, Eq)]
pub struct Variables(Vec<(String, Zeroizing<Vec<u8>>)>);

impl Variables {
    /// Names and values, in the bundle's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

/// Turns `bundle` into state that ends with it, and at the latest [`MAX_LIFE_MS`] after `now_ms`.
pub(super) fn adopt(bundle: Bundle, now_ms: u64) -> Result<Adopted, ProvisionError> {
    let keyring = keyring(&bundle.app_keys)?;
    let api_keys = ApiKeys::new(bundle.api_keys.into_iter().map(|key| ApiKey {
        id: key.id,
        sha256: key.sha256,
        scopes: key.scopes,
        not_after_ms: key.not_after,
    }));
    let live = Live {
        serving: Serving::Ready,
        api_keys,
        keyring,
        not_after_ms: bundle.not_after.min(now_ms.saturating_add(MAX_LIFE_MS)),
        identity: Identity {
            team: bundle.identity.team,
            app: bundle.identity.app,
            name: bundle.identity.name,
        },
        bundle_version: bundle.version,
    };
    let variables = bundle.env.into_iter().map(|var| (var.name, var.value));
    Ok(Adopted {
        live,
        variables: Variables(variables.collect()),
    })
}

fn keyring(app_keys: &[AppKey]) -> Result<Option<Arc<Keyring>>, ProvisionError> {
    let (mut p256, mut secp256k1) = (Vec::new(), Vec::new());
    for (position, key) in app_keys.iter().enumerate() {
        let refused = |_| ProvisionError::Key { position };
        match key.curve {
            Curve::P256 => p256.push(AppPrivateKey::from_bytes(&key.private).map_err(refused)?),
            Curve::Secp256k1 => {
                secp256k1.push(Secp256k1PrivateKey::from_bytes(&key.private).map_err(refused)?);
            }
        }
    }
    if app_keys.is_empty() {
        return Ok(None);
    }
    let position = app_keys.len().saturating_sub(1);
    let keyring =
        Keyring::with_secp256k1(p256, secp256k1).map_err(|_| ProvisionError::Key { position })?;
    Ok(Some(Arc::new(keyring)))
}

impl fmt::Debug for Variables {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        formatter.debug_list().entries(names).finish()
    }
}

/// Longest life of a bundle, milliseconds (wire.md §3): the bound on withheld revocations.
pub(super) const MAX_LIFE_MS: u64 = 15 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_ciphertext::{OpenPolicy, OpenSession, Token};
    use std::collections::BTreeMap;

    fn bundle(curves: &[Curve], private: [u8; 32]) -> Bundle {
        let key = |curve: &Curve| AppKey {
            id: "key".to_owned(),
            curve: *curve,
            private: Zeroizing::new(private),
        };
        Bundle {
            v: cloister_sealing::bundle::VERSION,
            enclave: uuid::Uuid::nil(),
            deployment: String::new(),
            version: 1,
            challenge: [0; 32],
            recipient: [0; 32],
            pcr0: [0; 48],
            issued_at: 0,
            not_after: u64::MAX,
            app_keys: curves.iter().map(key).collect(),
            api_keys: Vec::new(),
            env: Vec::new(),
            objects: BTreeMap::new(),
            settings: BTreeMap::new(),
            identity: cloister_sealing::Identity::default(),
        }
    }

    /// A known answer on secp256k1 (`tests/vectors/ciphertext`).
    const OLDER: &[u8] = b"ev:RFVC:AAECAwQFBgcICQoL:AkZtf8rlY+XLCaDRhwu1gDRIBGF4eaFJSc8iKF8brj8n:IMG3MCpSmRFsC2GP7RB37fNRDJaxZbqyYEy+:$";

    #[test]
    fn keys_of_both_curves_are_taken_over_and_the_newest_on_p256_encrypts() {
        let both = bundle(
            &[Curve::Secp256k1, Curve::P256, Curve::Secp256k1],
            [0x11; 32],
        );
        let adopted = adopt(both, 1_000).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(adopted.live.not_after_ms, 1_000 + MAX_LIFE_MS);
        let keyring = adopted.live.keyring.unwrap();
        assert!(keyring.newest().is_some());
        let policy = OpenPolicy {
            dangerous_accept_debug: false,
            distinct_keys: 1,
        };
        let mut session = OpenSession::new(&keyring, policy);
        let opened = session.open(OLDER, &Token::parse(OLDER).unwrap()).unwrap();
        assert_eq!(*opened.clear, b"hello world");

        let none = adopt(bundle(&[], [0x11; 32]), 0).unwrap_or_else(|error| panic!("{error}"));
        assert!(none.live.keyring.is_none());
    }

    #[test]
    fn a_key_that_is_none_or_one_too_many_is_refused_with_its_position() {
        let position = |adopted: Result<Adopted, ProvisionError>| match adopted {
            Err(ProvisionError::Key { position }) => Some(position),
            Err(_) | Ok(_) => None,
        };
        for curve in [Curve::P256, Curve::Secp256k1] {
            assert_eq!(position(adopt(bundle(&[curve], [0; 32]), 0)), Some(0));
            assert_eq!(position(adopt(bundle(&[curve; 5], [1; 32]), 0)), Some(4));
            assert_eq!(position(adopt(bundle(&[curve; 4], [1; 32]), 0)), None);
        }
    }
}
