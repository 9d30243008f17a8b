//! What the user process receives, and what comes back.

use std::time::{Duration, Instant};

use crate::client::End;
use crate::plane::Site;
use crate::process::{Process, Reply};

#[test]
fn headers_are_kept_byte_for_byte() {
    let site = Site::open(Process::new(|_| {
        Reply::bytes(b"HTTP/1.1 299 Fine \xFC\r\nX-a: 1\r\nX-A: \xE9 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nKeep-Alive: 5\r\nConnection: X-Gone\r\nX-Gone: 1\r\nx-evervault-ctx: forged\r\nContent-Length: 2\r\n\r\nok".to_vec())
    }));
    let mut client = site.client();
    client.send(b"GET /\xC3\xA4?q=%20 HTTP/1.1\r\nHost: A.Example:8443\r\nx-Twice: 1\r\nX-Latin: \xE9\xFF\r\nx-Twice: 2\r\nEmpty:\r\nTE: trailers\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\n\r\n");
    let answer = client.answer();
    let seen = site.process.only();
    let kept: Vec<_> = seen.head.lines().take(6).collect();
    assert_eq!(
        kept,
        [
            "GET /\u{c3}\u{a4}?q=%20 HTTP/1.1",
            "Host: A.Example:8443",
            "x-Twice: 1",
            "X-Latin: \u{e9}\u{ff}",
            "x-Twice: 2",
            "Empty: "
        ]
    );
    for absent in [
        "te",
        "keep-alive",
        "proxy-connection",
        "connection",
        "content-length",
    ] {
        assert_eq!(seen.header(absent), None, "{}", seen.head);
    }
    assert_eq!((answer.status, answer.body.as_slice()), (299, &b"ok"[..]));
    assert_eq!(answer.header("set-cookie").as_deref(), Some("a | b"));
    assert_eq!(answer.header("x-gone"), None);
    let id = answer.header("x-evervault-ctx").unwrap();
    assert_eq!(
        seen.header("x-evervault-ctx"),
        Some(id),
        "one id on both sides"
    );
}

#[test]
fn forwarding_headers_are_appended_on_the_right() {
    let site = Site::open(Process::echo());
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-Proto: http\r\nx-evervault-ctx: mine\r\n\r\n";
    let answer = site.client().ask(request);
    let seen = site.process.only();
    assert_eq!(
        seen.header("x-forwarded-for").as_deref(),
        Some("10.0.0.1, 127.0.0.1")
    );
    assert_eq!(
        seen.header("forwarded").as_deref(),
        Some("for=10.0.0.1, for=127.0.0.1;proto=https")
    );
    assert_eq!(
        seen.header("x-forwarded-proto").as_deref(),
        Some("http, https")
    );
    let id = answer.header("x-evervault-ctx").unwrap();
    assert_eq!(seen.header("x-evervault-ctx"), Some(format!("mine;{id}")));
}

#[test]
fn answers_without_a_body_have_none() {
    let site = Site::open(Process::new(|request| match request.line() {
        line if line.starts_with("HEAD") => {
            Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        }
        line if line.contains("/304") => {
            Reply::bytes("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
        }
        line if line.contains("/204") => Reply::bytes("HTTP/1.1 204 No Content\r\n\r\n"),
        _ => Reply::ok("body"),
    }));
    let mut client = site.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        client.answer_to_head().header("content-length").as_deref(),
        Some("1000")
    );
    for path in ["304", "204"] {
        let answer = client.ask(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status.to_string(), path);
    }
    assert_eq!(
        client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body,
        b"body"
    );
}

#[test]
fn targets_of_every_form_are_forwarded() {
    let site = Site::open(Process::echo());
    let mut client = site.client();
    for (line, forwarded) in [
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("GET http://b.example:81/x?y HTTP/1.1", "GET /x?y HTTP/1.1"),
        ("GET https://b.example HTTP/1.1", "GET / HTTP/1.1"),
        ("QUERY //a/../b HTTP/1.1", "QUERY //a/../b HTTP/1.1"),
    ] {
        let answer = client.ask(format!("{line}\r\nHost: a\r\n\r\n"));
        assert_eq!(String::from_utf8(answer.body).unwrap(), forwarded);
    }
    let hosts: Vec<_> = site
        .process
        .seen()
        .iter()
        .map(|r| r.header("host").unwrap())
        .collect();
    assert_eq!(hosts, ["a", "b.example:81", "b.example", "a"]);
}

