//! Enclaves that agree, and a host that does what it can against it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cloister_sealing::{SealingSecret, Sharing};
use hyper::header::HeaderValue;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::*;
use crate::agent::{AgentApi, AgentFuture};
use crate::certificate::Certificates;
use crate::certificate::orders::names;
use crate::certificate::orders::tests::{Authority, Mood};
use crate::objects::EntityTag;
use crate::test_support::Paused;

const IMAGE: u8 = 1;
const NAME_OF_ANOTHER: u8 = 2;

type Grants = watch::Sender<Option<Arc<Grant>>>;

/// What the host keeps and the platform records, and how the host lies.
#[derive(Default)]
struct World {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    heads: Mutex<BTreeMap<String, (u64, [u8; 32])>>,
    /// Bundles of each enclave that runs.
    grants: Mutex<Vec<(u8, Grants)>>,
    /// The host says that it recorded, and did not.
    forges_records: Mutex<bool>,
    /// So many times the platform cannot be reached.
    lost_records: Mutex<u32>,
    /// The host hands out this in place of what it has.
    hands_out: Mutex<HandsOut>,
    /// The host takes writes and keeps none.
    keeps_nothing: Mutex<bool>,
}

fn sealer(image: u8) -> Sealer {
    Sealer::new(
        SealingSecret(Zeroizing::new([7; 32])),
        Uuid::nil(),
        [[image; 48]; 3],
        Sharing::SameImage,
    )
}

fn tag(body: &[u8]) -> EntityTag {
    let text = format!("\"{}\"", cloister_attestation::hex(&object_digest(body)));
    EntityTag(HeaderValue::from_str(&text).unwrap())
}

/// What a host gives when an object is asked for.
#[derive(Default)]
enum HandsOut {
    #[default]
    WhatItHas,
    Nothing,
    Other(Vec<u8>),
}

impl World {
    fn grant(&self, image: u8) -> Arc<Grant> {
        Arc::new(Grant {
            sealer: Some(sealer(image)),
            heads: self.heads.lock().unwrap().clone(),
        })
    }

    /// Sends every enclave the bundle as it is now.
    fn announce(&self) {
        for (image, sender) in self.grants.lock().unwrap().iter() {
            sender.send_replace(Some(self.grant(*image)));
        }
    }

    fn name() -> String {
        sealer(IMAGE).name("tls")
    }

    fn stored(&self) -> Vec<u8> {
        self.objects.lock().unwrap()[&Self::name()].clone()
    }

    fn head(&self) -> (u64, [u8; 32]) {
        self.heads.lock().unwrap()[&Self::name()]
    }
}

impl ObjectStore for Arc<World> {
    fn read(&self, name: &str) -> AgentFuture<'_, Option<StoredObject>> {
        let mut body = self.objects.lock().unwrap().get(name).cloned();
        match &*self.hands_out.lock().unwrap() {
            HandsOut::WhatItHas => {}
            HandsOut::Nothing => body = None,
            HandsOut::Other(other) => body = Some(other.clone()),
        }
        let found = body.map(|body| StoredObject {
            tag: tag(&body),
            body,
        });
        Box::pin(async {
            // Others run in between, as they do with a real host.
            sleep(Duration::from_millis(5)).await;
            Ok(found)
        })
    }

    fn write(&self, name: &str, body: Vec<u8>, only: Only) -> AgentFuture<'_, bool> {
        let name = name.to_owned();
        Box::pin(async move {
            sleep(Duration::from_millis(5)).await;
            let mut objects = self.objects.lock().unwrap();
            // A host that handed out something else takes what replaces it.
            let lies = !matches!(*self.hands_out.lock().unwrap(), HandsOut::WhatItHas);
            let holds = match (objects.get(&name), only) {
                _ if lies => true,
                (None, Only::IfAbsent) => true,
                (Some(found), Only::If(wanted)) => tag(found) == wanted,
                (_, Only::If(_) | Only::IfAbsent) => false,
            };
            if holds {
                if !*self.keeps_nothing.lock().unwrap() {
                    objects.insert(name, body);
                }
                *self.hands_out.lock().unwrap() = HandsOut::WhatItHas;
            }
            Ok(holds)
        })
    }

    fn record(&self, name: &str, head: Head) -> AgentFuture<'_, bool> {
        let name = name.to_owned();
        Box::pin(async move {
            sleep(Duration::from_millis(5)).await;
            if *self.forges_records.lock().unwrap() {
                return Ok(true);
            }
            {
                let mut lost = self.lost_records.lock().unwrap();
                if *lost > 0 {
                    *lost = lost.saturating_sub(1);
                    return Err(AgentError::Deadline { call: "POST head" });
                }
            }
            let new = (head.version, head.sha256);
            let is_taken = {
                let mut heads = self.heads.lock().unwrap();
                let known = heads.get(&name).copied();
                let is_taken = known.is_none_or(|known| known.0 < head.version || known == new);
                if is_taken {
                    heads.insert(name, new);
                }
                is_taken
            };
            if is_taken {
                self.announce();
            }
            Ok(is_taken)
        })
    }
}

