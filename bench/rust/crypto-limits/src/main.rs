//! `crypto-limits KEY-HEX FILE ROUNDS [ONLY]`: times what is done with a JSON document that holds
//! ciphertexts of the P-256 app key, in nanoseconds of this thread's processor time, the least of
//! ROUNDS. With ONLY it does that one and looks at no clock, for a profiler or callgrind.
//!
//! One line `name value` each: `memmem` searches the document; `limit` copies it and, for each token,
//! whose place it knows beforehand, decodes base64 and opens AES-GCM with an expanded key that is at
//! hand; of that, `base64`, `aead` and `copy` are each alone. `limit-searched` looks for `ev:` first, as
//! everybody has to who does not know the places. `limit-cold` also decompresses each distinct ephemeral
//! key, agrees and derives. `json` opens the document as it lies in memory, `pieces` is the scanner of
//! bodies on their way, `text` that of text; `json-cold` is `json` with a cold cache. `agree` is one
//! decompression, ECDH and KDF alone. What `limit` opened and what the others wrote must be as long.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use cloister_ciphertext::{
    AppPrivateKey, KeyCache, Keyring, OpenPolicy, OpenSession, Place, ScanLimits, Scanner,
    open_json,
};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use rustix::time::{ClockId, clock_gettime};

/// Where a token's parts are, and which.
struct Found {
    start: usize,
    end: usize,
    kind: u8,
    iv: (usize, usize),
    key: (usize, usize),
    data: (usize, usize),
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let scalar: [u8; 32] = unhex(&arguments[1]).try_into().expect("32 bytes");
    let document = std::fs::read(&arguments[2]).expect("the document");
    let rounds: usize = arguments[3].parse().expect("rounds");
    let app = AppPrivateKey::from_bytes(&scalar).expect("a key");
    let public = *app.public().compressed();
    let private = PrivateKey::from_private_key(&ECDH_P256, &scalar).expect("a key");
    let keyring = Arc::new(Keyring::new(vec![app]).expect("one key"));
    let found = tokens(&document);

    // One decompression, inside of aws-lc, one agreement, one hash as long as the KDF's: what the
    // primitives need. The key is another than the product derives, for that needs the point, too.
    let derive = |compressed: &[u8]| {
        let peer = UnparsedPublicKey::new(&ECDH_P256, compressed);
        agree(&private, peer, (), |shared| {
            let mut hash = Context::new(&SHA256);
            hash.update(shared);
            hash.update(&[0; 4 + 270 + 65]);
            let unbound = UnboundKey::new(&AES_256_GCM, hash.finish().as_ref());
            Ok(LessSafeKey::new(unbound.expect("a key")))
        })
        .expect("it agrees")
    };
    let mut keys: HashMap<Vec<u8>, LessSafeKey> = HashMap::new();
    for token in &found {
        let compressed = decode(&document, token.key);
        keys.entry(compressed).or_insert_with_key(|key| derived(&private, key));
    }

