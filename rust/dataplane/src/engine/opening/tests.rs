use std::rc::Rc;
use std::sync::Arc;

use cloister_ciphertext::{
    AppPrivateKey, KeyCache, Keyring, OpenPolicy, Place, Random, RandomError, ScanLimits, Scanner,
    SealOptions, ValueType, seal,
};

use super::*;

const POLICY: OpenPolicy = OpenPolicy {
    dangerous_accept_debug: false,
    distinct_keys: 100_000,
};

struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for byte in bytes {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = self.0.to_be_bytes()[0];
        }
        Ok(())
    }
}

impl From<Overloaded> for String {
    fn from(_: Overloaded) -> Self {
        "overloaded".to_owned()
    }
}

fn app_key() -> AppPrivateKey {
    AppPrivateKey::from_bytes(&[0x11; 32]).unwrap()
}

fn cache() -> KeyCache {
    KeyCache::new(Arc::new(Keyring::new(vec![app_key()]).unwrap()))
}

/// A text of so many tokens, each with an ephemeral key of its own.
fn body(tokens: usize, seed: u64) -> Vec<u8> {
    let (app, options) = (app_key(), SealOptions::enclave(1));
    let mut random = Counting(seed);
    let tokens = (0..tokens)
        .map(|_| seal(b"x", ValueType::String, app.public(), &options, &mut random).unwrap());
    tokens.collect::<String>().into_bytes()
}

async fn open(opening: &Opening, cache: &KeyCache, body: &[u8]) -> Result<u64, String> {
    let mut session = OpenSession::shared(cache, POLICY);
    let mut scanner = Scanner::new(Place::Text, ScanLimits::default());
    let (mut out, mut job) = (Vec::new(), opening.job());
    scanner.push(body, &mut out, &mut session).unwrap();
    job.run(&mut session, |session| {
        scanner
            .resume(&mut out, session)
            .map_err(|error| error.to_string())
    })
    .await?;
    scanner.finish(&mut out, &mut session).unwrap();
    assert_eq!(out, vec![b'x'; out.len()]);
    Ok(session.opened())
}

fn local<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    runtime.unwrap().block_on(test)
}

/// One long opening in one go would keep everybody else waiting for all of it.
#[test]
fn t05_others_are_served_between_the_slices_of_a_long_opening() {
    local(async {
        let opening = Opening::new(100);
        let tokens = usize::try_from(SLICE_KEYS).unwrap() * 10;
        let (cache, body) = (cache(), body(tokens, 1));
        let turns = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&turns);
        let others = tokio::task::spawn_local(async move {
            loop {
                *counted.borrow_mut() += 1;
                tokio::task::yield_now().await;
            }
        });
        let opened = open(&opening, &cache, &body).await.unwrap();
        assert_eq!(opened, u64::try_from(tokens).unwrap());
        others.abort();
        assert!(*turns.borrow() >= 10, "{turns:?}");
    });
}

/// Whoever needs few keys does not wait for all those of the others.
#[test]
fn t05_a_short_opening_passes_the_long_ones() {
    local(async {
        let opening = Rc::new(Opening::new(100));
        let cache = Rc::new(cache());
        let finished = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for (number, tokens) in [(0, 400), (1, 400), (2, 400), (3, 2)] {
            let (opening, cache) = (Rc::clone(&opening), Rc::clone(&cache));
            let (finished, body) = (Rc::clone(&finished), body(tokens, number));
            tasks.push(tokio::task::spawn_local(async move {
                open(&opening, &cache, &body).await.unwrap();
                finished.borrow_mut().push(number);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        // And what was begun first is finished first.
        assert_eq!(*finished.borrow(), [3, 0, 1, 2]);
    });
}

/// The share of the thread holds, and what cannot be done within the patience is refused, the rest
/// is not.
#[test]
fn t05_a_flood_takes_its_share_and_no_more() {
    local(async {
        let opening = Rc::new(Opening::new(10));
        let cache = Rc::new(cache());
        let (wall, processor) = (Instant::now(), thread_time());
        let mut tasks = Vec::new();
        for number in 0..12 {
            let (opening, cache) = (Rc::clone(&opening), Rc::clone(&cache));
            let body = body(300, number);
            tasks.push(tokio::task::spawn_local(async move {
                open(&opening, &cache, &body).await
            }));
        }
        let sealing = thread_time().saturating_sub(processor);
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        let spent = thread_time().saturating_sub(processor + sealing);
        let share = wall.elapsed().saturating_sub(sealing) / 10 + Duration::from_millis(50);
        assert!(spent <= share + share / 2, "{spent:?} of {share:?}");
        assert_eq!(outcomes[0], Ok(300), "what was begun first is finished");
        assert_eq!(outcomes[11], Err("overloaded".to_owned()));
        let opened = open(&opening, &cache, &body(3, 99)).await;
        assert_eq!(opened, Ok(3), "and afterwards everything is as before");
    });
}

/// A request whose keys are known waits for nobody.
#[test]
fn what_is_in_the_cache_needs_no_turn() {
    local(async {
        let opening = Opening::new(1);
        let (cache, body) = (cache(), body(20, 1));
        open(&opening, &cache, &body).await.unwrap();
        let _taken = opening.turn.acquire().await.unwrap();
        assert_eq!(open(&opening, &cache, &body).await, Ok(20));
    });
}
