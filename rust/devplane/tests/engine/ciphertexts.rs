//! T-05: what is opened, what is refused, and what the user process has seen by then.

use cloister_ciphertext::{
    AppPublicKey, Random, RandomError, SealOptions, ValueType, seal, seal_file,
};
use serde_json::json;

use crate::client::{End, find};
use crate::plane::{Site, wait_until};
use crate::process::{Process, Reply, Request};

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

pub(crate) fn token(site: &Site, clear: &str, kind: ValueType) -> String {
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
    post_as("application/json", body)
}

fn post_as(content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The same without a length, in chunks of one size.
fn post_chunked(content_type: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(size) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

const FORM: &str = "application/x-www-form-urlencoded";
const PARTS: &str = "multipart/form-data; boundary=\"x y\"";

fn parts(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend_from_slice(format!("--x y\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x y--\r\n");
    body
}

fn file(site: &Site, clear: &[u8]) -> Vec<u8> {
    let key = AppPublicKey::from_compressed(site.plane.app_public_key()).unwrap();
    seal_file(clear, &key, &mut Counting(9)).unwrap()
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

/// A body waits where it was read until it is sent. When its request is refused meanwhile, no byte of
/// it may become the next one: a short body goes on behind its head, a long one by itself.
#[test]
fn t01_a_body_behind_a_refused_header_is_not_a_request() {
    let site = site();
    let refused = format!("Host: a\r\nX-Card: {}\r\nContent", tampered(&site));
    for padding in [0, 8 * 1024] {
        let mut client = site.client();
        let body = format!(
            "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n{}",
            " ".repeat(padding)
        );
        let request = post(&body);
        let before = site.process.seen().len();
        let answer = client.ask(request.replace("Host: a\r\nContent", &refused));
        assert_eq!(answer.status, 422);
        assert_eq!(client.ask(&request).status, 200, "the same, not refused");
        assert_eq!(
            client.ask("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").status,
            200
        );
        let seen = site.process.seen().split_off(before);
        let lines: Vec<_> = seen.iter().map(Request::line).collect();
        assert_eq!(lines, ["POST / HTTP/1.1", "GET /next HTTP/1.1"]);
        assert_eq!(seen[0].body, body.as_bytes());
    }
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

#[test]
fn t05_a_form_is_opened_value_by_value() {
    let site = site();
    let token = token(&site, "a&b=c d", ValueType::String);
    let percent = token.replace(':', "%3A").replace('$', "%24");
    let percent = percent.replace('+', "%2b").replace('/', "%2F");
    let body = format!("card={percent}&{percent}=x&part=a{percent}");
    let expected = format!("card=a%26b%3Dc+d&{percent}=x&part=a{percent}");
    assert_eq!(site.client().ask(post_as(FORM, &body)).status, 200);
    let seen = site.process.only();
    assert_eq!(String::from_utf8(seen.body.clone()).unwrap(), expected);
    assert_eq!(
        seen.header("content-length"),
        Some(expected.len().to_string())
    );
    for size in [1, 11, 4096] {
        let request = post_chunked(FORM, body.as_bytes(), size);
        assert_eq!(site.client().ask(request).status, 200);
    }
    for streamed in &site.process.seen()[1..] {
        assert_eq!(streamed.body, expected.as_bytes());
    }
}

#[test]
fn t05_the_parts_of_a_form_are_opened_as_what_they_are_and_files_whole() {
    let site = site();
    let token = token(&site, "a \"b\"", ValueType::String);
    let number = number(&site);
    let json = format!(r#"{{"k":"{token}","n":"{number}"}}"#);
    let clear: Vec<u8> = (0..=255_u8).cycle().take(70_000).collect();
    let sealed = file(&site, &clear);
    let name = "Content-Disposition: form-data; name=\"f\"";
    let typed = |kind: &str| format!("{name}\r\nContent-Type: {kind}");
    let heads = [
        name.to_owned(),
        typed("application/json"),
        typed("image/png"),
        typed("application/octet-stream"),
    ];
    let contents: [&[u8]; 4] = [token.as_bytes(), json.as_bytes(), &sealed, token.as_bytes()];
    let expected: [&[u8]; 4] = [
        b"a \"b\"",
        br#"{"k":"a \"b\"","n":12.5}"#,
        &clear,
        token.as_bytes(),
    ];
    let with = |contents: [&[u8]; 4]| {
        let given: Vec<(&str, &[u8])> = heads.iter().map(String::as_str).zip(contents).collect();
        parts(&given)
    };
    let body = with(contents);
    let head = post_as(PARTS, "").replace("Length: 0", &format!("Length: {}", body.len()));
    let mut request = head.into_bytes();
    request.extend_from_slice(&body);
    assert_eq!(site.client().ask(request).status, 200);
    for size in [13, 65_536] {
        assert_eq!(
            site.client().ask(post_chunked(PARTS, &body, size)).status,
            200
        );
    }
    for seen in site.process.seen() {
        assert_eq!(seen.body, with(expected));
    }
}

fn number(site: &Site) -> String {
    token(site, "12.5", ValueType::Number)
}

#[test]
fn t05_a_file_that_was_changed_or_a_clear_text_that_adds_a_part_has_no_effect() {
    let site = site();
    let mut changed = file(&site, b"clear");
    let middle = 58;
    changed[middle] ^= 1;
    let covered = changed.len() - 4;
    let checksum = crc32fast::hash(&changed[..covered]).to_le_bytes();
    changed[covered..].copy_from_slice(&checksum);
    let adds = token(
        &site,
        "x\r\n--x y\r\nContent-Disposition: form-data; name=admin\r\n\r\n1",
        ValueType::String,
    );
    let head = "Content-Disposition: form-data; name=f";
    for content in [changed.as_slice(), adds.as_bytes()] {
        let body = parts(&[(head, content)]);
        let answer = site.client().ask(post_chunked(PARTS, &body, 4096));
        assert_eq!(answer.status, 422);
        answer.message();
    }
    assert!(site.process.seen().iter().all(|seen| !seen.is_whole));
    // Right beside them, what is right goes through.
    let fine = parts(&[(head, &file(&site, b"clear"))]);
    assert_eq!(
        site.client().ask(post_chunked(PARTS, &fine, 4096)).status,
        200
    );
}

/// A file is held until its tag is checked, so it needs room like a body that is held.
#[test]
fn t05_files_that_are_held_are_bounded_together_and_each() {
    let limits = json!({ "held_bytes": 900_000, "max_file": 500_000 });
    let site = Site::with(
        Process::echo(),
        json!({ "api_key_auth": false, "limits": limits }),
    );
    let part = |clear: usize| {
        let sealed = file(&site, &vec![7; clear]);
        parts(&[("Content-Disposition: form-data; name=f", &sealed)])
    };
    let large = part(500_000);
    let answer = site.client().ask(post_chunked(PARTS, &large, 65_536));
    assert_eq!(answer.status, 422, "over the limit of one file");
    let fitting = part(400_000);
    let request = post_chunked(PARTS, &fitting, 65_536);
    let (begin, end) = request.split_at(request.len() - 100);
    let mut first = site.client();
    first.send(begin);
    wait_until("the second is refused", || {
        let mut second = site.client();
        second.try_send(&request);
        second
            .try_answer()
            .is_ok_and(|answer| answer.status == 503 && answer.header("retry-after").is_some())
    });
    assert_eq!(first.ask(end).status, 200);
    assert_eq!(site.client().ask(&request).status, 200);
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