    let limit = |keys: &HashMap<Vec<u8>, LessSafeKey>, is_right: bool| {
        let mut out = Vec::with_capacity(document.len());
        let (mut at, mut buffer, mut last): (_, Vec<u8>, Option<(&[u8], &LessSafeKey)>) =
            (0, Vec::new(), None);
        for token in &found {
            out.extend_from_slice(&document[at..token.start]);
            let text = &document[token.key.0..token.key.1];
            let key = match last {
                Some((known, key)) if known == text => key,
                _ => &keys[&decode(&document, token.key)],
            };
            last = Some((text, key));
            let mut iv = [0; 12];
            STANDARD_NO_PAD
                .decode_slice(&document[token.iv.0..token.iv.1], &mut iv)
                .expect("base64");
            buffer.clear();
            buffer.resize((token.data.1 - token.data.0) / 4 * 3 + 3, 0);
            let length = STANDARD_NO_PAD
                .decode_slice(&document[token.data.0..token.data.1], &mut buffer)
                .expect("base64");
            let mut aad = [0; 67];
            aad[0] = token.kind << 4 | 1;
            aad[34..].copy_from_slice(&public);
            aad[1..34].copy_from_slice(&compressed(text));
            let opened = key.open_in_place(
                Nonce::assume_unique_for_key(iv),
                Aad::from(aad),
                &mut buffer[..length],
            );
            assert_eq!(opened.is_ok(), is_right);
            let metadata = 2 + usize::from(buffer[0]);
            out.extend_from_slice(buffer[..length - 16].get(metadata..).unwrap_or_default());
            at = token.end;
        }
        out.extend_from_slice(&document[at..]);
        out.len()
    };
    // What no program can do without that does not know the places beforehand.
    let searched = |keys: &HashMap<Vec<u8>, LessSafeKey>| {
        let starts = memchr::memmem::find_iter(&document, b"ev:").count();
        assert!(starts >= found.len());
        limit(keys, true)
    };
    let sealed: Vec<_> = found
        .iter()
        .map(|token| {
            let mut aad = [0; 67];
            aad[0] = token.kind << 4 | 1;
            aad[1..34].copy_from_slice(&decode(&document, token.key));
            aad[34..].copy_from_slice(&public);
            let iv: [u8; 12] = decode(&document, token.iv).try_into().expect("12 bytes");
            (iv, aad, decode(&document, token.data), &keys[&decode(&document, token.key)])
        })
        .collect();
    let longest = found.iter().map(|token| token.data.1 - token.data.0).max().unwrap_or(0) + 64;
    let aead = || {
        let mut room = vec![0; longest];
        sealed.iter().fold(0, |length, (iv, aad, data, key)| {
            let room = &mut room[..data.len()];
            room.copy_from_slice(data);
            let nonce = Nonce::assume_unique_for_key(*iv);
            length + key.open_in_place(nonce, Aad::from(aad), room).expect("it opens").len()
        })
    };
    let base64 = || {
        let mut room = vec![0; longest];
        found.iter().fold(0, |length, token| {
            [token.iv, token.key, token.data].iter().fold(length, |length, (start, end)| {
                let text = &document[*start..*end];
                length + STANDARD_NO_PAD.decode_slice(text, &mut room).expect("base64")
            })
        })
    };
    let copy = || {
        let (mut out, mut at) = (Vec::with_capacity(document.len()), 0);
        for token in &found {
            out.extend_from_slice(&document[at..token.start]);
            at = token.end;
        }
        out.extend_from_slice(&document[at..]);
        black_box(out).len()
    };
    // Numbers lose their quotes in JSON; there are none in these documents.
    let warm = KeyCache::new(Arc::clone(&keyring));
    assert_eq!(limit(&keys, true), scan(&warm, Place::Json, &document, true));
    assert_eq!(limit(&keys, true), opened(&warm, &document, true));

    let only = arguments.get(4);
    let mut best: Vec<(&str, u128)> = Vec::new();
    let mut note = |name: &'static str, work: &dyn Fn() -> usize| {
        if let Some(only) = only {
            // Reading the clock goes through the vDSO, which valgrind does not have.
            if only == name {
                black_box(work());
            }
            return;
        }
        let taken = timed(work);
        match best.iter_mut().find(|(known, _)| *known == name) {
            Some((_, least)) => *least = (*least).min(taken),
            None => best.push((name, taken)),
        }
    };
    let distinct: Vec<Vec<u8>> = keys.keys().cloned().collect();
    for _ in 0..rounds {
        note("memmem", &|| memchr::memmem::find(&document, b"ev:no-token").unwrap_or_default());
        note("limit", &|| limit(&keys, true));
        note("base64", &base64);
        note("aead", &aead);
        note("copy", &copy);
        note("limit-searched", &|| searched(&keys));
        note("json", &|| opened(&warm, &document, false));
        note("pieces", &|| scan(&warm, Place::Json, &document, false));
        note("text", &|| scan(&warm, Place::Text, &document, false));
        if !distinct.is_empty() && distinct.len() == found.len() {
            note("limit-cold", &|| {
                let fresh = distinct.iter().map(|key| (key.clone(), derive(key))).collect();
                limit(&fresh, false)
            });
            note("json-cold", &|| {
                opened(&KeyCache::new(Arc::clone(&keyring)), &document, true)
            });
        }
        if let Some(key) = distinct.first() {
            note("agree", &|| usize::from(derive(key).algorithm() == &AES_256_GCM));
        }
    }
    println!("tokens {}", found.len());
    for (name, nanoseconds) in best {
        println!("{name} {nanoseconds}");
    }
}

