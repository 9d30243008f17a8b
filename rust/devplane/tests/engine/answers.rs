//! Answers the data plane itself gives, logs, and the end.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use cloister_wire::logs::TransactionLog;
use serde_json::{Value, json};

use crate::client::End;
use crate::plane::{Changes, Site, wait_until};
use crate::process::{Process, Reply};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_user_process_that_is_not_there_is_a_502() {
    let mut process = Process::echo();
    // A port that was bound a moment ago and is bound no more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    process.address = gone.local_addr().unwrap();
    drop(gone);
    let site = Site::open(process);
    let mut client = site.client();
    for _ in 0..2 {
        let answer = client.ask(GET);
        assert_eq!(answer.status, 502);
        answer.message();
    }
}

#[test]
fn a_user_process_that_hangs_up_is_a_502() {
    let site = Site::open(Process::new(|_| Reply::silence().closing()));
    let answer = site
        .client()
        .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(answer.status, 502);
    answer.message();
}

#[test]
fn a_transaction_is_logged_with_secrets_masked() {
    let folder = std::env::temp_dir().join(format!("cloister-engine-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("trx.ndjson");
    let changes = Changes {
        logs: Some(path.clone()),
        ..Changes::default()
    };
    let site = Site::changed(Process::echo(), changes);
    let key = site.key().to_owned();
    let mut client = site.client();
    client.ask("GET /.well-known/attestation HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.ask("POST /a\u{1b}?token=s3cret HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        answer.status, 400,
        "control characters do not even reach the log"
    );
    let mut client = site.client();
    let answer = client.ask(format!(
        "POST /path?token=s3cret HTTP/1.1\r\nHost: a\r\nUser-Agent: test/1 \u{9b}31m\r\napi-key: {key}\r\nCookie: s3cret\r\nX-Private: s3cret\r\nX-Request-Id: r1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    ));
    assert_eq!(answer.status, 200);
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    wait_until("the log", || lines().contains("/path"));
    let text = lines();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(!text.contains("s3cret") && !text.contains(&key), "{text}");
    assert!(!text.contains("well-known"), "{text}");
    assert!(!text.contains(char::is_control) || text.matches(char::is_control).all(|c| c == "\n"));
    let line = text.lines().last().unwrap();
    serde_json::from_str::<TransactionLog>(line).expect("every field of a record");
    let log: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        log["txid"].as_str(),
        answer.header("x-evervault-ctx").as_deref()
    );
    for (field, expected) in [
        ("type", json!("enclave")),
        ("requestType", json!("HTTP")),
        ("requestMethod", json!("POST")),
        ("uri", json!("/path?***")),
        ("remoteIp", json!("127.0.0.1")),
        ("responseCode", json!(200)),
        ("statusGroup", json!("2XX")),
        ("contentType", json!("application/json")),
        ("bytesIn", json!(2)),
        ("nDecryptedFields", json!(0)),
    ] {
        assert_eq!(log[field], expected, "{field}: {log}");
    }
    let headers = &log["requestHeaders"];
    assert_eq!(
        (&headers["x-private"], &headers["x-request-id"]),
        (&json!("***"), &json!("r1"))
    );
    assert_eq!(
        (&headers["cookie"], &headers["api-key"]),
        (&json!("***"), &json!("***"))
    );
    assert!(log["elapsed"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_says_so() {
    let site = Site::open(Process::new(|request| {
        if request.line().contains("/slow") {
            Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl")
                .then("ow")
                .every(Duration::from_millis(400))
        } else {
            Reply::ok("x")
        }
    }));
    let (mut idle, mut busy) = (site.client(), site.client());
    assert_eq!(idle.ask(GET).header("connection"), None);
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    // Of two requests: an answer is there a moment before its request counts as over.
    wait_until("the request", || {
        let stats = site.plane.stats();
        (stats.requests, stats.active_requests) == (2, 1)
    });
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| site.plane.drain(Duration::from_secs(5)));
        assert_eq!(idle.rest(), (Vec::new(), End::Clean));
        let answer = busy.answer();
        assert_eq!(answer.body, b"slow");
        assert_eq!(busy.rest().1, End::Clean);
        drain.join().unwrap().unwrap();
    });
    assert!(
        std::net::TcpStream::connect(site.address()).is_err(),
        "nobody listens any more"
    );
}

/// A client that has just connected would take a close for a failure, and not every one asks again.
#[test]
fn a_drain_answers_the_first_request_of_who_has_connected_and_waits_for_it_briefly() {
    let site = Site::open(Process::echo());
    let (mut fresh, mut silent) = (site.client(), site.client());
    wait_until("the handshakes", || {
        site.plane.stats().active_connections == 2
    });
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let drain = scope.spawn(|| site.plane.drain(Duration::from_secs(30)));
        wait_until("the drain", || {
            std::net::TcpStream::connect(site.address()).is_err()
        });
        let answer = fresh.ask(GET);
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close".to_owned()))
        );
        assert_eq!(fresh.rest().1, End::Clean);
        assert_eq!(silent.rest(), (Vec::new(), End::Clean));
        drain.join().unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(15));
    });
}

/// The host that withholds a renewal gains fifteen minutes, here less, and no more.
#[test]
fn a_bundle_that_ended_is_a_503_and_a_new_one_is_the_end_of_that() {
    let changes = Changes {
        config: json!({ "api_key_auth": false }),
        bundle_life: Some(Duration::from_secs(2)),
        ..Changes::default()
    };
    let site = Site::changed(Process::echo(), changes);
    let mut client = site.client();
    assert_eq!(client.ask(GET).status, 200);
    site.plane.hold_back_bundles(true);
    wait_until("the end of the bundle", || client.ask(GET).status == 503);
    let answer = client.ask(GET);
    answer.message();
    assert!(answer.header("retry-after").is_some());
    let attested = client.ask("GET /.well-known/attestation HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(attested.status, 200, "who it is can be asked all the time");
    let before = site.process.seen().len();
    site.plane.hold_back_bundles(false);
    wait_until("the renewal", || client.ask(GET).status == 200);
    assert_eq!(site.process.seen().len(), before + 1);
}
