//! What is true right now: whether requests are served, and with which keys.
//!
//! A [`Live`] is never changed. Provisioning makes one of a verified bundle and swaps it in whole;
//! workers read it without a lock. It decides whether an API key is good (data-plane.md §4); it does
//! no I/O and takes the time as an argument.

mod api_keys;

use std::fmt;
use std::sync::Arc;

use cloister_ciphertext::Keyring;

pub use self::api_keys::{ApiKey, ApiKeyId, ApiKeys, AuthFailure};

/// Whether requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// What is in flight is finished; new requests are answered 503.
    Draining,
    /// Every request that needs a key is answered 503.
    NotReady {
        /// Why, for people.
        reason: &'static str,
    },
    /// Requests are served.
    Ready,
}

/// Who this enclave is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// Team, by id.
    pub team: String,
    /// App, by id.
    pub app: String,
    /// Name of the enclave.
    pub name: String,
}

/// The state that requests are judged by.
pub struct Live {
    /// Whether requests are served; ask [`Live::serving_at`].
    pub serving: Serving,
    /// API keys of the app.
    pub api_keys: ApiKeys,
    /// App keys, when the bundle has any.
    pub keyring: Option<Arc<Keyring>>,
    /// End of the bundle, milliseconds since the Unix epoch. Past it nothing of this is used.
    pub not_after_ms: u64,
    /// Who this enclave is.
    pub identity: Identity,
    /// Version of the bundle; 0 when there is none.
    pub bundle_version: u64,
}

impl Live {
    /// A state without any key.
    pub fn not_ready(reason: &'static str, identity: Identity, bundle_version: u64) -> Self {
        Self {
            serving: Serving::NotReady { reason },
            api_keys: ApiKeys::default(),
            keyring: None,
            not_after_ms: 0,
            identity,
            bundle_version,
        }
    }

    /// Whether requests are served at `now_ms`. A bundle that has ended is not used, even when the
    /// task that would swap it out is late.
    pub fn serving_at(&self, now_ms: u64) -> Serving {
        match self.serving {
            Serving::Ready if now_ms >= self.not_after_ms => Serving::NotReady {
                reason: BUNDLE_ENDED,
            },
            serving => serving,
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Live")
            .field("serving", &self.serving)
            .field("api_keys", &self.api_keys)
            .field("not_after_ms", &self.not_after_ms)
            .field("bundle_version", &self.bundle_version)
            .finish_non_exhaustive()
    }
}

/// Reason of [`Serving::NotReady`] once a bundle has ended without a renewal.
pub const BUNDLE_ENDED: &str = "the bundle has ended and was not renewed";

#[cfg(test)]
mod tests {
    use super::*;

    fn ready_until(not_after_ms: u64) -> Live {
        Live {
            serving: Serving::Ready,
            not_after_ms,
            ..Live::not_ready("", Identity::default(), 1)
        }
    }

    /// The host can withhold the renewal, and the task that notices can be late.
    #[test]
    fn a_bundle_past_its_end_serves_nothing() {
        let live = ready_until(1_000);
        assert_eq!(live.serving_at(999), Serving::Ready);
        assert!(matches!(
            live.serving_at(1_000),
            Serving::NotReady {
                reason: BUNDLE_ENDED
            }
        ));
    }

    #[test]
    fn a_state_without_a_bundle_is_never_ready() {
        let live = Live::not_ready("booting", Identity::default(), 0);
        assert_eq!(live.serving_at(0), Serving::NotReady { reason: "booting" });
    }
}
