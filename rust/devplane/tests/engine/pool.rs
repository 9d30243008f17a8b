//! T-02: a response never reaches another client, whatever the user process sends.

use std::time::Duration;

use crate::client::End;
use crate::plane::Site;
use crate::process::{Process, Reply};

const GET: &str = "GET /one HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn t02_a_connection_is_used_again_after_a_response_that_ended() {
    for reply in [
        Reply::ok("x"),
        Reply::bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        Reply::bytes("HTTP/1.1 204 No Content\r\n\r\n"),
        Reply::bytes("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let site = Site::open(Process::new(move |_| reply.clone()));
        for _ in 0..3 {
            assert!(site.client().ask(GET).status < 300);
        }
        let connections: Vec<_> = site.process.seen().iter().map(|r| r.connection).collect();
        assert!(connections.len() == 3 && connections.iter().all(|c| *c == connections[0]));
    }
}

#[test]
fn t02_bytes_behind_a_response_are_nobodys() {
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for first in [
        Reply::ok("first").then(forged),
        Reply::bytes(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst{forged}"
        )),
        Reply::bytes(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n{forged}"
        )),
        Reply::bytes(format!(
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 47\r\n\r\n{forged}"
        )),
        Reply::bytes(format!("HTTP/1.1 204 No Content\r\n\r\n{forged}")),
    ] {
        let site = Site::open(Process::new(move |request| {
            if request.line().contains("/one") {
                first.clone()
            } else {
                Reply::ok("second")
            }
        }));
        let mut client = site.client();
        assert_ne!(client.ask(GET).body, b"forged");
        for mut next in [client, site.client()] {
            assert_eq!(
                next.ask("GET /two HTTP/1.1\r\nHost: a\r\n\r\n").body,
                b"second"
            );
        }
        let seen = site.process.seen();
        assert_ne!(
            seen[0].connection, seen[1].connection,
            "the connection was used again"
        );
    }
}

#[test]
fn t02_a_response_without_one_certain_end_is_a_502() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n",
        "HTTP/1.1 200 OK\nX: a\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/3 200 OK\r\n",
        "hello\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n",
    ] {
        let site = Site::open(Process::new(move |_| {
            Reply::bytes(format!("{head}\r\n5\r\nhello"))
        }));
        let answer = site.client().ask(GET);
        assert_eq!(answer.status, 502, "{head:?}");
        answer.message();
    }
}

#[test]
fn t02_a_response_that_breaks_off_is_not_taken_for_a_whole_one() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz",
    ] {
        let site = Site::open(Process::new(move |_| Reply::bytes(reply).closing()));
        let mut client = site.client();
        client.send(GET);
        client.try_answer().unwrap_err();
    }
}

/// The end of the connection is the only end that HTTP/1.0 sees, so it must not look meant.
#[test]
fn t02_an_old_client_can_tell_a_response_that_breaks_off() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let ask = |end: &str| {
        let reply = Reply::bytes(chunked)
            .then(end)
            .every(Duration::from_millis(50))
            .closing();
        let site = Site::open(Process::new(move |_| reply.clone()));
        let mut client = site.client();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let (bytes, end) = client.rest();
        assert!(bytes.ends_with(b"\r\n\r\nhello"), "{bytes:?}");
        end
    };
    assert_eq!(ask("0\r\n\r\n"), End::Clean);
    assert_eq!(ask("zz"), End::Cut);
    assert_eq!(ask(""), End::Cut);
}

/// The user process may close an idle connection at any time; the client must not notice.
#[test]
fn t02_a_stale_connection_is_replaced() {
    let site = Site::open(Process::new(|_| Reply::ok("x").closing()));
    let mut client = site.client();
    for _ in 0..5 {
        assert_eq!(client.ask(GET).status, 200);
    }
    assert_eq!(site.process.seen().len(), 5);
}

#[test]
fn t02_a_response_before_the_request_is_over_ends_both_connections() {
    let reply = Reply::bytes("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
    let reply = reply.before_body().closing();
    let site = Site::open(Process::new(move |_| reply.clone()));
    let mut client = site.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9000000\r\n\r\n",
    );
    client.send(vec![b'x'; 100_000]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.body), (413, b"big".to_vec()));
    assert_eq!(client.rest().1, End::Clean);
}

/// How many connections three requests took, one after the other, with a pause between them.
fn connections(limits: &serde_json::Value, pause: Duration) -> usize {
    let config = serde_json::json!({ "api_key_auth": false, "limits": limits });
    let site = Site::with(Process::echo(), config);
    for _ in 0..3 {
        assert_eq!(site.client().ask(GET).status, 200);
        std::thread::sleep(pause);
    }
    let seen = site.process.seen();
    let connections: std::collections::BTreeSet<_> = seen.iter().map(|r| r.connection).collect();
    connections.len()
}

#[test]
fn how_long_and_how_many_connections_are_kept_are_limits() {
    let short = Duration::from_millis(1);
    let pause = Duration::from_millis(150);
    assert_eq!(connections(&serde_json::json!({}), pause), 1);
    let idle = serde_json::json!({ "upstream_idle": 50 });
    assert_eq!(connections(&idle, pause), 3);
    let never = serde_json::json!({ "upstream_idle": 0 });
    assert_eq!(connections(&never, short), 3);
    let none = serde_json::json!({ "upstream_idle_connections": 0 });
    assert_eq!(connections(&none, short), 3);
}
