//! From a bundle that was opened to the state that requests are judged by. No I/O, no clock.
//!
//! A secret variable is a ciphertext of the app's key in the bundle too: it was encrypted on its
//! owner's machine, and this is the first place where it is in clear.

use std::fmt;
use std::sync::Arc;

use cloister_ciphertext::{
    AppPrivateKey, Keyring, OpenPolicy, OpenSession, Secp256k1PrivateKey, Token, ValueType,
};
use cloister_sealing::{AppKey, Bundle, Curve, EnvVar};
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
    let variables = variables(bundle.env, keyring.as_deref())?;
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
    Ok(Adopted { live, variables })
}

/// Opens what is secret. A process without one of its secrets must not start: none is left out.
fn variables(env: Vec<EnvVar>, keyring: Option<&Keyring>) -> Result<Variables, ProvisionError> {
    let mut variables = Vec::with_capacity(env.len());
    for (position, variable) in env.into_iter().enumerate() {
        let value = if variable.secret {
            open_secret(&variable.value, keyring).ok_or(ProvisionError::Secret { position })?
        } else {
            variable.value
        };
        variables.push((variable.name, value));
    }
    Ok(Variables(variables))
}

/// The bytes in a ciphertext, when it is one of text, nothing else, and opens.
fn open_secret(value: &[u8], keyring: Option<&Keyring>) -> Option<Zeroizing<Vec<u8>>> {
    let token = Token::parse(value)?;
    let policy = OpenPolicy {
        dangerous_accept_debug: false,
        distinct_keys: 1,
    };
    let opened = OpenSession::new(keyring?, policy)
        .open(value, &token)
        .ok()?;
    let has_zero = opened.clear.contains(&0);
    (opened.kind == ValueType::String && !has_zero).then(|| opened.into_clear())
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
    use std::collections::BTreeMap;

    use cloister_ciphertext::{SealOptions, seal};

    use super::*;
    use crate::provision::SystemRandom;

    fn key() -> AppPrivateKey {
        AppPrivateKey::generate(&mut SystemRandom::new()).unwrap()
    }

    fn token(clear: &[u8], kind: ValueType, key: &AppPrivateKey) -> Vec<u8> {
        let (options, mut random) = (SealOptions::enclave(1), SystemRandom::new());
        seal(clear, kind, key.public(), &options, &mut random)
            .unwrap()
            .into_bytes()
    }

    fn env(value: &[u8], secret: bool) -> Vec<EnvVar> {
        vec![EnvVar {
            name: "A".to_owned(),
            value: Zeroizing::new(value.to_vec()),
            secret,
        }]
    }

    #[test]
    fn a_secret_is_opened_to_the_byte_and_another_value_is_not_touched() {
        let key = key();
        let keyring = Keyring::new(vec![AppPrivateKey::from_bytes(key.scalar()).unwrap()]).unwrap();
        for clear in [
            &b""[..],
            b"-----BEGIN\nx\r\n",
            b"$HOME \"q'",
            &[0xFF, 0xFE, 1],
        ] {
            let sealed = token(clear, ValueType::String, &key);
            let opened = variables(env(&sealed, true), Some(&keyring)).unwrap();
            assert_eq!(opened.iter().collect::<Vec<_>>(), [("A", clear)]);
            let kept = variables(env(&sealed, false), None).unwrap();
            assert_eq!(kept.iter().collect::<Vec<_>>(), [("A", sealed.as_slice())]);
        }
    }

    #[test]
    fn a_secret_that_does_not_open_refuses_the_bundle() {
        let key = key();
        let keyring = Keyring::new(vec![AppPrivateKey::from_bytes(key.scalar()).unwrap()]).unwrap();
        let good = token(b"x", ValueType::String, &key);
        variables(env(&good, true), Some(&keyring)).unwrap();
        let mut behind = good.clone();
        behind.push(b'x');
        let foreign = token(b"x", ValueType::String, &self::key());
        let number = token(b"1", ValueType::Number, &key);
        let zero = token(b"a\0b", ValueType::String, &key);
        for bad in [&b""[..], b"clear", &behind, &foreign, &number, &zero] {
            let refused = variables(env(bad, true), Some(&keyring));
            assert!(matches!(
                refused,
                Err(ProvisionError::Secret { position: 0 })
            ));
        }
        variables(env(&good, true), None).unwrap_err();
    }

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
            sealing_secret: None,
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