#[test]
fn an_old_client_gets_what_it_can_read() {
    let site = Site::open(Process::new(|request| {
        if request.line().contains("/length") {
            Reply::ok("ok")
        } else {
            Reply::bytes(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            )
        }
    }));
    let mut client = site.client();
    for _ in 0..2 {
        let kept = client.ask("GET /length HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(kept.header("connection").as_deref(), Some("keep-alive"));
    }
    let last = client.ask("GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(
        (last.header("transfer-encoding"), last.body),
        (None, b"abc".to_vec())
    );
    let mut client = site.client();
    client.send("GET /length HTTP/1.0\r\n\r\n");
    assert_eq!(
        client.answer().header("connection").as_deref(),
        Some("close")
    );
    assert_eq!(client.rest(), (Vec::new(), End::Clean));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::open(Process::echo());
    let mut client = site.client();
    let mut requests = String::new();
    for number in 0..20 {
        let head = format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
        requests.push_str(&head);
        requests.push_str("abc");
    }
    client.send(requests);
    for number in 0..20 {
        assert_eq!(
            client.answer().body,
            format!("POST /{number} HTTP/1.1").into_bytes()
        );
    }
}

#[test]
fn an_expected_100_comes_once_the_request_is_let_in() {
    let site = Site::with(Process::echo(), serde_json::json!({}));
    let head = |key: &str, kind: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\napi-key: {key}\r\nContent-Type: {kind}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
    };
    for kind in ["application/json", "image/png"] {
        let mut client = site.client();
        assert_eq!(client.ask(head(site.key(), kind)).status, 100);
        assert_eq!(client.ask("\"a\"").status, 200);
        let mut refused = site.client();
        assert_eq!(
            refused.ask(head("no", kind)).status,
            401,
            "no 100 for who is not let in"
        );
        assert_eq!(refused.rest().1, End::Clean);
    }
    for seen in site.process.seen() {
        assert_eq!(
            (seen.header("expect"), seen.body),
            (None, b"\"a\"".to_vec())
        );
    }
}

#[test]
fn chunks_and_trailers_go_both_ways() {
    let site = Site::open(Process::new(|_| {
        Reply::bytes(
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n",
        )
        .then("0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n")
    }));
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-In\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-In: 2\r\napi-key: k\r\n\r\n";
    let mut client = site.client();
    client.send(request);
    let answer = client.answer();
    assert_eq!(
        (answer.body.as_slice(), answer.header("trailer").as_deref()),
        (&b"abc"[..], Some("X-Sum"))
    );
    let seen = site.process.only();
    assert_eq!(seen.header("trailer").as_deref(), Some("X-In"));
    assert!(
        seen.raw_body.ends_with(b"0\r\nX-In: 2\r\n\r\n"),
        "{:?}",
        String::from_utf8_lossy(&seen.raw_body)
    );
    let mut raw = site.client();
    raw.send(request.replace("Host: a", "Host: a\r\nConnection: close"));
    let (bytes, _) = raw.rest();
    assert!(
        bytes.ends_with(b"0\r\nX-Sum: 1\r\n\r\n"),
        "{:?}",
        String::from_utf8_lossy(&bytes)
    );
}

/// Server-sent events: what the user process has said is with the client before it says more.
#[test]
fn a_response_is_passed_on_as_it_comes() {
    let site = Site::open(Process::new(|_| {
        Reply::bytes("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            .then("data: 1\n\n")
            .then("data: 2\n\n")
            .every(Duration::from_millis(300))
            .closing()
    }));
    let mut client = site.client();
    let begun = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.patience(Duration::from_millis(500));
    let answer = client.answer();
    assert_eq!(answer.body, b"data: 1\n\ndata: 2\n\n");
    assert!(begun.elapsed() >= Duration::from_millis(600));
}

#[test]
fn a_large_body_streams_both_ways_unchanged() {
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let site = Site::open(Process::new(|_| Reply::ok("x")));
    let mut client = site.client();
    let length = body.len();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Type: application/zip\r\nContent-Length: {length}\r\n\r\n"));
    client.send(&body);
    assert_eq!(client.answer().status, 200);
    assert!(site.process.only().body == body, "the upload differs");
    let digits: String = (0..2_000_000_u32)
        .map(|n| char::from(b'0' + u8::try_from(n % 10).unwrap()))
        .collect();
    let expected = digits.clone();
    let site = Site::open(Process::new(move |_| Reply::ok(&digits)));
    let answer = site.client().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.body == expected.as_bytes(), "the download differs");
}
