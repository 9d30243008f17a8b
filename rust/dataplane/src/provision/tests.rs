//! T-08: a host that forges, replays, swaps or withholds bundles gets nothing but 503 answers.

#![expect(clippy::arithmetic_side_effects, reason = "times of a test are small")]

use std::collections::BTreeMap;
use std::sync::Mutex;

use cloister_attestation::{PcrIndex, decode_unverified};
use cloister_ciphertext::{AppPrivateKey, SealOptions, ValueType, seal};
use cloister_sealing::{
    ApiKeyRecord, AppKey, Bundle, Curve, EnvVar, PROVISION_USER_DATA, SealingSecret, ServiceKey,
    recipient_digest, seal_bundle,
};
use cloister_wire::agent::{Event, OrderState};
use tokio::time::advance;
use zeroize::Zeroizing;

use super::*;
use crate::agent::AgentFuture;
use crate::log_ring::Batch;
use crate::test_support::{Paused, nsm};

pub(crate) const ENCLAVE: Uuid = Uuid::from_u128(0xE1);
pub(crate) const PCR0: [u8; 48] = [0xAA; 48];
const MINUTE: Duration = Duration::from_secs(60);

/// What the hostile host, or the platform behind it, does to a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    None,
    Broken,
    Expired,
    ForeignUuid,
    ForgedSigner,
    OtherChallenge,
    OtherPcr0,
    OtherRecipient,
    Oversized,
    ReplayedFromAnEarlierBoot,
    SealedToAnother,
}

/// The host and the platform behind it.
pub(crate) struct Host {
    clock: Paused,
    signer: ServiceKey,
    app_key: AppPrivateKey,
    state: Mutex<State>,
}

struct State {
    trick: Trick,
    is_withheld: bool,
    /// It was restarted, and knows no boot until the next one is provisioned.
    has_forgotten: bool,
    version: u64,
    secret: String,
    life: Duration,
    boots: Vec<Boot>,
    /// What it gave before, as it was sent.
    given: Vec<Vec<u8>>,
    /// The next answer to a poll, instead of an honest one.
    next_poll: Option<Vec<u8>>,
    challenges: u64,
    events: Vec<Event>,
}

#[derive(Clone)]
struct Boot {
    public_key: [u8; 32],
    challenge: [u8; 32],
    pcr0: [u8; 48],
    issued_ms: u64,
}

impl Host {
    pub(crate) fn new(clock: &Paused) -> Arc<Self> {
        let mut random = SystemRandom::new();
        Arc::new(Self {
            clock: clock.clone(),
            signer: ServiceKey::generate(&mut random).unwrap(),
            app_key: AppPrivateKey::generate(&mut random).unwrap(),
            state: Mutex::new(State {
                trick: Trick::None,
                is_withheld: false,
                has_forgotten: false,
                version: 1,
                secret: "value".to_owned(),
                life: 15 * MINUTE,
                boots: Vec::new(),
                given: Vec::new(),
                next_poll: None,
                challenges: 0,
                events: Vec::new(),
            }),
        })
    }

    /// Public half of the key that signs.
    pub(crate) fn service_key(&self) -> [u8; 32] {
        self.signer.public()
    }

    /// The next version, with this value of the one variable.
    pub(crate) fn change_variable(&self, value: &str) {
        self.set(|state| {
            state.version += 1;
            state.secret = value.to_owned();
        });
    }

