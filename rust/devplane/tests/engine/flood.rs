//! T-05: thousands of distinct ephemeral keys, and the clients beside whoever sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cloister_ciphertext::{AppPublicKey, Random, RandomError, SealOptions, ValueType, seal};
use serde_json::json;

use crate::plane::{Site, wait_until};
use crate::process::Process;

/// Bytes that never repeat, so that no two tokens share a key.
struct Fresh(u64);

impl Random for Fresh {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for byte in bytes {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
        Ok(())
    }
}

/// A request whose body holds so many tokens, each with a key of its own.
fn request(site: &Site, tokens: usize, seed: u64, is_chunked: bool) -> Vec<u8> {
    let key = AppPublicKey::from_compressed(site.plane.app_public_key()).unwrap();
    let options = SealOptions::enclave(1_700_000_000);
    let mut random = Fresh(seed);
    let sealed: Vec<_> = (0..tokens)
        .map(|_| seal(b"x", ValueType::String, &key, &options, &mut random).unwrap())
        .collect();
    let body = serde_json::to_vec(&sealed).unwrap();
    let length = body.len();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let mut request = if is_chunked {
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n")
    } else {
        format!("{head}Content-Length: {length}\r\n\r\n")
    }
    .into_bytes();
    request.extend_from_slice(&body);
    if is_chunked {
        request.extend_from_slice(b"\r\n0\r\n\r\n");
    }
    request
}

/// The latency at a percentile of so many requests, one after the other, in microseconds; each must
/// be answered 200.
fn latency(site: &Site, request: &[u8], count: usize, percent: usize) -> u128 {
    let mut client = site.client();
    let mut took: Vec<_> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(client.ask(request).status, 200);
            begun.elapsed().as_micros()
        })
        .collect();
    took.sort_unstable();
    took[count * percent / 100]
}

/// Opened in one go, a body of 800 keys would keep the worker, and so every client, for some 50 ms,
/// and four of them for 200.
#[test]
fn t05_distinct_keys_of_one_client_do_not_delay_the_others() {
    let site = Arc::new(Site::open(Process::echo()));
    let plain = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let few = request(&site, 3, 1, false);
    let floods: Vec<_> = (0..4)
        .map(|thread| {
            let bodies =
                (0..6).map(|body| request(&site, 800, 1000 + thread * 100 + body, body % 2 == 1));
            bodies.collect::<Vec<_>>()
        })
        .collect();
    let alone = latency(&site, plain, 200, 90);
    let is_over = Arc::new(AtomicBool::new(false));
    let flooding: Vec<_> = floods
        .into_iter()
        .map(|bodies| {
            let (site, is_over) = (Arc::clone(&site), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut statuses = Vec::new();
                for body in bodies {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut client = site.client();
                    client.try_send(&body);
                    let answer = client.answer();
                    if answer.status == 503 {
                        assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
                        answer.message();
                    }
                    statuses.push(answer.status);
                }
                statuses
            })
        })
        .collect();
    wait_until("the flood", || site.plane.stats().keys_derived > 100);
    let beside = latency(&site, plain, 60, 90);
    let opening = latency(&site, &few, 60, 90);
    assert!(
        site.plane.stats().keys_derived < 4 * 6 * 800,
        "the flood was over too soon"
    );
    is_over.store(true, Ordering::Relaxed);
    let mut answered = [0, 0];
    for thread in flooding {
        let statuses = thread.join().unwrap();
        assert!(
            statuses.iter().all(|status| [200, 503].contains(status)),
            "{statuses:?}"
        );
        answered[0] += statuses.iter().filter(|status| **status == 200).count();
        answered[1] += statuses.len();
    }
    assert!(answered[0] > 0, "what is begun is finished");
    println!(
        "of the flood {} of {} were answered 200",
        answered[0], answered[1]
    );
    println!("p90 alone {alone} µs, beside the flood {beside} µs, with three fields {opening} µs");
    assert!(
        beside < alone + 25_000,
        "{beside} µs beside, {alone} µs alone"
    );
    assert!(
        opening < alone + 60_000,
        "{opening} µs with fields, {alone} µs alone"
    );
}

/// The positive twin: as many clients as a worker has time for, each with keys of its own, are never
/// refused; they wait for each other.
#[test]
fn t05_ordinary_decryption_under_load_is_never_refused() {
    let site = Arc::new(Site::open(Process::echo()));
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let site = Arc::clone(&site);
            std::thread::spawn(move || {
                let mut client = site.client();
                for round in 0..25 {
                    let request = request(&site, 5, number * 1000 + round, round % 2 == 0);
                    let answer = client.ask(&request);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    assert_eq!(client.ask(&request).status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    let expected = 16 * 25 * 5;
    wait_until("the counters", || {
        site.plane.stats().fields_opened == expected * 2
    });
    let stats = site.plane.stats();
    assert_eq!((stats.refused, stats.keys_derived), (0, expected));
    assert_eq!(
        stats.key_hits, expected,
        "the second time each key is at hand"
    );
}

/// Headers are opened slice by slice, too, and the head that goes on is whole.
#[test]
fn t05_headers_with_many_keys_are_opened_in_slices() {
    let site = Site::open(Process::echo());
    let key = AppPublicKey::from_compressed(site.plane.app_public_key()).unwrap();
    let options = SealOptions::enclave(1_700_000_000);
    let mut random = Fresh(5);
    let mut head = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
    for number in 0..60 {
        let clear = format!("value {number}");
        let value = seal(
            clear.as_bytes(),
            ValueType::String,
            &key,
            &options,
            &mut random,
        )
        .unwrap();
        head = format!("{head}X-{number}: {value}\r\n");
    }
    head.push_str("\r\n");
    assert_eq!(site.client().ask(&head).status, 200);
    let seen = site.process.only();
    for number in 0..60 {
        let value = seen.header(&format!("x-{number}"));
        assert_eq!(value, Some(format!("value {number}")));
    }
    wait_until("the counters", || site.plane.stats().keys_derived == 60);
}

/// What was derived is forgotten within ten seconds, also by a worker that serves nobody.
#[test]
fn t19_derived_keys_are_forgotten_within_ten_seconds() {
    let site = Site::open(Process::echo());
    assert_eq!(site.client().ask(request(&site, 7, 3, false)).status, 200);
    let begun = Instant::now();
    wait_until("the keys", || site.plane.stats().keys_kept == 7);
    let seen = Instant::now();
    while site.plane.stats().keys_kept > 0 {
        assert!(begun.elapsed() < Duration::from_millis(10_500));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(seen.elapsed() > Duration::from_secs(6), "kept for a while");
}

/// A second long opening waits for the first, and not for ever; a short one passes them.
#[test]
fn t05_over_its_share_a_request_is_told_to_come_again() {
    let config = json!({ "api_key_auth": false, "limits": { "decrypt_cpu": 1 } });
    let site = Site::with(Process::echo(), config);
    let mut busy = site.client();
    busy.send(request(&site, 1000, 1, false));
    wait_until("the first", || site.plane.stats().active_requests == 1);
    let mut second = site.client();
    second.send(request(&site, 1000, 2, false));
    let answer = site.client().ask(request(&site, 3, 3, false));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = second.answer();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
    assert_eq!(answer.message(), "too many ciphertexts are being opened");
    // Nothing of it went on, and its connection is in order.
    assert_eq!(site.process.seen().len(), 1);
    let plain = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(second.ask(plain).status, 200);
}
