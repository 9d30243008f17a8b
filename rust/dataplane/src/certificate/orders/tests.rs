//! What an authority can answer, and that an enclave serves on whatever it answers.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "numbers of a test are small"
)]

use std::sync::Mutex;

use cloister_wire::agent::Event;
use rcgen::{CertificateSigningRequestParams, Issuer, KeyPair};
use rustls::pki_types::CertificateSigningRequestDer;

use super::*;
use crate::agent::AgentFuture;
use crate::certificate::Origin;
use crate::log_ring::Batch;
use crate::test_support::Paused;

/// An authority that signs what it is asked, or does one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Signs,
    SignsAnotherKey,
    Refuses,
    Forgets,
    NeverEnds,
}

pub(crate) struct Authority {
    pub(crate) mood: Mutex<Mood>,
    issuer: Issuer<'static, KeyPair>,
    orders: Mutex<Vec<Vec<u8>>>,
    asked: Mutex<u64>,
    days: i64,
    pub(crate) events: Mutex<Vec<Event>>,
}

impl Authority {
    pub(crate) fn new(mood: Mood, days: i64) -> Arc<Self> {
        let ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        Arc::new(Self {
            mood: Mutex::new(mood),
            issuer: Issuer::new(ca, KeyPair::generate().unwrap()),
            orders: Mutex::default(),
            asked: Mutex::default(),
            days,
            events: Mutex::default(),
        })
    }

    fn sign(&self, request: &[u8]) -> String {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request).unwrap();
        let begin = rcgen::date_time_ymd(2026, 1, 1);
        request.params.not_before = begin;
        request.params.not_after = begin + Duration::from_secs(86_400 * self.days.unsigned_abs());
        request.signed_by(&self.issuer).unwrap().pem()
    }

    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let orders = self.orders.lock().unwrap();
        let public = |request: &Vec<u8>| {
            let request = CertificateSigningRequestDer::from(request.as_slice());
            let request = CertificateSigningRequestParams::from_der(&request).unwrap();
            rcgen::PublicKeyData::der_bytes(&request.public_key).to_vec()
        };
        orders.iter().map(public).collect()
    }
}

impl AgentApi for Authority {
    fn order(&self, csr: Vec<u8>, domains: Vec<String>) -> AgentFuture<'_, String> {
        Box::pin(async move {
            assert_eq!(domains, ["a.example"]);
            let mut orders = self.orders.lock().unwrap();
            orders.push(csr);
            Ok(orders.len().to_string())
        })
    }

    fn order_state(&self, id: String) -> AgentFuture<'_, OrderState> {
        Box::pin(async move {
            let place = id.parse::<usize>().unwrap() - 1;
            let request = self.orders.lock().unwrap()[place].clone();
            let mood = *self.mood.lock().unwrap();
            *self.asked.lock().unwrap() += 1;
            Ok(match mood {
                Mood::Signs => OrderState::Valid {
                    certificate_chain: self.sign(&request),
                },
                Mood::SignsAnotherKey => {
                    let other = TlsKey::generate().unwrap();
                    let names = names(&["a.example".to_owned()], false);
                    OrderState::Valid {
                        certificate_chain: self.sign(&other.request(&names).unwrap()),
                    }
                }
                Mood::Refuses => OrderState::Invalid {
                    problem: "\u{1b}[31mno".to_owned(),
                },
                Mood::Forgets => {
                    return Err(AgentError::Refused {
                        call: "order",
                        status: 404,
                    });
                }
                Mood::NeverEnds => OrderState::Pending,
            })
        })
    }

    fn challenge(&self) -> AgentFuture<'_, [u8; 32]> {
        unused()
    }

    fn provision(&self, _document: Vec<u8>) -> AgentFuture<'_, Vec<u8>> {
        unused()
    }

    fn newer_bundle(&self, _after: u64) -> AgentFuture<'_, Option<Vec<u8>>> {
        unused()
    }

    fn logs(&self, _boot: Arc<str>, _batch: Batch) -> AgentFuture<'_, u64> {
        unused()
    }

    fn event(&self, event: Event) -> AgentFuture<'_, ()> {
        self.events.lock().unwrap().push(event);
        Box::pin(async { Ok(()) })
    }
}

fn unused<'a, T: 'a>() -> AgentFuture<'a, T> {
    Box::pin(async {
        Err(AgentError::Refused {
            call: "unused",
            status: 404,
        })
    })
}

struct World {
    authority: Arc<Authority>,
    certificates: Arc<Certificates>,
    is_ordered: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn world(mood: Mood, days: i64) -> World {
    let clock = Paused::new();
    let authority = Authority::new(mood, days);
    let domains = vec!["a.example".to_owned()];
    let names = names(&domains, false);
    let key = TlsKey::generate().unwrap();
    let certificates = Certificates::self_signed(&key, &names, clock.now_ms()).unwrap();
    let certificates = Arc::new(certificates);
    let (orders, is_ordered) = Orders::new(
        Arc::clone(&authority) as Arc<dyn AgentApi>,
        Arc::clone(&certificates),
        Arc::new(clock),
        domains,
        names,
        key,
    );
    World {
        authority,
        certificates,
        is_ordered,
        task: tokio::spawn(orders.run()),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_ordered_certificate_replaces_the_self_signed_one() {
    let world = world(Mood::Signs, 90);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.certificates.current().origin, Origin::Ordered);
    assert!(*world.is_ordered.borrow());
    assert_eq!(world.authority.keys().len(), 1);
}

/// Whatever the authority does, the certificate in use stays, and the order is placed again with the
/// same key until it succeeds.
#[tokio::test(start_paused = true)]
async fn an_order_that_fails_is_placed_again_with_its_key() {
    for mood in [
        Mood::SignsAnotherKey,
        Mood::Refuses,
        Mood::Forgets,
        Mood::NeverEnds,
    ] {
        let world = world(mood, 90);
        sleep(Duration::from_secs(2_000)).await;
        assert_eq!(
            world.certificates.current().origin,
            Origin::SelfSigned,
            "{mood:?}"
        );
        let keys = world.authority.keys();
        assert!((2..20).contains(&keys.len()), "{mood:?}: {}", keys.len());

        *world.authority.mood.lock().unwrap() = Mood::Signs;
        sleep(LONGEST_RETRY + ORDER_DEADLINE).await;
        assert_eq!(
            world.certificates.current().origin,
            Origin::Ordered,
            "{mood:?}"
        );
        let keys = world.authority.keys();
        assert!(keys.iter().all(|key| *key == keys[0]), "{mood:?}");
    }
}

/// An order that is pending is asked for with patience: at most every five seconds.
#[tokio::test(start_paused = true)]
async fn a_pending_order_is_not_asked_for_without_end() {
    let world = world(Mood::NeverEnds, 90);
    sleep(Duration::from_secs(300)).await;
    let asked = *world.authority.asked.lock().unwrap();
    assert!((50..80).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_comes_before_the_end_and_has_a_key_of_its_own() {
    let world = world(Mood::Signs, 90);
    sleep(Duration::from_secs(1)).await;
    let first = world.certificates.current();
    sleep(Duration::from_secs(59 * 86_400)).await;
    assert_eq!(world.authority.keys().len(), 1);
    sleep(Duration::from_secs(2 * 86_400)).await;
    let keys = world.authority.keys();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
    let second = world.certificates.current();
    assert_ne!(first.spki, second.spki);
    assert!(second.generation > first.generation);
}