    /// What it was told, as `kind: message`.
    pub(crate) fn events(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let text = |event: &Event| format!("{}: {}", event.kind, event.message);
        state.events.iter().map(text).collect()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn refuse<T>(call: &'static str) -> Result<T, AgentError> {
        Err(AgentError::Refused { call, status: 503 })
    }

    fn bundle(&self, boot: &Boot, version: u64, life: Duration) -> Bundle {
        let now_ms = self.clock.now_ms();
        Bundle {
            v: 1,
            enclave: ENCLAVE,
            deployment: "d".to_owned(),
            version,
            challenge: boot.challenge,
            recipient: recipient_digest(&boot.public_key),
            pcr0: boot.pcr0,
            issued_at: now_ms,
            not_after: now_ms + u64::try_from(life.as_millis()).unwrap(),
            app_keys: vec![AppKey {
                id: "k".to_owned(),
                curve: Curve::P256,
                private: Zeroizing::new(*self.app_key.scalar()),
            }],
            api_keys: vec![ApiKeyRecord {
                id: "a".to_owned(),
                name: "a".to_owned(),
                sha256: [1; 32],
                scopes: vec!["app".to_owned()],
                not_after: None,
            }],
            env: vec![EnvVar {
                name: "SECRET".to_owned(),
                value: Zeroizing::new(self.encrypted(&self.state.lock().unwrap().secret)),
                secret: true,
            }],
            objects: BTreeMap::new(),
            settings: BTreeMap::new(),
            sealing_secret: Some(SealingSecret(Zeroizing::new([5; 32]))),
            identity: cloister_sealing::Identity::default(),
        }
    }

    /// A secret as its owner's machine encrypts it.
    fn encrypted(&self, secret: &str) -> Vec<u8> {
        let (options, mut random) = (SealOptions::enclave(1), SystemRandom::new());
        let (clear, key) = (secret.as_bytes(), self.app_key.public());
        let token = seal(clear, ValueType::String, key, &options, &mut random).unwrap();
        token.into_bytes()
    }

    fn seal(bundle: &Bundle, signer: &ServiceKey, recipient: &[u8; 32]) -> Vec<u8> {
        seal_bundle(bundle, signer, recipient, &mut SystemRandom::new()).unwrap()
    }

    /// An honest bundle of `version` for the newest boot.
    fn honest(&self, version: u64) -> Vec<u8> {
        let (boot, life) = {
            let state = self.state.lock().unwrap();
            (state.boots.last().unwrap().clone(), state.life)
        };
        let bundle = self.bundle(&boot, version, life);
        Self::seal(&bundle, &self.signer, &boot.public_key)
    }

    fn tricked(&self, boot: &Boot) -> Vec<u8> {
        let (trick, version, life, first) = {
            let state = self.state.lock().unwrap();
            let first = state.given.first().cloned();
            (state.trick, state.version, state.life, first)
        };
        let mut bundle = self.bundle(boot, version, life);
        let stranger = ServiceKey::generate(&mut SystemRandom::new()).unwrap();
        let other_boot = cloister_sealing::BootKey::generate(&mut SystemRandom::new()).unwrap();
        let mut signer = &self.signer;
        let mut recipient = boot.public_key;
        match trick {
            Trick::None | Trick::Broken | Trick::Oversized => {}
            Trick::Expired => bundle.not_after = self.clock.now_ms(),
            Trick::ForeignUuid => bundle.enclave = Uuid::from_u128(0xE2),
            Trick::ForgedSigner => signer = &stranger,
            Trick::OtherChallenge => bundle.challenge = [9; 32],
            Trick::OtherPcr0 => bundle.pcr0 = [0xBB; 48],
            Trick::OtherRecipient => bundle.recipient = [9; 32],
            Trick::ReplayedFromAnEarlierBoot => return first.unwrap(),
            Trick::SealedToAnother => recipient = *other_boot.public(),
        }
        let mut sealed = Self::seal(&bundle, signer, &recipient);
        match trick {
            Trick::Broken => *sealed.last_mut().unwrap() ^= 1,
            Trick::Oversized => sealed.resize(cloister_sealing::MAX_SEALED_BYTES + 1, 0),
            _ => {}
        }
        sealed
    }
}

impl AgentApi for Host {
    fn challenge(&self) -> AgentFuture<'_, [u8; 32]> {
        Box::pin(async {
            let mut state = self.state.lock().unwrap();
            if state.is_withheld {
                return Self::refuse("challenge");
            }
            state.challenges += 1;
            let number = u8::try_from(state.challenges).unwrap();
            Ok([number; 32])
        })
    }

