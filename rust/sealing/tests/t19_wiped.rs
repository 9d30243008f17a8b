//! T-19: no secret of a bundle, no app key and no clear text is left in memory that was given back.
//!
//! The allocator of this process looks through every block that is freed. It sees the Rust heap: not
//! the stack, and not what aws-lc allocates for itself, which aws-lc wipes.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloister_ciphertext::{
    AppPrivateKey, AppPublicKey, FileSealer, Keyring, OpenPolicy, OpenSession, Opened, Place,
    ScanLimits, Scanner, SealOptions, Secp256k1PrivateKey, Spliced, Token, ValueType, make_room,
    open_file, open_json, seal, seal_file, seal_json, seal_values,
};
use cloister_sealing::{
    AppKey, BootKey, Bundle, Curve, EnvVar, Expected, Identity, Random, RandomError, Sealer,
    SealingSecret, ServiceKey, Sharing, open_bundle, recipient_digest, seal_bundle,
};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Sixteen bytes that nothing else in this process has. Secrets of this test repeat them.
const MARK: [u8; 16] = *b"secret of t-19 !";

/// The mark twice: as long as an app key, and a scalar of P-256.
const SECRET: [u8; 32] = *b"secret of t-19 !secret of t-19 !";

/// Freed blocks in which a secret was found.
static LEFT: AtomicUsize = AtomicUsize::new(0);

struct Watching;

// SAFETY: every call is passed on to `System` with the arguments it came with.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that `dealloc` reads nothing that was never written.
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is of this allocator and `layout.size()` initialised bytes long.
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        if bytes.windows(MARK.len()).any(|window| window == MARK) {
            LEFT.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(113);
            *byte = self.0;
        }
        Ok(())
    }
}

fn bundle(boot: &BootKey) -> Bundle {
    let key = |number: usize| AppKey {
        id: number.to_string(),
        curve: Curve::P256,
        private: Zeroizing::new(SECRET),
    };
    let mut app_keys = Vec::with_capacity(8);
    app_keys.extend((0..8).map(key));
    let variable = |number: usize| EnvVar {
        name: format!("NAME_{number}"),
        value: Zeroizing::new(MARK.to_vec()),
        secret: true,
    };
    Bundle {
        v: 1,
        enclave: Uuid::nil(),
        deployment: String::new(),
        version: 1,
        challenge: [7; 32],
        recipient: recipient_digest(boot.public()),
        pcr0: [9; 48],
        issued_at: 1,
        not_after: 10,
        app_keys,
        api_keys: Vec::new(),
        env: (0..40).map(variable).collect(),
        objects: BTreeMap::new(),
        settings: BTreeMap::new(),
        identity: Identity::default(),
        sealing_secret: Some(SealingSecret::from_bytes(&SECRET)),
    }
}

/// What was left by `work`.
fn left_by<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LEFT.load(Ordering::Relaxed);
    let made = work();
    let left = LEFT.load(Ordering::Relaxed).saturating_sub(before);
    (made, left)
}

/// The count is the process's: every test runs in one of its own (nextest), or alone.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn t19_sealing_and_opening_leave_no_secret_in_freed_memory() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let ((), seen) = left_by(|| drop(MARK.to_vec()));
    assert_eq!(seen, 1, "the allocator does not see what is left");

    let signer = ServiceKey::generate(&mut Counting(1)).unwrap();
    let boot = BootKey::generate(&mut Counting(2)).unwrap();
    let (made, left) = left_by(|| bundle(&boot));
    assert_eq!(left, 0, "left by making a bundle, in this test itself");
    let (sealed, left) =
        left_by(|| seal_bundle(&made, &signer, boot.public(), &mut Counting(3)).unwrap());
    assert_eq!(left, 0, "left by sealing");

    let keys = [signer.public()];
    let expected = Expected {
        service_keys: &keys,
        enclave: Uuid::nil(),
        challenge: &[7; 32],
        pcr0: &[9; 48],
        minimum_version: 1,
        now_ms: 5,
    };
    let (opened, left) = left_by(|| open_bundle(&sealed, &boot, &expected).unwrap());
    assert_eq!(left, 0, "left by opening");
    assert_eq!(opened, made);

    let (refused, left) = left_by(|| {
        let late = Expected {
            now_ms: 10,
            ..expected
        };
        open_bundle(&sealed, &boot, &late)
    });
    refused.unwrap_err();
    assert_eq!(left, 0, "left by refusing");
    let ((), left) = left_by(|| drop((made, opened)));
    assert_eq!(left, 0, "left by dropping a bundle");
}

