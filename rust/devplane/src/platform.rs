//! A platform in miniature: it believes a document exactly as the real one does, and signs and
//! seals what it knows (wire.md §3). Its keys live as long as this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::{Policy, PolicyError, TrustAnchor, UnixMillis, VerifyError, verify};
use cloister_ciphertext::Random;
use cloister_dataplane::clock::Clock;
use cloister_dataplane::provision::SystemRandom;
use cloister_sealing::{
    ApiKeyRecord, AppKey, Bundle, Curve, EnvVar, Identity, PROVISION_USER_DATA, SealingError,
    ServiceKey, bundle, recipient_digest, seal_bundle,
};
use cloister_wire::agent::BUNDLE_POLL_MS;
use cloister_wire::config::EnclaveConfig;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::options::DevError;

/// What bundles say.
pub(crate) struct Contents {
    pub(crate) app_keys: Vec<Zeroizing<[u8; 32]>>,
    pub(crate) api_keys: Vec<ApiKeyRecord>,
    pub(crate) env: Vec<(String, Vec<u8>)>,
}

/// Why nothing is released.
#[derive(Debug, Error)]
pub(crate) enum Refused {
    #[error("the document does not prove what it must: {0}")]
    Document(#[from] VerifyError),
    #[error("the host carries no bundles")]
    HeldBack,
    #[error("the challenge is unknown, used or older than 60 s")]
    Challenge,
    #[error("the document carries no X25519 key")]
    NoKey,
    #[error("the document carries no PCR0")]
    NoPcr0,
    #[error("this boot was never released to")]
    UnknownBoot,
    #[error("{0}")]
    Sealing(#[from] SealingError),
    #[error("the random source failed")]
    Random,
}

pub(crate) struct Platform {
    signer: ServiceKey,
    policy: Policy,
    clock: Arc<dyn Clock>,
    life_ms: u64,
    enclave: Uuid,
    identity: Identity,
    state: Mutex<State>,
    version: watch::Sender<u64>,
    is_held_back: watch::Sender<bool>,
}

struct State {
    contents: Contents,
    /// Challenges that were not used, and when they were issued.
    challenges: HashMap<[u8; 32], u64>,
    boot: Option<Boot>,
}

/// The boot that was released to.
struct Boot {
    public_key: [u8; 32],
    challenge: [u8; 32],
    pcr0: [u8; 48],
    issued_ms: u64,
}

impl Platform {
    pub(crate) fn new(
        contents: Contents,
        anchor: TrustAnchor,
        clock: Arc<dyn Clock>,
        life: Duration,
    ) -> Result<Self, DevError> {
        Ok(Self {
            signer: ServiceKey::generate(&mut SystemRandom::new())?,
            policy: policy(anchor)?,
            clock,
            life_ms: u64::try_from(life.as_millis()).unwrap_or(u64::MAX),
            enclave: Uuid::nil(),
            identity: Identity::default(),
            state: Mutex::new(State {
                contents,
                challenges: HashMap::new(),
                boot: None,
            }),
            version: watch::channel(1).0,
            is_held_back: watch::channel(false).0,
        })
    }

    /// The same platform, for the enclave of this configuration.
    pub(crate) fn for_enclave(mut self, config: &EnclaveConfig) -> Self {
        self.enclave = config.uuid;
        self.identity = Identity {
            team: config.team_uuid.to_string(),
            app: config.app_uuid.to_string(),
            name: config.name.clone(),
        };
        self
    }

    /// Public half of the key that signs bundles, base64.
    pub(crate) fn service_key(&self) -> String {
        STANDARD.encode(self.signer.public())
    }

    pub(crate) fn replace_api_keys(&self, records: Vec<ApiKeyRecord>) {
        self.state().contents.api_keys = records;
        self.version
            .send_modify(|version| *version = version.saturating_add(1));
    }

    pub(crate) fn hold_back(&self, is_held_back: bool) {
        self.is_held_back.send_replace(is_held_back);
    }

    /// A challenge that is good once, for a minute.
    pub(crate) fn challenge(&self) -> Result<[u8; 32], Refused> {
        self.check_not_held_back()?;
        let mut challenge = [0; 32];
        let filled = SystemRandom::new().fill(&mut challenge);
        filled.map_err(|_| Refused::Random)?;
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        state
            .challenges
            .retain(|_, issued_ms| now_ms.saturating_sub(*issued_ms) < CHALLENGE_LIFE_MS);
        state.challenges.insert(challenge, now_ms);
        Ok(challenge)
    }

    /// Checks a document and seals the first bundle to the key in it.
    pub(crate) fn provision(&self, document: &[u8]) -> Result<Vec<u8>, Refused> {
        self.check_not_held_back()?;
        let now_ms = self.clock.now_ms();
        let policy = self.policy.clone().with_user_data(PROVISION_USER_DATA);
        let claims = verify(document, &policy, UnixMillis(now_ms))?;
        let nonce = claims.nonce.and_then(|nonce| nonce.try_into().ok());
        let challenge: [u8; 32] = nonce.ok_or(Refused::Challenge)?;
        let public_key = claims.public_key.and_then(|key| key.try_into().ok());
        let public_key = public_key.ok_or(Refused::NoKey)?;
        let pcr0 = claims.pcrs.value(cloister_attestation::PcrIndex::IMAGE);
        let pcr0 = pcr0.and_then(|value| value.try_into().ok());
        let pcr0 = pcr0.ok_or(Refused::NoPcr0)?;
        let mut state = self.state();
        let issued_ms = state.challenges.remove(&challenge);
        let is_fresh =
            issued_ms.is_some_and(|issued| now_ms.saturating_sub(issued) < CHALLENGE_LIFE_MS);
        if !is_fresh {
            return Err(Refused::Challenge);
        }
        let mut boot = Boot {
            public_key,
            challenge,
            pcr0,
            issued_ms: now_ms,
        };
        let sealed = self.seal(&state.contents, &mut boot, now_ms)?;
        state.boot = Some(boot);
        Ok(sealed)
    }

    /// The bundle after version `after`, or a renewal once half of the last one's life is over;
    /// `None` when neither comes within the time of a poll.
    pub(crate) async fn newer_bundle(&self, after: u64) -> Result<Option<Vec<u8>>, Refused> {
        let deadline = Instant::now()
            .checked_add(Duration::from_millis(BUNDLE_POLL_MS))
            .unwrap_or_else(Instant::now);
        let half_life = self.half_life()?;
        let mut version = self.version.subscribe();
        let mut is_held_back = self.is_held_back.subscribe();
        tokio::select! {
            _ = version.wait_for(|version| *version > after) => {}
            () = sleep_until(half_life) => {}
            () = sleep_until(deadline) => return Ok(None),
        }
        // A host that holds back answers that there is nothing.
        let carried = is_held_back.wait_for(|is| !*is);
        if timeout_at(deadline, carried).await.is_err() {
            return Ok(None);
        }
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        let State { contents, boot, .. } = &mut *state;
        let boot = boot.as_mut().ok_or(Refused::UnknownBoot)?;
        self.seal(contents, boot, now_ms).map(Some)
    }

    /// When half of the life of the bundle issued last is over.
    fn half_life(&self) -> Result<Instant, Refused> {
        let state = self.state();
        let boot = state.boot.as_ref().ok_or(Refused::UnknownBoot)?;
        let half_ms = self.life_ms.checked_div(2).unwrap_or(0);
        let due_ms = boot.issued_ms.saturating_add(half_ms);
        let left = Duration::from_millis(due_ms.saturating_sub(self.clock.now_ms()));
        let now = Instant::now();
        Ok(now.checked_add(left).unwrap_or(now))
    }

    fn seal(&self, contents: &Contents, boot: &mut Boot, now_ms: u64) -> Result<Vec<u8>, Refused> {
        let app_keys = contents.app_keys.iter().enumerate();
        let env = contents.env.iter();
        let bundle = Bundle {
            v: bundle::VERSION,
            enclave: self.enclave,
            deployment: "development".to_owned(),
            version: *self.version.borrow(),
            challenge: boot.challenge,
            recipient: recipient_digest(&boot.public_key),
            pcr0: boot.pcr0,
            issued_at: now_ms,
            not_after: now_ms.saturating_add(self.life_ms),
            app_keys: app_keys
                .map(|(position, private)| AppKey {
                    id: format!("dev{position}"),
                    curve: Curve::P256,
                    private: private.clone(),
                })
                .collect(),
            api_keys: contents.api_keys.clone(),
            env: env
                .map(|(name, value)| EnvVar {
                    name: name.clone(),
                    value: Zeroizing::new(value.clone()),
                    // In clear: a secret would be a ciphertext of the app's key.
                    secret: false,
                })
                .collect(),
            objects: BTreeMap::new(),
            settings: BTreeMap::new(),
            identity: self.identity.clone(),
            sealing_secret: None,
        };
        let mut random = SystemRandom::new();
        let sealed = seal_bundle(&bundle, &self.signer, &boot.public_key, &mut random)?;
        boot.issued_ms = now_ms;
        Ok(sealed)
    }

    fn check_not_held_back(&self) -> Result<(), Refused> {
        if *self.is_held_back.borrow() {
            return Err(Refused::HeldBack);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Documents of the development root, of an enclave with zero PCRs, at most five minutes old.
fn policy(anchor: TrustAnchor) -> Result<Policy, PolicyError> {
    Policy::builder()
        .anchor(anchor)
        .max_age(DOCUMENT_LIFE)
        .dangerous_accept_debug()
        .dangerous_any_measurement()
        .build()
}

const CHALLENGE_LIFE_MS: u64 = 60_000;
const DOCUMENT_LIFE: Duration = Duration::from_secs(300);