    fn provision(&self, document: Vec<u8>) -> AgentFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let document = decode_unverified(&document).unwrap();
            assert_eq!(document.user_data.as_deref(), Some(PROVISION_USER_DATA));
            let boot = Boot {
                public_key: document.public_key.unwrap().try_into().unwrap(),
                challenge: document.nonce.unwrap().try_into().unwrap(),
                pcr0: document
                    .pcrs
                    .value(PcrIndex::IMAGE)
                    .unwrap()
                    .try_into()
                    .unwrap(),
                issued_ms: self.clock.now_ms(),
            };
            self.set(|state| {
                state.boots.push(boot.clone());
                state.has_forgotten = false;
            });
            let sealed = self.tricked(&boot);
            self.set(|state| state.given.push(sealed.clone()));
            Ok(sealed)
        })
    }

    fn newer_bundle(&self, after: u64) -> AgentFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let deadline = Instant::now() + Duration::from_secs(25);
            while Instant::now() < deadline {
                sleep(Duration::from_millis(200)).await;
                let now_ms = self.clock.now_ms();
                let (version, is_due) = {
                    let mut state = self.state.lock().unwrap();
                    if let Some(sealed) = state.next_poll.take() {
                        return Ok(Some(sealed));
                    }
                    if state.has_forgotten {
                        return Err(AgentError::Refused {
                            call: "bundle",
                            status: 409,
                        });
                    }
                    if state.is_withheld {
                        continue;
                    }
                    let half_ms = u64::try_from(state.life.as_millis()).unwrap() / 2;
                    let version = state.version;
                    let boot = state.boots.last_mut().unwrap();
                    let is_due = version > after || now_ms >= boot.issued_ms + half_ms;
                    if is_due {
                        boot.issued_ms = now_ms;
                    }
                    (version, is_due)
                };
                if is_due {
                    return Ok(Some(self.honest(version)));
                }
            }
            Ok(None)
        })
    }

    fn order(&self, _csr: Vec<u8>, _domains: Vec<String>) -> AgentFuture<'_, String> {
        Box::pin(async { Self::refuse("order") })
    }

    fn order_state(&self, _id: String) -> AgentFuture<'_, OrderState> {
        Box::pin(async { Self::refuse("order") })
    }

    fn logs(&self, _boot: Arc<str>, _batch: Batch) -> AgentFuture<'_, u64> {
        Box::pin(async { Self::refuse("logs") })
    }

    fn event(&self, event: Event) -> AgentFuture<'_, ()> {
        Box::pin(async {
            self.set(|state| state.events.push(event));
            Ok(())
        })
    }
}