/// An enclave of the image that shares.
struct Enclave {
    certificates: Arc<Certificates>,
    is_ordered: watch::Receiver<bool>,
    stats: Arc<ObjectStats>,
    task: JoinHandle<()>,
}

impl Enclave {
    fn boot(world: &Arc<World>, authority: &Arc<Authority>, clock: &Paused) -> Self {
        Self::of(IMAGE, world, authority, clock)
    }

    fn of(image: u8, world: &Arc<World>, authority: &Arc<Authority>, clock: &Paused) -> Self {
        use crate::clock::Clock as _;
        let key = TlsKey::generate().unwrap();
        let domains = vec!["a.example".to_owned()];
        let names = names(&domains, false);
        let certificates =
            Arc::new(Certificates::self_signed(&key, &names, clock.now_ms()).unwrap());
        let (sender, grants) = watch::channel(Some(world.grant(image)));
        world.grants.lock().unwrap().push((image, sender));
        let (orders, is_ordered) = Orders::new(
            Arc::clone(authority) as Arc<dyn AgentApi>,
            Arc::clone(&certificates),
            Arc::new(clock.clone()),
            domains,
            names,
            key,
        );
        let stats = Arc::new(ObjectStats::default());
        let objects = Arc::new(Arc::clone(world));
        let shared = SharedOrders::new(orders, objects, grants, Arc::clone(&stats));
        Self {
            certificates,
            is_ordered,
            stats,
            task: tokio::spawn(shared.run()),
        }
    }

    async fn ordered(&mut self) -> Shown {
        self.is_ordered.wait_for(|is| *is).await.unwrap();
        self.shown()
    }

    fn shown(&self) -> Shown {
        let current = self.certificates.current();
        Shown {
            spki: current.spki.to_vec(),
            leaf: current.certified.cert[0].to_vec(),
            origin: current.origin,
        }
    }
}

/// Finished, missing, refused, used, written; heads failed, overtaken, recorded.
fn counted(stats: &ObjectStats) -> ([u64; 5], [u64; 3]) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let objects = [
        &stats.finished,
        &stats.missing,
        &stats.refused,
        &stats.used,
        &stats.written,
    ];
    let heads = [
        &stats.heads_failed,
        &stats.heads_overtaken,
        &stats.heads_recorded,
    ];
    (objects.map(read), heads.map(read))
}

impl Drop for Enclave {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    spki: Vec<u8>,
    leaf: Vec<u8>,
    origin: Origin,
}

struct Scene {
    world: Arc<World>,
    authority: Arc<Authority>,
    clock: Paused,
}

impl Scene {
    fn new() -> Self {
        Self {
            world: Arc::default(),
            authority: Authority::new(Mood::Signs, 90),
            clock: Paused::new(),
        }
    }

    fn boot(&self) -> Enclave {
        Enclave::boot(&self.world, &self.authority, &self.clock)
    }

    fn warnings(&self) -> usize {
        let events = self.authority.events.lock().unwrap();
        events
            .iter()
            .filter(|event| event.kind == "warning")
            .count()
    }
}

#[tokio::test(start_paused = true)]
async fn enclaves_that_start_together_show_one_key_and_one_certificate() {
    let scene = Scene::new();
    let mut enclaves: Vec<_> = (0..5).map(|_| scene.boot()).collect();
    let first = enclaves[0].ordered().await;
    assert_eq!(first.origin, Origin::Ordered);
    for enclave in &mut enclaves {
        assert_eq!(enclave.ordered().await, first);
    }
    assert_eq!(scene.authority.keys().len(), 1, "one of them ordered");
    assert_eq!(scene.warnings(), 0);
    // One that comes later orders nothing and finds the same.
    assert_eq!(scene.boot().ordered().await, first);
    assert_eq!(scene.authority.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_by_one_is_followed_by_all_and_has_a_key_of_its_own() {
    let scene = Scene::new();
    let mut enclaves: Vec<_> = (0..3).map(|_| scene.boot()).collect();
    let first = enclaves[0].ordered().await;
    // The certificate is good for 90 days from the clock's begin.
    sleep(Duration::from_secs(61 * 86_400)).await;
    let second = enclaves[0].shown();
    assert_ne!(second.spki, first.spki);
    for enclave in &enclaves {
        assert_eq!(enclave.shown(), second);
    }
    assert_eq!(scene.authority.keys().len(), 2, "one of them renewed");
}

#[tokio::test(start_paused = true)]
async fn a_maker_that_died_before_its_certificate_is_replaced() {
    let scene = Scene::new();
    *scene.authority.mood.lock().unwrap() = Mood::NeverEnds;
    let maker = scene.boot();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.world.head().0, 1);
    drop(maker);
    *scene.authority.mood.lock().unwrap() = Mood::Signs;
    let mut other = scene.boot();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        other.shown().origin,
        Origin::SelfSigned,
        "it lets the maker order first"
    );
    let shown = other.ordered().await;
    // The key is the maker's.
    assert_eq!(scene.authority.keys()[0], scene.authority.keys()[1]);
    assert_eq!(shown.origin, Origin::Ordered);
}

