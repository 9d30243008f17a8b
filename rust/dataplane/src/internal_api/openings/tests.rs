use tokio::time::timeout;

use super::*;
use crate::held::HeldBytes;
use crate::live::{Identity, Live};
use crate::provision::SystemRandom;
use cloister_ciphertext::{
    AppPrivateKey, FILE_OVERHEAD_BYTES, SealOptions, ValueType, seal, seal_file, seal_json,
};

const CONFIG: &str = include_str!("../../../../../tests/vectors/config/enclave.json");
const SECOND: Duration = Duration::from_secs(1);

fn app_key() -> AppPrivateKey {
    AppPrivateKey::from_bytes(&[0x11; 32]).unwrap()
}

/// The thread, and what it believes.
fn start(change: impl FnOnce(&mut EnclaveConfig)) -> (Openings, Arc<ArcSwap<Live>>) {
    let mut config = EnclaveConfig::from_json(CONFIG.as_bytes()).unwrap();
    change(&mut config);
    let mut live = Live::not_ready("", Identity::default(), 1);
    live.keyring = Some(Arc::new(Keyring::new(vec![app_key()]).unwrap()));
    let live = Arc::new(ArcSwap::from_pointee(live));
    (Openings::start(Arc::clone(&live), &config).unwrap(), live)
}

/// Opens a document that takes no room.
async fn open_document(openings: &Openings, document: Bytes) -> Outcome {
    let opened = openings.document(document, ()).await;
    opened.map(|(clear, ())| clear)
}

/// Opens a file that takes no room.
async fn open_in_file(openings: &Openings, file: Vec<u8>) -> Outcome {
    let opened = openings.file(file, ()).await;
    opened.map(|(clear, ())| clear)
}

/// A document of so many texts, each with an ephemeral key of its own.
fn distinct(count: usize) -> Bytes {
    let (app, options) = (app_key(), SealOptions::enclave(1));
    let mut random = SystemRandom::new();
    let tokens = (0..count)
        .map(|_| seal(b"x", ValueType::String, app.public(), &options, &mut random).unwrap());
    let tokens: Vec<_> = tokens.map(|token| format!("\"{token}\"")).collect();
    Bytes::from(format!("[{}]", tokens.join(",")))
}

fn clear(count: usize) -> Vec<u8> {
    format!("[{}]", vec!["\"x\""; count].join(",")).into_bytes()
}

/// T-05: what the user process sends has a share of processor time as what clients send has one.
#[tokio::test]
async fn t05_new_keys_take_their_share_and_who_waits_too_long_is_told() {
    // A thousand keys are some 50 ms of work, as much as may be spent at once; at one per cent the rest
    // would take seconds.
    let (openings, _live) = start(|config| config.limits.decrypt_cpu = 1);
    open_document(&openings, distinct(2)).await.unwrap();
    let mut refused = 0;
    for _ in 0..4 {
        refused +=
            u32::from(open_document(&openings, distinct(1_000)).await == Err(Unopened::Overloaded));
    }
    assert!(refused >= 1, "{refused}");
    // What needs no new keys is not refused with them.
    open_document(&openings, Bytes::from_static(b"[1]"))
        .await
        .unwrap();
    // The positive twin: with more time the same document is opened.
    let (openings, _live) = start(|config| config.limits.decrypt_cpu = 100);
    for _ in 0..4 {
        let opened = open_document(&openings, distinct(1_000)).await.unwrap();
        assert_eq!(*opened, clear(1_000));
    }
}

#[tokio::test]
async fn a_key_that_was_derived_is_not_derived_again() {
    let (openings, _live) = start(|config| config.limits.decrypt_cpu = 1);
    let document = distinct(500);
    let mut opened = open_document(&openings, document.clone()).await;
    // Half is kept however the first call ended, so one of a few gets to the end, and then all do.
    for _ in 0..20 {
        if opened.is_ok() {
            break;
        }
        tokio::time::sleep(SECOND / 10).await;
        opened = open_document(&openings, document.clone()).await;
    }
    opened.unwrap();
    for _ in 0..10 {
        open_document(&openings, document.clone()).await.unwrap();
    }
}

