use super::*;
use crate::keys::AppPrivateKey;
use crate::open::{OpenError, OpenPolicy, OpenSession};
use crate::seal::tests::{Counting, OPTIONS};
use crate::token::Token;
use crate::version::ValueType;

const POLICY: OpenPolicy = OpenPolicy {
    dangerous_accept_debug: false,
    distinct_keys: 1_000_000,
};

fn cache(scalars: &[u8]) -> KeyCache {
    let keys = scalars
        .iter()
        .map(|byte| AppPrivateKey::from_bytes(&[*byte; 32]).unwrap());
    KeyCache::new(Arc::new(Keyring::new(keys.collect()).unwrap()))
}

fn on_p256(key: &AppPrivateKey) -> EphemeralKey {
    EphemeralKey {
        curve: Curve::P256,
        compressed: *key.public().compressed(),
    }
}

fn sealed(scalar: u8, random: &mut Counting) -> String {
    let app = AppPrivateKey::from_bytes(&[scalar; 32]).unwrap();
    crate::seal::seal(b"x", ValueType::String, app.public(), &OPTIONS, random).unwrap()
}

fn open(session: &mut OpenSession<'_>, text: &str) -> Result<(), OpenError> {
    let token = Token::parse(text.as_bytes()).unwrap();
    session.open(text.as_bytes(), &token).map(|_| ())
}

#[test]
fn what_one_session_derived_is_a_hit_for_the_next_one() {
    let cache = cache(&[0x11]);
    let text = sealed(0x11, &mut Counting(1));
    let mut first = OpenSession::shared(&cache, POLICY);
    assert_eq!(open(&mut first, &text), Err(OpenError::Paused));
    assert!(first.is_paused() && cache.is_empty());
    first.grant(1);
    open(&mut first, &text).unwrap();
    assert_eq!((first.counts().derived, first.counts().hits), (1, 0));
    // It needs no leave for what is there.
    let mut second = OpenSession::shared(&cache, POLICY);
    open(&mut second, &text).unwrap();
    assert_eq!((second.counts().derived, second.counts().hits), (0, 1));
}

/// A keyring with old keys multiplies the work of a token, so each ECDH is asked for.
#[test]
fn each_app_key_that_is_tried_takes_from_the_grant() {
    let cache = cache(&[0x11, 0x22, 0x33]);
    let text = sealed(0x11, &mut Counting(1));
    let mut session = OpenSession::shared(&cache, POLICY);
    for left in [2, 1] {
        session.grant(1);
        assert_eq!(open(&mut session, &text), Err(OpenError::Paused), "{left}");
    }
    session.grant(1);
    open(&mut session, &text).unwrap();
    assert_eq!((session.counts().derived, cache.len()), (3, 3));
}

#[test]
fn a_key_lives_for_its_time_and_no_longer() {
    let cache = cache(&[0x11]);
    let (mut random, second) = (Counting(1), Duration::from_secs(1));
    let mut session = OpenSession::shared(&cache, POLICY);
    session.grant(9);
    cache.expire(second);
    open(&mut session, &sealed(0x11, &mut random)).unwrap();
    cache.expire(second * 5);
    open(&mut session, &sealed(0x11, &mut random)).unwrap();
    cache.expire((second + KEY_LIFE).saturating_sub(Duration::from_nanos(1)));
    assert_eq!(cache.len(), 2);
    cache.expire(second + KEY_LIFE);
    assert_eq!(cache.len(), 1);
    // A clock that goes back keeps nothing alive.
    cache.expire(Duration::ZERO);
    cache.expire(second * 5 + KEY_LIFE);
    assert!(cache.is_empty());
}

