//! T-05: what is opened, what is refused, and what the user process has seen by then.

use cloister_ciphertext::{AppPublicKey, Random, RandomError, SealOptions, ValueType, seal};
use serde_json::json;

use crate::client::{End, find};
use crate::plane::{Site, wait_until};
use crate::process::{Process, Reply};

struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

fn token(site: &Site, clear: &str, kind: ValueType) -> String {
    let key = AppPublicKey::from_compressed(site.plane.app_public_key()).unwrap();
    let options = SealOptions::enclave(1_700_000_000);
    seal(clear.as_bytes(), kind, &key, &options, &mut Counting(9)).unwrap()
}

/// A token of which one byte of the ciphertext is another.
fn tampered(site: &Site) -> String {
    let mut token = token(site, "secret", ValueType::String).into_bytes();
    let at = token.len() - 8;
    token[at] = if token[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(token).unwrap()
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn site() -> Site {
    Site::open(Process::new(|_| Reply::ok("done")))
}

#[test]
fn t05_the_user_process_gets_clear_text_and_a_right_length() {
    let site = site();
    let (text, number) = (
        token(&site, "4242 \"x\"", ValueType::String),
        token(&site, "12.5", ValueType::Number),
    );
    let body = format!(r#"{{"card":"{text}","n":"{number}","plain":"ev:123"}}"#);
    assert_eq!(site.client().ask(post(&body)).status, 200);
    let seen = site.process.only();
    let expected = br#"{"card":"4242 \"x\"","n":12.5,"plain":"ev:123"}"#;
    assert_eq!(seen.body, expected);
    assert_eq!(
        seen.header("content-length"),
        Some(expected.len().to_string())
    );
}

#[test]
fn t05_a_header_is_opened_whole_and_other_types_pass_untouched() {
    let site = site();
    let token = token(&site, "clear", ValueType::String);
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nX-Card: {token}\r\nX-Part: a {token}\r\nContent-Length: {}\r\n\r\n{token}",
        token.len()
    );
    assert_eq!(site.client().ask(request).status, 200);
    let seen = site.process.only();
    assert_eq!(seen.header("x-card").as_deref(), Some("clear"));
    assert_eq!(seen.header("x-part"), Some(format!("a {token}")));
    assert_eq!(seen.body, token.as_bytes());
    let zipped =
        post(&format!("\"{token}\"")).replace("Host: a", "Host: a\r\nContent-Encoding: gzip");
    assert_eq!(site.client().ask(zipped).status, 200);
    assert!(find(&site.process.seen()[1].body, token.as_bytes()).is_some());
}

#[test]
fn t05_a_token_that_cannot_be_opened_has_no_effect() {
    let site = site();
    let mut client = site.client();
    let bad = tampered(&site);
    let answer = client.ask(post(&format!(r#"{{"a":"{bad}"}}"#)));
    assert_eq!(answer.status, 422);
    let message = answer.message();
    assert!(message.contains("byte 6"), "{message}");
    // Of another app, too: the same words.
    let foreign = "ev:QkTC:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:ye0W7ZzhtSI6hgogEw1itJ:$";
    let other = client.ask(post(&format!(r#"{{"a":"{foreign}"}}"#)));
    assert_eq!((other.status, other.message()), (422, message));
    let debug = client.ask(post(r#"["ev:debug:QkTC:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:ye0W7ZzhtSI6hgogEw1itJ:$"]"#));
    assert_eq!(debug.status, 422);
    let header = client.ask(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Card: {bad}\r\n\r\n"
    ));
    assert_eq!(header.status, 422);
    assert!(header.message().contains("`x-card`"));
    assert!(site.process.seen().is_empty(), "{:?}", site.process.seen());
    // The connection is in order.
    assert_eq!(client.ask(post("{}")).status, 200);
}

#[test]
fn t05_a_streamed_body_is_opened_wherever_it_is_cut() {
    let site = site();
    let token = token(&site, "clear", ValueType::String);
    let mut client = site.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    for byte in format!("[\"{token}\",\"x\"]").bytes() {
        client.send([b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    assert_eq!(client.ask("0\r\n\r\n").status, 200);
    assert_eq!(site.process.only().body, br#"["clear","x"]"#);
}

/// Beyond the buffer no more is promised than that the request never looks whole.
#[test]
fn t05_a_streamed_body_that_fails_is_aborted_without_its_last_chunk() {
    let site = Site::with(
        Process::echo(),
        json!({ "api_key_auth": false, "limits": { "decrypt_buffer": 1000 } }),
    );
    let bad = tampered(&site);
    let body = format!(r#"["{}","{bad}"]"#, "x".repeat(100_000));
    let mut client = site.client();
    client.try_send(post(&body).as_bytes());
    let answer = client.answer();
    assert_eq!(answer.status, 422);
    assert!(answer.message().contains("byte 100005"), "{answer:?}");
    assert_eq!(client.rest().1, End::Clean);
    wait_until("the abort", || !site.process.seen().is_empty());
    let seen = site.process.only();
    assert!(!seen.is_whole);
    assert_eq!(seen.header("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(find(&seen.raw_body, b"secret"), None);
}

#[test]
fn t05_held_bodies_together_are_bounded() {
    let limits = json!({ "held_bytes": 100_000, "decrypt_buffer": 90_000 });
    let site = Site::with(
        Process::echo(),
        json!({ "api_key_auth": false, "limits": limits }),
    );
    let mut first = site.client();
    let body = format!("\"{}\"", "x".repeat(80_000));
    let request = post(&body);
    let (begin, end) = request.split_at(request.len() - 1);
    first.send(begin);
    wait_until("the second is refused", || {
        let mut second = site.client();
        second.try_send(request.as_bytes());
        second.try_answer().is_ok_and(|answer| {
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some());
                answer.message();
            }
            answer.status == 503
        })
    });
    assert_eq!(first.ask(end).status, 200);
    assert_eq!(
        site.client().ask(&request).status,
        200,
        "the room was given back"
    );
}
