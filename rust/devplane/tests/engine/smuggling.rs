//! T-01: what two programs could read in two ways is refused, and the user process sees no byte of
//! it.

use serde_json::json;

use crate::client::End;
use crate::plane::{Site, wait_until};
use crate::process::Process;

/// Head lines between `Host` and the empty line, the body behind, and the status.
const REFUSED: &[(&str, &str, u16)] = &[
    (
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        400,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "0\r\n\r\n",
        400,
    ),
    ("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd", 400),
    ("Content-Length: 3, 3\r\n", "abc", 400),
    ("Content-Length: +3\r\n", "abc", 400),
    ("Content-Length: 0x3\r\n", "abc", 400),
    ("Content-Length: \r\n", "", 400),
    ("Content-Length: 99999999999999999999\r\n", "", 400),
    ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n", 400),
    ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", 400),
    ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n", 400),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "0\r\n\r\n",
        400,
    ),
    ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n", 400),
    ("Transfer-Encoding:\u{b}chunked\r\n", "0\r\n\r\n", 400),
    ("X: a\r\n b\r\n", "", 400),
    (" X: a\r\n", "", 400),
    ("X: a\n", "", 400),
    ("X: a\nContent-Length: 3\r\n", "abc", 400),
    ("X: a\rY: b\r\n", "", 400),
    ("X: a\0b\r\n", "", 400),
    ("X\u{7f}: a\r\n", "", 400),
    ("X\r\n", "", 400),
    (": a\r\n", "", 400),
    ("Host: other\r\n", "", 400),
    ("Expect: 200-ok\r\n", "", 417),
];

#[test]
fn t01_an_ambiguous_head_is_refused_and_forwarded_nowhere() {
    let site = Site::open(Process::echo());
    for (lines, body, status) in REFUSED {
        let mut client = site.client();
        client.send(format!("POST /bad HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status, *status, "{lines:?}");
        answer.message();
        assert_eq!(
            answer.header("connection").as_deref(),
            Some("close"),
            "{lines:?}"
        );
        assert_eq!(
            client.rest(),
            (Vec::new(), End::Clean),
            "{lines:?}: nothing behind it is answered"
        );
    }
    assert!(site.process.seen().is_empty(), "{:?}", site.process.seen());
    // The same request without the ambiguity passes.
    let answer = site
        .client()
        .ask("POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(
        (answer.status, answer.body),
        (200, b"POST /good HTTP/1.1".to_vec())
    );
    assert_eq!(site.process.only().body, b"abc");
}

#[test]
fn t01_a_request_line_is_judged_like_a_header() {
    let site = Site::open(Process::echo());
    for (line, status) in [
        ("GET /a b HTTP/1.1", 400),
        ("GET  /a HTTP/1.1", 400),
        ("GET\t/a HTTP/1.1", 400),
        ("GET /a\0 HTTP/1.1", 400),
        ("GET a HTTP/1.1", 400),
        ("G(T /a HTTP/1.1", 400),
        ("GET /a", 400),
        ("GET /a HTTP/1.1 ", 400),
        ("GET /a http/1.1", 400),
        ("GET /a HTTP/2.0", 505),
        ("GET /a HTTP/1.2", 505),
        ("CONNECT a:443 HTTP/1.1", 405),
        ("PRI * HTTP/2.0", 505),
    ] {
        let mut client = site.client();
        let answer = client.ask(format!("{line}\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, status, "{line:?}");
        answer.message();
        assert_eq!(client.rest().1, End::Clean);
    }
    assert!(site.process.seen().is_empty(), "{:?}", site.process.seen());
    assert_eq!(
        site.client()
            .ask("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            .status,
        200
    );
}

/// Some of the body is on its way when the fault is found: then the request must not look whole.
#[test]
fn t01_a_broken_chunk_leaves_the_user_process_an_unfinished_request() {
    let site = Site::open(Process::echo());
    for bad in [
        "x\r\n",
        "-1\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "1;\0\r\na\r\n0\r\n\r\n",
        "10000000000000000\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\n X: a\r\n\r\n",
    ] {
        let (before, received) = (site.process.seen().len(), site.process.received());
        let mut client = site.client();
        client.send("POST /bad HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        wait_until("the first chunk", || site.process.received() > received);
        client.send(bad);
        client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().status, 400, "{bad:?}");
        assert_eq!(client.rest(), (Vec::new(), End::Clean), "{bad:?}");
        wait_until("the aborted request", || site.process.seen().len() > before);
    }
    for request in site.process.seen() {
        assert!(
            !request.is_whole && request.line().starts_with("POST /bad"),
            "{request:?}"
        );
        assert!(request.raw_body == b"3\r\nabc\r\n", "{request:?}");
    }
    let good = "POST /good HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n00\r\nX-Sum: 1\r\n\r\n";
    assert_eq!(site.client().ask(good).status, 200);
    assert_eq!(site.process.seen().last().unwrap().body, b"abc");
}

#[test]
fn t01_bytes_behind_a_body_are_a_request_of_their_own() {
    let site = Site::with(Process::echo(), json!({ "api_key_auth": true }));
    let key = site.key();
    let mut client = site.client();
    client.send(format!(
        "POST /one HTTP/1.1\r\nHost: a\r\napi-key: {key}\r\nContent-Length: 3\r\n\r\nabc\
         GET /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
         POST /two HTTP/1.1\r\nHost: a\r\napi-key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    ));
    let statuses: Vec<_> = (0..4).map(|_| client.answer().status).collect();
    assert_eq!(statuses, [200, 401, 200, 401]);
    let lines: Vec<_> = site
        .process
        .seen()
        .iter()
        .map(|r| r.line().to_owned())
        .collect();
    assert_eq!(lines, ["POST /one HTTP/1.1", "POST /two HTTP/1.1"]);
}

#[test]
fn t01_bytes_that_are_not_http_are_a_400() {
    let site = Site::open(Process::echo());
    for bytes in [
        &b"\x16\x03\x01\x00\x05hello\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut client = site.client();
        client.send(bytes);
        assert_eq!(client.answer().status, 400, "{bytes:?}");
        assert_eq!(client.rest().1, End::Clean);
    }
    assert!(site.process.seen().is_empty());
}
