//! T-07 at the source: a flood of nonces is bounded and the cached document stays.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, PoisonError};

use cloister_attestation::decode_unverified;
use cloister_nsm::{Description, NsmError, Pcr};

use super::*;
use crate::test_support::{Paused, nsm};

fn spki(fill: u8) -> Arc<[u8]> {
    vec![fill; 91].into()
}

fn documents(clock: &Paused) -> Documents {
    Documents::new(nsm([0; 48], clock), Arc::new(clock.clone()))
}

#[tokio::test(start_paused = true)]
async fn the_document_of_a_key_is_kept_for_five_minutes() {
    let documents = documents(&Paused::new());
    let key = spki(1);
    let first = documents.current(&key).await.unwrap();
    let decoded = decode_unverified(&first).unwrap();
    assert_eq!(decoded.user_data.as_deref(), Some(&*key));
    let short_of_it = MAX_AGE.checked_sub(Duration::from_millis(1)).unwrap();
    tokio::time::advance(short_of_it).await;
    let again = documents.current(&spki(1)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_ne!(documents.current(&key).await.unwrap(), first);
}

/// A connection of the certificate before must get the document of its own key.
#[tokio::test(start_paused = true)]
async fn each_key_gets_its_own_document() {
    let documents = documents(&Paused::new());
    for fill in [1, 2, 1] {
        let key = spki(fill);
        let document = documents.current(&key).await.unwrap();
        let decoded = decode_unverified(&document).unwrap();
        assert_eq!(decoded.user_data.as_deref(), Some(&*key));
    }
    assert_eq!(documents.shared.kept.load().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_nonce_is_in_its_document_and_never_in_the_kept_one() {
    let documents = documents(&Paused::new());
    let key = spki(1);
    let fresh = documents.fresh(&key, vec![7; 32]).await.unwrap();
    let decoded = decode_unverified(&fresh).unwrap();
    assert_eq!(decoded.nonce.as_deref(), Some([7; 32].as_slice()));
    let kept = documents.current(&key).await.unwrap();
    assert_eq!(decode_unverified(&kept).unwrap().nonce, None);
}

/// An NSM that answers nothing until its gate is opened.
#[derive(Default)]
struct Gated {
    is_open: Mutex<bool>,
    opened: Condvar,
    made: AtomicU64,
}

impl Gated {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl NsmProvider for Gated {
    fn attestation_document(&self, request: &DocumentRequest) -> Result<Vec<u8>, NsmError> {
        let mut is_open = self.is_open.lock().unwrap();
        while !*is_open {
            is_open = self
                .opened
                .wait(is_open)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(request.nonce.clone().unwrap_or_default())
    }

    fn describe(&self) -> Result<Description, NsmError> {
        Err(NsmError::Protocol { problem: "unused" })
    }

    fn random(&self, _out: &mut [u8]) -> Result<(), NsmError> {
        Err(NsmError::Protocol { problem: "unused" })
    }

    fn describe_pcr(&self, _index: u16) -> Result<Pcr, NsmError> {
        Err(NsmError::Protocol { problem: "unused" })
    }

    fn extend_pcr(&self, _index: u16, _data: &[u8]) -> Result<Vec<u8>, NsmError> {
        Err(NsmError::Protocol { problem: "unused" })
    }

    fn lock_pcr(&self, _index: u16) -> Result<(), NsmError> {
        Err(NsmError::Protocol { problem: "unused" })
    }
}

fn gated() -> (Arc<Gated>, Arc<Documents>) {
    let gate = Arc::new(Gated::default());
    let thread = NsmThread::start(Arc::clone(&gate) as Arc<dyn NsmProvider>).unwrap();
    let documents = Documents::new(thread, Arc::new(crate::clock::System));
    (gate, Arc::new(documents))
}

/// T-07: the bound holds, the document without a nonce has room all the same, and everything that
/// was let in is answered.
#[tokio::test]
async fn a_flood_of_nonces_is_bounded_and_leaves_room_for_the_cached_document() {
    let (gate, documents) = gated();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..MAX_FRESH_WAITING {
        let documents = Arc::clone(&documents);
        let nonce = number.to_be_bytes().to_vec();
        waiting.spawn(async move { documents.fresh(&spki(1), nonce).await });
        tokio::task::yield_now().await;
    }
    let refused = documents.fresh(&spki(1), b"one too many".to_vec()).await;
    assert!(matches!(refused, Err(DocumentError::Busy)));
    let cached = {
        let documents = Arc::clone(&documents);
        tokio::spawn(async move { documents.current(&spki(1)).await })
    };
    tokio::task::yield_now().await;
    gate.open();
    cached.await.unwrap().unwrap();
    while let Some(outcome) = waiting.join_next().await {
        outcome.unwrap().unwrap();
    }
    documents
        .fresh(&spki(1), b"room again".to_vec())
        .await
        .unwrap();
}

#[tokio::test]
async fn requests_for_one_nonce_share_one_document() {
    let (gate, documents) = gated();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let documents = Arc::clone(&documents);
        waiting.spawn(async move { documents.fresh(&spki(1), b"same".to_vec()).await });
    }
    tokio::task::yield_now().await;
    gate.open();
    while let Some(outcome) = waiting.join_next().await {
        assert_eq!(&*outcome.unwrap().unwrap(), b"same");
    }
    assert_eq!(gate.made.load(Ordering::Relaxed), 1);
}
