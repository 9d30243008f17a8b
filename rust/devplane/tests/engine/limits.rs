//! T-03: what is too long, too much or too slow has an end and a status of its own, and costs other
//! clients nothing.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::End;
use crate::plane::{Site, wait_until};
use crate::process::{Process, Reply};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn limited(process: Process, limits: &serde_json::Value) -> Site {
    Site::with(process, json!({ "api_key_auth": false, "limits": limits }))
}

#[test]
fn t03_a_head_has_limits() {
    let limits = json!({ "head": 4096, "headers": 10, "target": 1000 });
    let site = limited(Process::echo(), &limits);
    let headers = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "a: b\r\n".repeat(count)
        )
    };
    let target = |length: usize| {
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "x".repeat(length - 1)
        )
    };
    let value = |length: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(length)
        )
    };
    for (head, status) in [
        (headers(9), 200),
        (headers(10), 431),
        (target(1000), 200),
        (target(1001), 414),
        (value(4000), 200),
        (value(4096), 431),
    ] {
        let mut client = site.client();
        assert_eq!(client.ask(&head).status, status, "{} bytes", head.len());
    }
    assert_eq!(site.process.seen().len(), 3);
    // A head without an end is refused when its limit is reached, not when the client tires.
    let mut client = site.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    for _ in 0..50 {
        if !client.try_send(&[b'x'; 100]) {
            break;
        }
    }
    assert_eq!(client.answer().status, 431);
}

#[test]
fn t03_a_body_over_its_limit_is_refused() {
    let site = limited(Process::echo(), &json!({ "max_body": 1000 }));
    let post = |extra: &str, body: &str| {
        let mut client = site.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n{extra}\r\n{body}"
        ));
        client.answer().status
    };
    let length = |length: usize| {
        post(
            &format!("Content-Length: {length}\r\n"),
            &"x".repeat(length),
        )
    };
    assert_eq!((length(1000), length(1001)), (200, 413));
    let chunked = |length: usize| {
        let body = format!("{length:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(length));
        post("Transfer-Encoding: chunked\r\n", &body)
    };
    assert_eq!((chunked(1000), chunked(1001)), (200, 413));
    let whole: Vec<_> = site
        .process
        .seen()
        .into_iter()
        .filter(|r| r.is_whole)
        .collect();
    assert_eq!(whole.len(), 2);
}

#[test]
fn t03_a_slow_client_is_told_and_closed() {
    let site = limited(
        Process::echo(),
        &json!({ "head_timeout": 200, "body_idle": 200 }),
    );
    let mut slow_head = site.client();
    slow_head.send("GET / HTTP/1.1\r\n");
    let mut trickle = site.client();
    let mut slow_body = site.client();
    slow_body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let mut slow_chunks = site.client();
    slow_chunks.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    // Bytes that keep coming do not prolong the time for a head.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(150) {
        trickle.send("X");
        std::thread::sleep(Duration::from_millis(20));
    }
    for client in [
        &mut slow_head,
        &mut trickle,
        &mut slow_body,
        &mut slow_chunks,
    ] {
        let answer = client.answer();
        assert_eq!(answer.status, 408);
        answer.message();
        assert_eq!(client.rest().1, End::Clean);
    }
    assert!(site.process.seen().iter().all(|request| !request.is_whole));
    // A pause that is shorter is none.
    let mut client = site.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client.ask("b").status, 200);
}

#[test]
fn t03_an_idle_connection_is_closed_without_an_answer() {
    let site = limited(Process::echo(), &json!({ "keepalive_idle": 150 }));
    let mut client = site.client();
    assert_eq!(client.ask(GET).status, 200);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client.ask(GET).status, 200);
    assert_eq!(client.rest(), (Vec::new(), End::Clean));
}

/// A client that asks for much and reads nothing is cut off; the next one is served meanwhile.
#[test]
fn t03_a_client_that_does_not_read_is_cut_off() {
    let big = vec![b'x'; 32 << 20];
    let process = Process::new(move |request| {
        if request.line().contains("/big") {
            Reply::ok(&big)
        } else {
            Reply::ok("x")
        }
    });
    let site = limited(process, &json!({ "body_idle": 300 }));
    let mut greedy = site.client();
    greedy.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let begun = Instant::now();
    assert_eq!(site.client().ask(GET).status, 200);
    assert!(
        begun.elapsed() < Duration::from_millis(250),
        "{:?}",
        begun.elapsed()
    );
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(site.plane.stats().active_requests, 0);
    greedy.try_answer().unwrap_err();
}

