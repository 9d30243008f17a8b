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