/// Cut anywhere, grown to six times its length: the clear text is whole.
#[tokio::test]
async fn a_long_document_of_text_that_grows_is_whole() {
    let (openings, _live) = start(|_| {});
    let (app, options) = (app_key(), SealOptions::enclave(1));
    let text = "\u{1}".repeat(200_000);
    let document = serde_json::to_vec(&[&text, "é", &text]).unwrap();
    let mut random = SystemRandom::new();
    let sealed = seal_json(&document, app.public(), &options, &mut random).unwrap();
    assert!(sealed.len() > 4 * PIECE_BYTES);
    let opened = open_document(&openings, Bytes::from(sealed)).await.unwrap();
    assert_eq!(*opened, document);
}

#[tokio::test]
async fn a_file_is_opened_whole_or_not_at_all() {
    let (openings, live) = start(|_| {});
    let app = app_key();
    let file = seal_file(b"clear", app.public(), &mut SystemRandom::new()).unwrap();
    assert_eq!(file.len(), 5 + FILE_OVERHEAD_BYTES);
    assert_eq!(
        *open_in_file(&openings, file.clone()).await.unwrap(),
        b"clear"
    );
    let mut damaged = file.clone();
    damaged[60] ^= 1;
    let refused = open_in_file(&openings, damaged.clone()).await;
    assert_eq!(refused, Err(Unopened::File(OpenError::Damaged)));
    // With a checksum that is right it is the tag that is wrong.
    let end = damaged.len() - 4;
    let checksum = crc32fast::hash(&damaged[..end]).to_le_bytes();
    damaged[end..].copy_from_slice(&checksum);
    let refused = open_in_file(&openings, damaged).await;
    assert_eq!(refused, Err(Unopened::File(OpenError::CannotOpen)));
    let refused = open_in_file(&openings, b"no file".to_vec()).await;
    assert_eq!(refused, Err(Unopened::File(OpenError::NotAFile)));

    live.store(Arc::new(Live::not_ready("", Identity::default(), 2)));
    assert_eq!(open_in_file(&openings, file).await, Err(Unopened::NoKeys));
}

/// T-03: what a caller sent lies in the queue although the caller has gone, so its room is taken.
#[tokio::test]
async fn t03_a_caller_that_hangs_up_gives_its_room_back_with_its_document() {
    let (openings, _live) = start(|_| {});
    let (go_on, may_go_on) = sync_channel::<()>(0);
    let busy: Job = Box::new(move |_| may_go_on.recv().unwrap());
    openings.queue.try_send(busy).unwrap();
    let account = HeldBytes::new(100);
    for room in [60, 40] {
        let room = account.hold(room).unwrap();
        let call = openings.document(Bytes::from_static(b"[1]"), room);
        // It is in the queue; then the caller hangs up.
        timeout(SECOND / 50, call).await.unwrap_err();
    }
    assert!(account.hold(1).is_none());
    go_on.send(()).unwrap();
    // The positive twin: one that waits gets its room back with what it asked for.
    let opened = openings.document(Bytes::from_static(b"[2]"), ()).await;
    assert_eq!(*opened.unwrap().0, b"[2]");
    let room = account.hold(100).unwrap();
    let (clear, room) = openings
        .file(
            seal_file(b"clear", app_key().public(), &mut SystemRandom::new()).unwrap(),
            room,
        )
        .await
        .unwrap();
    assert_eq!(*clear, b"clear");
    assert!(account.hold(1).is_none());
    drop(room);
    assert!(account.hold(100).is_some());
}

#[tokio::test]
async fn what_is_not_json_is_not_opened() {
    let (openings, _live) = start(|_| {});
    let text = Bytes::from_static(b"[1,]");
    let offset = 3;
    let refused = open_document(&openings, text).await;
    assert_eq!(
        refused,
        Err(Unopened::NotJson(SealError::NotJson { offset }))
    );
    assert_eq!(
        *open_document(&openings, Bytes::from_static(b"[1]"))
            .await
            .unwrap(),
        b"[1]"
    );
}

/// T-19: keys of a bundle that has ended are not kept by a thread that nobody asks for anything.
#[tokio::test]
async fn t19_an_idle_thread_lets_go_of_a_keyring_that_is_not_in_use() {
    let (openings, live) = start(|_| {});
    open_document(&openings, distinct(1)).await.unwrap();
    let keyring = Arc::downgrade(live.load().keyring.as_ref().unwrap());
    assert!(keyring.upgrade().is_some());
    live.store(Arc::new(Live::not_ready("", Identity::default(), 2)));
    let begun = Instant::now();
    while keyring.upgrade().is_some() {
        assert!(begun.elapsed() < SECOND * 5);
        tokio::time::sleep(SECOND / 20).await;
    }
}