#[test]
fn t19_app_keys_and_clear_texts_are_not_left_in_freed_memory() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let (key, left) = left_by(|| Box::new(AppPrivateKey::from_bytes(&SECRET).unwrap()));
    assert_eq!(left, 0, "left by reading a key");
    let public = key.public().clone();
    // Out of the box, into a list that grows, into a keyring.
    let (keyring, left) = left_by(|| {
        let mut keys = vec![*key];
        keys.extend(AppPrivateKey::from_bytes(&[1; 32]));
        Keyring::new(keys).unwrap()
    });
    assert_eq!(left, 0, "left by moving a key");

    // The mark comes first: a buffer that grows behind it leaves it.
    let mut document = Vec::with_capacity(256);
    document.extend(b"{\"a\":\"");
    document.extend(MARK);
    document
        .extend(br#" and \u0041 text that is much longer than the mark is, escapes included"}"#);
    let options = SealOptions::enclave(1);
    let policy = OpenPolicy {
        dangerous_accept_debug: false,
        distinct_keys: 1,
    };
    let (out, left) = left_by(|| {
        let sealed = seal_json(&document, &public, &options, &mut Counting(1)).unwrap();
        let mut session = OpenSession::new(&keyring, policy);
        let mut scanner = Scanner::new(Place::Json, ScanLimits::default());
        let mut out = Vec::with_capacity(sealed.len());
        scanner.push(&sealed, &mut out, &mut session).unwrap();
        scanner.finish(&mut out, &mut session).unwrap();
        out
    });
    assert_eq!(left, 0, "left by sealing and opening");
    drop(keyring);
    drop(out);
}

#[test]
fn t19_sealed_objects_leave_neither_key_nor_clear_text_in_freed_memory() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let sealer = Sealer::new(
        SealingSecret::from_bytes(&SECRET),
        Uuid::nil(),
        [[1; 48]; 3],
        Sharing::SameImage,
    );
    let clear = MARK.repeat(30);
    let (sealed, left) = left_by(|| sealer.seal("tls", 1, &clear, &mut Counting(1)).unwrap());
    assert_eq!(left, 0, "left by sealing an object");
    let (opened, left) = left_by(|| sealer.open("tls", &sealed).unwrap().1);
    assert_eq!(left, 0, "left by opening an object");
    assert_eq!(*opened, clear);
    let ((), left) = left_by(|| drop(opened));
    assert_eq!(left, 0, "left by dropping what was in it");
    let ((), left) = left_by(|| {
        let _proof = sealer.head_proof("tls", 1, &[0; 32]);
        drop(sealer);
    });
    assert_eq!(left, 0, "left by proving a head, and by the sealer");
}