/// An enclave that is being provisioned, and what can be seen of it.
struct World {
    host: Arc<Host>,
    clock: Paused,
    live: Arc<ArcSwap<Live>>,
    stats: Arc<ProvisionStats>,
    watch: ProvisionWatch,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut State)) -> Self {
        let clock = Paused::new();
        let host = Host::new(&clock);
        host.set(change);
        let waiting = Live::not_ready("waiting", Identity::default(), 0);
        let live = Arc::new(ArcSwap::from_pointee(waiting));
        let stats = Arc::new(ProvisionStats::default());
        let (provisioner, watch) = Provisioner::new(ProvisionOptions {
            agent: Arc::clone(&host) as Arc<dyn AgentApi>,
            nsm: nsm(PCR0, &clock),
            clock: Arc::new(clock.clone()),
            enclave: ENCLAVE,
            service_keys: vec![host.signer.public()],
            identity: Identity::default(),
            live: Arc::clone(&live),
            stats: Arc::clone(&stats),
            sharing: Sharing::SameImage,
        });
        let task = tokio::spawn(provisioner.run());
        Self {
            host,
            clock,
            live,
            stats,
            watch,
            task,
        }
    }

    /// Lets this much time pass, in steps that every timer sees.
    async fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            advance(Duration::from_millis(100)).await;
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn serving(&self) -> Serving {
        self.live.load().serving_at(self.clock.now_ms())
    }

    fn is_ready(&self) -> bool {
        self.serving() == Serving::Ready
    }

    fn refused(&self) -> u64 {
        self.stats.refused.load(Ordering::Relaxed)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_honest_bundle_makes_the_enclave_ready() {
    let world = World::start();
    assert!(!world.is_ready());
    world.pass(Duration::from_secs(1)).await;
    assert!(world.is_ready());
    let live = world.live.load();
    assert_eq!(live.api_keys.len(), 1);
    let newest = live.keyring.as_ref().unwrap().newest().unwrap();
    assert_eq!(newest, world.host.app_key.public());
    let variables = world.watch.variables.borrow().clone().unwrap();
    let variables: Vec<_> = variables.iter().collect();
    assert_eq!(variables, [("SECRET", b"value".as_slice())]);
}

/// Each of these is refused before any of it is used, and the same enclave is then provisioned by an
/// honest host: it was the trick that was refused.
#[tokio::test(start_paused = true)]
async fn every_tampered_bundle_is_refused_and_its_honest_twin_is_not() {
    for trick in [
        Trick::Broken,
        Trick::Expired,
        Trick::ForeignUuid,
        Trick::ForgedSigner,
        Trick::OtherChallenge,
        Trick::OtherPcr0,
        Trick::OtherRecipient,
        Trick::Oversized,
        Trick::SealedToAnother,
    ] {
        let world = World::with(|state| state.trick = trick);
        world.pass(Duration::from_secs(5)).await;
        assert!(!world.is_ready(), "{trick:?}");
        assert!(world.refused() >= 1, "{trick:?}");
        assert!(world.live.load().keyring.is_none(), "{trick:?}");
        assert!(world.watch.variables.borrow().is_none(), "{trick:?}");

        world.host.set(|state| state.trick = Trick::None);
        world.pass(LONGEST_RETRY).await;
        assert!(world.is_ready(), "{trick:?}");
    }
}

/// Two boots of one image: the first one's bundle is good, and not for the second.
#[tokio::test(start_paused = true)]
async fn a_bundle_of_an_earlier_boot_is_refused() {
    let first = World::start();
    first.pass(Duration::from_secs(1)).await;
    assert!(first.is_ready());
    let given = first.host.state.lock().unwrap().given.clone();

    let second = World::with(|state| {
        state.given = given;
        state.trick = Trick::ReplayedFromAnEarlierBoot;
    });
    second.pass(Duration::from_secs(5)).await;
    assert!(!second.is_ready());
    assert!(second.refused() >= 1);
}

#[tokio::test(start_paused = true)]
async fn versions_only_grow() {
    let world = World::with(|state| state.version = 5);
    world.pass(Duration::from_secs(1)).await;
    assert!(world.is_ready());

    let older = world.host.honest(4);
    world.host.set(|state| state.next_poll = Some(older));
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.refused(), 1);
    assert_eq!(world.live.load().bundle_version, 5);

    let newer = world.host.honest(6);
    world.host.set(|state| state.next_poll = Some(newer));
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.refused(), 1);
    assert_eq!(world.live.load().bundle_version, 6);
}

/// An older version is also refused to the next session of the same boot of the machine.
#[tokio::test(start_paused = true)]
async fn an_older_version_stays_refused_after_the_bundle_ended() {
    let world = World::with(|state| state.version = 5);
    world.pass(Duration::from_secs(1)).await;
    world.host.set(|state| state.is_withheld = true);
    world.pass(16 * MINUTE).await;
    assert!(!world.is_ready());

    world.host.set(|state| {
        state.is_withheld = false;
        state.version = 4;
    });
    world.pass(2 * MINUTE).await;
    assert!(!world.is_ready());
    assert!(world.refused() >= 1);

    world.host.set(|state| state.version = 5);
    world.pass(MINUTE).await;
    assert!(world.is_ready());
}

/// A host cannot stretch a bundle's life by handing out an earlier issue of the same version.
#[tokio::test(start_paused = true)]
async fn an_earlier_issue_of_the_same_version_is_refused() {
    let world = World::start();
    world.pass(Duration::from_secs(1)).await;
    let earlier = world.host.honest(1);
    world.pass(8 * MINUTE).await;
    let renewed_until = world.live.load().not_after_ms;
    assert_eq!(world.refused(), 0);

    world.host.set(|state| state.next_poll = Some(earlier));
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.refused(), 1);
    assert_eq!(world.live.load().not_after_ms, renewed_until);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_renewed_at_half_life_for_as_long_as_the_host_carries() {
    let world = World::start();
    world.pass(Duration::from_secs(1)).await;
    for _ in 0..4 {
        world.pass(10 * MINUTE).await;
        assert!(world.is_ready());
    }
    assert_eq!(world.host.state.lock().unwrap().boots.len(), 1);
    assert_eq!(world.stats.ended.load(Ordering::Relaxed), 0);
}