/// Thousands of distinct keys take the room of the oldest, never more.
#[test]
fn t05_the_number_of_keys_is_bounded() {
    let cache = cache(&[0x11]);
    let mut keys = cache.keys.borrow_mut();
    let app_key = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
    let mut admitted = Vec::new();
    let mut random = Counting(1);
    while admitted.len() < MAX_CACHED_KEYS + 10 {
        let made = AppPrivateKey::generate(&mut random).unwrap();
        let point = on_p256(&made);
        // Deriving costs; what is counted is the slot.
        keys.admit(&point).unwrap();
        let ephemeral = keys.ephemeral.back_mut().unwrap();
        ephemeral.derived.resize_with(1, WithAppKey::default);
        ephemeral.derived[0].with_kdf = Slot::None;
        keys.count += 1;
        admitted.push(point);
    }
    assert_eq!(keys.count, MAX_CACHED_KEYS);
    assert_eq!(keys.ephemeral.len(), MAX_CACHED_KEYS);
    let number = |at: usize| keys.number(&admitted[at]);
    assert!(number(9).is_none() && number(10).is_some());
    let newest = number(admitted.len() - 1).unwrap();
    let found = keys.key(newest, (0, OpeningKey::P256(&app_key)), true, || false);
    assert!(matches!(found, Found::None), "there, and not derived again");
}

/// A key that is wrong for one keyring must not be found through another.
#[test]
fn another_keyring_has_a_cache_of_its_own() {
    let text = sealed(0x11, &mut Counting(1));
    let (ours, others) = (cache(&[0x11]), cache(&[0x22]));
    for (cache, expected) in [(&ours, Ok(())), (&others, Err(OpenError::CannotOpen))] {
        let mut session = OpenSession::shared(cache, POLICY);
        session.grant(1);
        assert_eq!(open(&mut session, &text), expected);
    }
}

/// Without app keys nothing is derived; what clients send takes room all the same.
#[test]
fn t05_ephemeral_keys_with_which_nothing_is_derived_are_bounded_too() {
    let mut keys = DerivedKeys::default();
    let mut first = None;
    for number in 1..=MAX_CACHED_KEYS + 10 {
        let mut scalar = [0; 32];
        scalar[24..].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
        let key = AppPrivateKey::from_bytes(&scalar).unwrap();
        let point = on_p256(&key);
        let number = keys.admit(&point);
        assert!(number.is_some());
        assert_eq!(keys.number(&point), number);
        first.get_or_insert(point);
        assert!(keys.ephemeral.len() <= MAX_CACHED_KEYS);
    }
    assert_eq!(keys.number(&first.unwrap()), None, "the oldest goes first");
}

/// The same 33 bytes can be a point of either curve, with other keys behind them.
#[test]
fn a_point_of_one_curve_is_not_found_for_the_other() {
    let mut keys = DerivedKeys::default();
    let on = |curve| {
        move |x: u8| {
            let mut compressed = [x; 33];
            compressed[0] = 2;
            EphemeralKey { curve, compressed }
        }
    };
    let (p256, secp256k1) = (on(Curve::P256), on(Curve::Secp256k1));
    let x = (1..=255)
        .find(|x| keys.admit(&p256(*x)).is_some() && keys.admit(&secp256k1(*x)).is_some())
        .unwrap();
    let points = [p256(x), secp256k1(x)].map(|key| {
        let number = keys.number(&key).unwrap();
        keys.ephemeral[usize::try_from(number.0).unwrap()].point
    });
    assert_ne!(points[0], points[1]);
}

/// A number is never given twice: one that is kept too long finds nothing, not another's key.
#[test]
fn a_key_that_has_gone_is_not_found_by_its_number() {
    let app_key = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
    let app_key = (0, OpeningKey::P256(&app_key));
    let mut keys = DerivedKeys::default();
    let mut random = Counting(1);
    let [first, second] = [(); 2].map(|()| AppPrivateKey::generate(&mut random).unwrap());
    let [first, second] = [&first, &second].map(on_p256);
    let number = keys.admit(&first).unwrap();
    assert!(matches!(
        keys.key(number, app_key, true, || true),
        Found::Key(_)
    ));
    keys.expire(KEY_LIFE);
    assert!(matches!(
        keys.key(number, app_key, true, || true),
        Found::Gone
    ));
    let others = keys.admit(&second).unwrap();
    let again = keys.admit(&first).unwrap();
    assert!(number != others && number != again && others != again);
    assert_eq!(keys.number(&first), Some(again));
    assert!(matches!(
        keys.key(number, app_key, true, || true),
        Found::Gone
    ));
    assert!(matches!(
        keys.key(again, app_key, true, || true),
        Found::Key(_)
    ));
}