/// Whoever wrote the object and never told the platform.
#[tokio::test(start_paused = true)]
async fn a_write_without_a_head_is_finished_by_whoever_finds_it() {
    let scene = Scene::new();
    let key = TlsKey::generate().unwrap();
    let content = Content::new(&key, None).unwrap();
    let mut random = provision::SystemRandom::new();
    let name = World::name();
    let sealed = sealer(IMAGE)
        .seal(&name, 1, content.bytes(), &mut random)
        .unwrap();
    scene.world.objects.lock().unwrap().insert(name, sealed);
    let mut finishing = scene.boot();
    let shown = finishing.ordered().await;
    assert_eq!(shown.spki, key.spki().to_vec());
    assert_eq!(scene.warnings(), 0);
    // The key of the other, and the certificate that it had not ordered.
    assert_eq!(counted(&finishing.stats), ([1, 0, 0, 0, 1], [0, 0, 2]));
}

/// Authorities bound how many certificates they give: one that was ordered is used when the platform
/// can be reached again, and none is ordered in its place.
#[tokio::test(start_paused = true)]
async fn a_certificate_that_could_not_be_recorded_is_not_ordered_again() {
    let scene = Scene::new();
    let mut enclave = scene.boot();
    let first = enclave.ordered().await;
    *scene.world.lost_records.lock().unwrap() = 5;
    sleep(Duration::from_secs(61 * 86_400)).await;
    assert_eq!(*scene.world.lost_records.lock().unwrap(), 0);
    assert_eq!(counted(&enclave.stats), ([1, 0, 0, 0, 3], [5, 0, 3]));
    assert_ne!(enclave.shown().spki, first.spki);
    assert_eq!(scene.authority.keys().len(), 2, "one of each key");
    assert_eq!(scene.world.head().0, 3);
}

#[tokio::test(start_paused = true)]
async fn t12_an_object_that_was_rolled_back_is_noticed_and_not_used() {
    let scene = Scene::new();
    let mut enclave = scene.boot();
    let old = enclave.ordered().await;
    let old_object = scene.world.stored();
    sleep(Duration::from_secs(61 * 86_400)).await;
    let new = enclave.shown();
    assert_ne!(new.spki, old.spki);
    // The twin: what the platform recorded is used, and nothing is said.
    let mut twin = scene.boot();
    assert_eq!(twin.ordered().await, new);
    assert_eq!(scene.warnings(), 0);
    assert_eq!(counted(&twin.stats), ([0, 0, 0, 1, 0], [0, 0, 0]));
    // A key, its certificate, and the key and certificate of the renewal.
    assert_eq!(counted(&enclave.stats), ([0, 0, 0, 0, 3], [0, 0, 3]));

    *scene.world.hands_out.lock().unwrap() = HandsOut::Other(old_object);
    let version = scene.world.head().0;
    let mut noticing = scene.boot();
    let shown = noticing.ordered().await;
    assert_ne!(shown.spki, old.spki);
    assert_eq!(scene.warnings(), 1);
    assert_eq!(counted(&noticing.stats), ([0, 0, 1, 0, 2], [0, 0, 2]));
    assert!(scene.world.head().0 > version);
    // The one that ran all the time follows, and showed an ordered certificate meanwhile.
    assert_eq!(enclave.shown().origin, Origin::Ordered);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(enclave.ordered().await, shown);
}

#[tokio::test(start_paused = true)]
async fn t12_an_object_that_was_lost_or_changed_is_noticed_and_replaced() {
    for (other, missing, refused) in [
        (HandsOut::Nothing, 1, 0),
        (HandsOut::Other(b"anything".to_vec()), 0, 1),
    ] {
        let scene = Scene::new();
        let first = scene.boot().ordered().await;
        *scene.world.hands_out.lock().unwrap() = other;
        let mut noticing = scene.boot();
        let second = noticing.ordered().await;
        assert_ne!(second.spki, first.spki);
        let (objects, heads) = counted(&noticing.stats);
        assert_eq!(objects, [0, missing, refused, 0, 2]);
        assert_eq!(heads, [0, 0, 2]);
        assert_eq!(scene.warnings(), 1);
        assert_eq!(scene.boot().ordered().await, second);
        assert_eq!(scene.warnings(), 1);
    }
}