#[test]
fn t19_files_and_values_are_not_left_in_freed_memory() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let keyring = || {
        let p256 = AppPrivateKey::from_bytes(&SECRET).unwrap();
        let secp256k1 = Secp256k1PrivateKey::from_bytes(&SECRET).unwrap();
        Keyring::with_secp256k1(vec![p256], vec![secp256k1]).unwrap()
    };
    let (keyring, left) = left_by(keyring);
    assert_eq!(left, 0, "left by making a keyring of both curves");
    let public = keyring.newest().unwrap().clone();
    let policy = OpenPolicy {
        dangerous_accept_debug: false,
        distinct_keys: 9,
    };
    let clear = MARK.repeat(100);
    let (opened, left) = left_by(|| {
        let mut file = Vec::new();
        let mut sealer = FileSealer::begin(&public, &mut Counting(1), &mut file).unwrap();
        for piece in clear.chunks(70) {
            sealer.push(piece, &mut file).unwrap();
        }
        sealer.finish(&mut file).unwrap();
        assert_eq!(file, seal_file(&clear, &public, &mut Counting(1)).unwrap());
        let mut session = OpenSession::new(&keyring, policy);
        open_file(&file, &mut session).unwrap()
    });
    assert_eq!(left, 0, "left by sealing and opening a file");
    assert_eq!(*opened, clear);
    let ((), left) = left_by(|| drop(opened));
    assert_eq!(left, 0, "left by dropping the clear text");

    let ((), left) = left_by(|| {
        let options = SealOptions::enclave(1);
        let token = seal(
            &MARK,
            ValueType::String,
            &public,
            &options,
            &mut Counting(1),
        )
        .unwrap();
        let mut session = OpenSession::new(&keyring, policy);
        let opened = session.open(token.as_bytes(), &Token::parse(token.as_bytes()).unwrap());
        assert_eq!(*opened.unwrap().clear, MARK);
        // On secp256k1 nothing is made; one for another app is worked on all the same.
        let other = session.open(OTHERS, &Token::parse(OTHERS).unwrap());
        other.unwrap_err();
    });
    assert_eq!(left, 0, "left by a value");

    let ((), left) = left_by(|| {
        let options = SealOptions::enclave(1);
        let values = [(ValueType::String, MARK); 40];
        let tokens = seal_values(&values, &public, &options, &mut Counting(1)).unwrap();
        let document = format!("[\"{}\"]", tokens.join("\",\""));
        let mut session = OpenSession::new(&keyring, policy);
        let opened = open_json(document.as_bytes(), ScanLimits::default(), &mut session).unwrap();
        // Once for each place, in memory that grew while they came.
        let marks = opened.parts().filter(|part| *part == MARK).count();
        assert_eq!(marks, 40);
    });
    assert_eq!(left, 0, "left by a document");

    let ((), left) = left_by(|| {
        let mut clear = Zeroizing::new(MARK.to_vec());
        make_room(&mut clear, 1_000);
        assert_eq!(*clear, MARK);
    });
    assert_eq!(left, 0, "left by making room");
    let ((), left) = left_by(|| drop(keyring));
    assert_eq!(left, 0, "left by a keyring");
}

/// A known answer (`tests/vectors/ciphertext`), for another key than the test's.
const OTHERS: &[u8] = b"ev:RFVC:AAECAwQFBgcICQoL:AkZtf8rlY+XLCaDRhwu1gDRIBGF4eaFJSc8iKF8brj8n:IMG3MCpSmRFsC2GP7RB37fNRDJaxZbqyYEy+:$";

/// Whether a type is `Clone`: the inherent constant is found first, where its bound holds.
struct Cloned<T>(PhantomData<T>);

trait NotCloned {
    const IS_CLONE: bool = false;
}

impl<T> NotCloned for Cloned<T> {}

impl<T: Clone> Cloned<T> {
    const IS_CLONE: bool = true;
}

#[test]
fn t19_what_is_secret_is_not_cloned_by_accident() {
    let twin = Cloned::<AppPublicKey>::IS_CLONE;
    assert!(twin, "the probe sees what can be cloned");
    let secrets = [
        Cloned::<AppKey>::IS_CLONE,
        Cloned::<AppPrivateKey>::IS_CLONE,
        Cloned::<BootKey>::IS_CLONE,
        Cloned::<Bundle>::IS_CLONE,
        Cloned::<EnvVar>::IS_CLONE,
        Cloned::<FileSealer>::IS_CLONE,
        Cloned::<Keyring>::IS_CLONE,
        Cloned::<Opened>::IS_CLONE,
        Cloned::<Sealer>::IS_CLONE,
        Cloned::<SealingSecret>::IS_CLONE,
        Cloned::<Secp256k1PrivateKey>::IS_CLONE,
        Cloned::<ServiceKey>::IS_CLONE,
        Cloned::<Spliced<'_>>::IS_CLONE,
    ];
    assert_eq!(secrets, [false; 13]);
}