/// The number in the documentation: a withheld revocation lasts 15 minutes at most.
#[tokio::test(start_paused = true)]
async fn withheld_updates_end_the_service_after_15_minutes() {
    let world = World::start();
    world.pass(Duration::from_secs(1)).await;
    assert!(world.is_ready());
    let keyring = Arc::downgrade(world.live.load().keyring.as_ref().unwrap());

    world.host.set(|state| state.is_withheld = true);
    world.pass(14 * MINUTE + Duration::from_secs(58)).await;
    assert!(world.is_ready());
    world.pass(Duration::from_secs(4)).await;
    assert_eq!(
        world.serving(),
        Serving::NotReady {
            reason: BUNDLE_ENDED
        }
    );
    assert!(world.live.load().api_keys.is_empty());
    assert!(keyring.upgrade().is_none(), "the app keys are still held");
    assert_eq!(world.stats.ended.load(Ordering::Relaxed), 1);

    // Provisioning began again: the host comes back, and so does the service, with another key.
    world.host.set(|state| state.is_withheld = false);
    world.pass(MINUTE).await;
    assert!(world.is_ready());
    let boots = world.host.state.lock().unwrap().boots.clone();
    assert_eq!(boots.len(), 2);
    assert_ne!(boots[0].public_key, boots[1].public_key);
}

/// A host that was restarted does not know this boot: it is proved anew, and meanwhile served on.
#[tokio::test(start_paused = true)]
async fn a_restarted_host_is_provisioned_from_again_without_a_gap() {
    let world = World::start();
    world.pass(2 * MINUTE).await;
    world.host.set(|state| state.has_forgotten = true);
    for _ in 0..100 {
        world.pass(Duration::from_millis(100)).await;
        assert!(world.is_ready());
    }
    assert_eq!(world.host.state.lock().unwrap().boots.len(), 2);
}

/// A host that provisions and forgets at once, again and again, is asked less and less often.
#[tokio::test(start_paused = true)]
async fn a_host_that_keeps_forgetting_is_not_asked_without_end() {
    let world = World::start();
    world.pass(Duration::from_secs(1)).await;
    for _ in 0..600 {
        world.host.set(|state| state.has_forgotten = true);
        world.pass(Duration::from_secs(1)).await;
    }
    assert!(world.is_ready());
    let boots = world.host.state.lock().unwrap().boots.len();
    assert!((10..40).contains(&boots), "{boots}");
}

/// A platform that signs for longer is held to the same 15 minutes.
#[tokio::test(start_paused = true)]
async fn no_bundle_is_used_for_longer_than_15_minutes() {
    let world = World::with(|state| state.life = 60 * MINUTE);
    world.pass(Duration::from_secs(1)).await;
    assert!(world.is_ready());
    world.host.set(|state| state.is_withheld = true);
    world.pass(15 * MINUTE).await;
    assert!(!world.is_ready());
}

/// A revoked key must be gone within 5 s of a host that carries it.
#[tokio::test(start_paused = true)]
async fn a_new_version_is_in_use_within_a_second() {
    let world = World::start();
    world.pass(Duration::from_secs(30)).await;
    world.host.set(|state| state.version = 2);
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.live.load().bundle_version, 2);
}

/// What opens sealed objects goes with the bundle, as API keys and app keys do.
#[tokio::test(start_paused = true)]
async fn t19_the_sealing_secret_ends_with_its_bundle() {
    let world = World::start();
    world.pass(Duration::from_secs(1)).await;
    let grant = world.watch.objects.borrow().clone().unwrap();
    assert!(grant.sealer.is_some());
    let kept = Arc::downgrade(&grant);
    drop(grant);
    world.host.set(|state| state.is_withheld = true);
    world.pass(16 * MINUTE).await;
    assert!(!world.is_ready());
    assert!(world.watch.objects.borrow().is_none());
    assert!(kept.upgrade().is_none(), "nobody keeps it");
    world.host.set(|state| state.is_withheld = false);
    world.pass(MINUTE).await;
    assert!(world.watch.objects.borrow().is_some());
}