/// How long the document is once it is opened, and written elsewhere.
fn opened(cache: &KeyCache, document: &[u8], may_derive: bool) -> usize {
    let mut session = OpenSession::shared(cache, POLICY);
    session.grant(if may_derive { u32::MAX } else { 0 });
    let opened = open_json(document, ScanLimits::default(), &mut session).expect("it opens");
    let mut out = vec![0; opened.len()];
    opened.write(&mut out);
    black_box(out).len()
}

/// What the scanner wrote, bytes.
fn scan(cache: &KeyCache, place: Place, document: &[u8], may_derive: bool) -> usize {
    let mut session = OpenSession::shared(cache, POLICY);
    session.grant(if may_derive { u32::MAX } else { 0 });
    let mut scanner = Scanner::new(place, ScanLimits::default());
    let mut out = Vec::with_capacity(document.len());
    scanner.push(document, &mut out, &mut session).expect("it opens");
    scanner.finish(&mut out, &mut session).expect("it opens");
    assert!(!session.is_paused());
    out.len()
}

/// The key that the product derives, for the warm rows; not timed.
fn derived(private: &PrivateKey, compressed: &[u8]) -> LessSafeKey {
    let point = p256::PublicKey::from_sec1_bytes(compressed).expect("a point");
    let point = point.to_sec1_point(false);
    let prefix = VECTORS.split("\"p256\": \"").nth(1).and_then(|rest| rest.split('"').next());
    let prefix = unhex(prefix.expect("the KDF's prefix"));
    let peer = UnparsedPublicKey::new(&ECDH_P256, compressed);
    agree(private, peer, (), |shared| {
        let mut hash = Context::new(&SHA256);
        for part in [shared, &[0, 0, 0, 1], &prefix, point.as_bytes()] {
            hash.update(part);
        }
        let unbound = UnboundKey::new(&AES_256_GCM, hash.finish().as_ref());
        Ok(LessSafeKey::new(unbound.expect("a key")))
    })
    .expect("it agrees")
}

/// Processor time of this thread: what a busy neighbour takes does not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).expect("a part of a second"))
}

const POLICY: OpenPolicy = OpenPolicy { dangerous_accept_debug: false, distinct_keys: u32::MAX };
const VECTORS: &str = include_str!("../../../../tests/vectors/ciphertext/vectors.json");

fn tokens(document: &[u8]) -> Vec<Found> {
    let text = std::str::from_utf8(document).expect("UTF-8");
    let mut found = Vec::new();
    for (start, _) in text.match_indices("ev:QkTC:") {
        let end = start + text[start..].find(":$").expect("an end") + 2;
        let mut parts = Vec::new();
        let mut at = start;
        for part in text[start..end].split(':') {
            parts.push((at, at + part.len()));
            at += part.len() + 1;
        }
        let kind = match parts.len() {
            6 => 0,
            _ if &text[parts[2].0..parts[2].1] == "number" => 1,
            _ => 2,
        };
        let [iv, key, data, _] = parts[parts.len() - 4..] else { unreachable!() };
        found.push(Found { start, end, kind, iv, key, data });
    }
    found
}

fn decode(document: &[u8], (start, end): (usize, usize)) -> Vec<u8> {
    STANDARD_NO_PAD.decode(&document[start..end]).expect("base64")
}

fn compressed(text: &[u8]) -> [u8; 33] {
    let mut point = [0; 33];
    STANDARD_NO_PAD.decode_slice(text, &mut point).expect("base64");
    point
}

fn timed<T>(work: impl FnOnce() -> T) -> u128 {
    let before = processor_time();
    black_box(work());
    (processor_time() - before).as_nanos()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}