/// From the heap to the heap and to another place of the stack: who moves it moves a pointer.
#[test]
fn t19_a_secret_that_is_moved_leaves_no_copy_where_it_was() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let in_itself = [7_u8; 32];
    let before = in_itself.as_ptr();
    let moved = Box::new(in_itself);
    assert_ne!(moved.as_ptr(), before, "the probe sees a move");

    let secret = SealingSecret::from_bytes(&SECRET);
    let before = secret.as_bytes().as_ptr();
    let moved = Box::new(Some(secret));
    let secret = moved.as_ref().as_ref().unwrap();
    assert_eq!(secret.as_bytes().as_ptr(), before);

    let key = AppPrivateKey::from_bytes(&SECRET).unwrap();
    let before = key.scalar().as_ptr();
    let moved = Box::new(key);
    assert_eq!(moved.scalar().as_ptr(), before);
}

/// A source of keys that are the mark.
struct Marking;

impl Random for Marking {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for (byte, mark) in bytes.iter_mut().zip(MARK.iter().cycle()) {
            *byte = *mark;
        }
        Ok(())
    }
}

/// What a type shows besides its name is looked through for the mark. A key that is made of the mark
/// and is not it has nothing to look for: such types show their names alone.
#[test]
fn t19_what_is_secret_does_not_show_itself() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let boot = BootKey::generate(&mut Marking).unwrap();
    let made = bundle(&boot);
    let p256 = AppPrivateKey::from_bytes(&SECRET).unwrap();
    let public = p256.public().clone();
    let secp256k1 = Secp256k1PrivateKey::from_bytes(&SECRET).unwrap();
    let opened = Opened {
        kind: ValueType::String,
        clear: Zeroizing::new(MARK.to_vec()),
    };
    let secret = SealingSecret::from_bytes(&SECRET);
    let signer = ServiceKey::from_seed(&SECRET).unwrap();
    let mut file = Vec::new();
    let mut file_sealer = FileSealer::begin(&public, &mut Marking, &mut file).unwrap();
    file_sealer.push(&MARK[..15], &mut file).unwrap();

    let whole = [
        format!("{boot:?} {signer:?} {secret:?}"),
        format!("{p256:?} {secp256k1:?} {file_sealer:?}"),
    ];
    let names = [
        "BootKey { .. } ServiceKey { .. } SealingSecret",
        "AppPrivateKey { .. } Secp256k1PrivateKey { .. } FileSealer { .. }",
    ];
    assert_eq!(whole, names);

    let sealer = Sealer::new(secret, Uuid::nil(), [[1; 48]; 3], Sharing::SameImage);
    let keyring = Keyring::with_secp256k1(vec![p256], vec![secp256k1]).unwrap();
    let shown = format!("{made:?} {made:#?} {opened:?} {opened:#?} {sealer:?} {keyring:?}");
    for seen in [
        "NAME_39",
        "kind: String",
        "SameImage",
        "Secp256k1PrivateKey",
    ] {
        assert!(shown.contains(seen), "the probe does not see `{seen}`");
    }
    // Lines and indents aside, a list of bytes has one form.
    let close = |text: &str| text.split_whitespace().collect::<String>();
    let shown = close(&shown);
    let text = close(std::str::from_utf8(&MARK).unwrap());
    let list = close(format!("{MARK:?}").trim_matches(['[', ']']));
    let in_hex = MARK.map(|byte| format!("{byte:02x}")).concat();
    for form in [text, list, in_hex] {
        assert!(!shown.contains(&form), "shown as `{form}`");
    }
}