#[test]
fn t03_a_user_process_has_limits_too() {
    let process = Process::new(|request| match request.line() {
        line if line.contains("/silent") => Reply::silence(),
        line if line.contains("/half") => Reply::bytes("HTTP/1.1 200 OK\r\n"),
        line if line.contains("/head") => Reply::bytes(format!(
            "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
            "x".repeat(5000)
        )),
        _ => Reply::ok("x"),
    });
    let site = limited(process, &json!({ "upstream_response": 200, "head": 4096 }));
    for (path, status) in [("silent", 504), ("half", 504), ("head", 502)] {
        let answer = site
            .client()
            .ask(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, status, "{path}");
        answer.message();
    }
    assert_eq!(site.client().ask(GET).status, 200);
}

/// What a body has besides its bytes, and what comes before a response, is bounded by settings of
/// their own: at the bound it passes, one more is refused.
#[test]
fn t03_extensions_trailers_and_interim_responses_have_limits() {
    let process = Process::new(|request| match request.line().split(['/', ' ']).nth(2) {
        Some("") | None => Reply::ok("x"),
        Some(count) => Reply::bytes(format!(
            "{}HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            "HTTP/1.1 102 Processing\r\n\r\n".repeat(count.parse().unwrap())
        )),
    });
    let limits = json!({ "chunk_extension": 3, "trailers": 20, "interim_responses": 2 });
    let site = limited(process, &limits);
    let chunked = |extension: &str, trailers: &str| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request = format!("{head}1{extension}\r\nx\r\n0\r\n{trailers}\r\n");
        site.client().ask(request).status
    };
    assert_eq!((chunked(";a=b", ""), chunked(";a=bc", "")), (200, 400));
    assert_eq!(
        (
            chunked("", "a: 0123456789\r\n"),
            chunked("", "a: 0123456789abcdef\r\n")
        ),
        (200, 400)
    );
    for (count, last) in [(2, 200), (3, 502)] {
        let mut client = site.client();
        client.send(format!("GET /{count} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answers = std::iter::repeat_with(|| client.answer().status);
        let interim = answers.take_while(|status| *status == 102).count();
        assert_eq!(interim, 2, "of {count}");
        let answer = site
            .client()
            .ask(format!("GET /{count} HTTP/1.0\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, last, "of {count}");
    }
}

/// The last answer says that it is the last, so that no client sends one request too many.
#[test]
fn the_requests_of_a_connection_are_bounded_when_asked_for() {
    let site = limited(Process::echo(), &json!({ "keepalive_requests": 3 }));
    for _ in 0..2 {
        let mut client = site.client();
        for last in [false, false, true] {
            let answer = client.ask(GET);
            assert_eq!(answer.status, 200);
            let closes = answer.header("connection").as_deref() == Some("close");
            assert_eq!(closes, last, "{answer:?}");
        }
        assert_eq!(client.rest(), (Vec::new(), End::Clean));
    }
    // Requests that came ahead of their time are not answered, and not seen.
    let mut eager = site.client();
    eager.send(GET.repeat(5));
    for _ in 0..3 {
        assert_eq!(eager.answer().status, 200);
    }
    assert_eq!(eager.rest(), (Vec::new(), End::Clean));
    assert_eq!(site.process.seen().len(), 9);
}

/// A client that goes on sending gets its answer; for how long it is read is a limit.
#[test]
fn a_closed_connection_is_read_for_as_long_as_it_may_linger() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n";
    for linger in [100, 600] {
        let limits = json!({ "linger": linger, "max_body": 10 });
        let site = limited(Process::echo(), &limits);
        let mut client = site.client();
        assert_eq!(client.ask(head).status, 413);
        let begun = Instant::now();
        wait_until("the end", || site.plane.stats().active_connections == 0);
        let took = begun.elapsed().as_millis();
        assert!(
            (linger - 60..linger + 400).contains(&took),
            "{linger}: {took}"
        );
    }
}