/// A host that answers for the platform gets two keys for a while, and no longer than a bundle takes.
#[tokio::test(start_paused = true)]
async fn t12_a_forged_record_lasts_until_the_next_bundle() {
    let scene = Scene::new();
    *scene.world.forges_records.lock().unwrap() = true;
    let mut deceived = scene.boot();
    let alone = deceived.ordered().await;
    scene.world.objects.lock().unwrap().clear();
    *scene.world.forges_records.lock().unwrap() = false;
    let mut other = scene.boot();
    let shown = other.ordered().await;
    assert_ne!(shown.spki, alone.spki);
    sleep(Duration::from_secs(1_200)).await;
    assert_eq!(deceived.shown(), other.shown());
}

#[tokio::test(start_paused = true)]
async fn t22_another_image_gets_neither_the_key_nor_in_the_way() {
    let scene = Scene::new();
    let first = scene.boot().ordered().await;
    let mut other = Enclave::of(
        NAME_OF_ANOTHER,
        &scene.world,
        &scene.authority,
        &scene.clock,
    );
    let its = other.ordered().await;
    assert_ne!(its.spki, first.spki);
    assert_eq!(scene.boot().ordered().await, first);

    // A host that stores the first image's object under the other's name.
    let name = sealer(NAME_OF_ANOTHER).name("tls");
    let stolen = scene.world.stored();
    scene.world.objects.lock().unwrap().insert(name, stolen);
    let mut again = Enclave::of(
        NAME_OF_ANOTHER,
        &scene.world,
        &scene.authority,
        &scene.clock,
    );
    assert_ne!(again.ordered().await.spki, first.spki);
    assert_eq!(scene.warnings(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stored_certificate_that_has_ended_is_renewed_and_not_shown() {
    let scene = Scene::new();
    let first = scene.boot().ordered().await;
    sleep(Duration::from_secs(91 * 86_400)).await;
    let authority = Authority::new(Mood::Signs, 200);
    let mut late = Enclave::boot(&scene.world, &authority, &scene.clock);
    let shown = late.ordered().await;
    assert_ne!(shown.spki, first.spki);
    assert_eq!(shown.origin, Origin::Ordered);
    assert_eq!(scene.world.head().0, 3);
}

/// A platform that knows nothing of sealed objects.
#[tokio::test(start_paused = true)]
async fn without_a_sealing_secret_each_orders_for_itself() {
    let scene = Scene::new();
    let mut enclave = scene.boot();
    for (_, sender) in scene.world.grants.lock().unwrap().iter() {
        sender.send_replace(Some(Arc::new(Grant {
            sealer: None,
            heads: BTreeMap::new(),
        })));
    }
    assert_eq!(enclave.ordered().await.origin, Origin::Ordered);
    assert!(scene.world.objects.lock().unwrap().is_empty());
}

/// The secret is gone with the bundle; the certificate in use stays.
#[tokio::test(start_paused = true)]
async fn an_ended_bundle_changes_no_certificate() {
    let scene = Scene::new();
    let mut enclave = scene.boot();
    let first = enclave.ordered().await;
    for (_, sender) in scene.world.grants.lock().unwrap().iter() {
        sender.send_replace(None);
    }
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(enclave.shown(), first);
    scene.world.announce();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(enclave.shown(), first);
}

/// A host that keeps nothing and says it does: every enclave would replace, and order, without end.
#[tokio::test(start_paused = true)]
async fn t12_a_host_that_keeps_nothing_costs_few_orders() {
    let scene = Scene::new();
    *scene.world.keeps_nothing.lock().unwrap() = true;
    let enclaves: Vec<_> = (0..3).map(|_| scene.boot()).collect();
    sleep(Duration::from_secs(600)).await;
    // Each enclave replaces once a minute at most, and orders for what it replaced.
    let orders = scene.authority.keys().len();
    assert!((1..=3 * 11).contains(&orders), "{orders}");
    assert!(scene.warnings() <= 3 * 11, "{}", scene.warnings());
    let overtaken = |enclave: &Enclave| counted(&enclave.stats).1[1];
    assert!(enclaves.iter().map(overtaken).sum::<u64>() > 0);
    // Each look is counted, also where nothing is replaced for it.
    let missing = |enclave: &Enclave| counted(&enclave.stats).0[1];
    let looks: u64 = enclaves.iter().map(missing).sum();
    assert!(looks >= scene.warnings().try_into().unwrap(), "{looks}");
    // The host is mended, and they agree.
    *scene.world.keeps_nothing.lock().unwrap() = false;
    sleep(Duration::from_secs(1_800)).await;
    let shown = enclaves[0].shown();
    assert_eq!(shown.origin, Origin::Ordered);
    for enclave in &enclaves {
        assert_eq!(enclave.shown(), shown);
    }
}
