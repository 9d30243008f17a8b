//! WebSocket: which handshakes become a tunnel, what the tunnel does, and that nothing else opens one
//! (T-01, T-02, T-06).

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cloister_ciphertext::ValueType;
use cloister_wire::logs::TransactionLog;
use serde_json::{Value, json};

use crate::ciphertexts::token;
use crate::client::{Client, End};
use crate::plane::{Changes, Site, wait_until};
use crate::process::{Process, Reply, Tunnel};

/// The example of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const GET: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// A handshake with `lines` in place of its upgrade.
fn asking(lines: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: a\r\n{lines}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

fn handshake() -> String {
    asking(UPGRADE)
}

/// A process that answers a handshake with `reply` and leaves the connection to the test, and says
/// 200 to everything else.
fn process(reply: Reply) -> (Process, Receiver<Tunnel>) {
    let (sender, tunnels) = channel();
    let process = Process::new(move |request| {
        if request.line().contains("/next") {
            Reply::ok("next")
        } else {
            reply.clone().leaving_to(sender.clone())
        }
    });
    (process, tunnels)
}

/// An open tunnel, from both ends.
fn open(site: &Site, tunnels: &Receiver<Tunnel>) -> (Client, Tunnel) {
    let mut client = site.client();
    assert_eq!(client.ask(handshake()).status, 101);
    (client, next(tunnels))
}

fn next(tunnels: &Receiver<Tunnel>) -> Tunnel {
    let tunnel = tunnels.recv_timeout(Duration::from_secs(10)).unwrap();
    let patience = Some(Duration::from_secs(10));
    tunnel.stream.set_read_timeout(patience).unwrap();
    tunnel.stream.set_write_timeout(patience).unwrap();
    tunnel
}

impl Tunnel {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything until its end, which a reset is too.
    fn rest(mut self) -> Vec<u8> {
        let mut bytes = self.ahead;
        let _ended = self.stream.read_to_end(&mut bytes);
        bytes
    }
}

#[test]
fn a_handshake_becomes_a_tunnel_in_any_letter_case() {
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let site = Site::open(process);
    for lines in [
        UPGRADE,
        "UPGRADE: WebSocket\r\nconnection: UPGRADE\r\n",
        "upgrade:WEBSOCKET\r\nConnection: keep-alive, Upgrade\r\n",
        "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n",
    ] {
        let mut client = site.client();
        let answer = client.ask(asking(lines));
        assert_eq!(answer.status, 101, "{lines:?}");
        for (name, expected) in [("upgrade", "websocket"), ("connection", "Upgrade")] {
            assert_eq!(answer.header(name).as_deref(), Some(expected), "{lines:?}");
            let seen = site.process.seen().last().unwrap().header(name);
            assert_eq!(seen.as_deref(), Some(expected), "{lines:?}");
        }
        let mut tunnel = next(&tunnels);
        client.send("ping");
        assert_eq!(tunnel.bytes(4), b"ping");
        tunnel.stream.write_all(b"pong").unwrap();
        assert_eq!(client.bytes(4), b"pong");
    }
}

#[test]
fn a_handshake_passes_through_every_layer() {
    let reply = SWITCH.replace(
        "\r\n\r\n",
        "\r\nSec-WebSocket-Protocol: chat\r\nKeep-Alive: 5\r\nx-evervault-ctx: forged\r\n\r\n",
    );
    let (process, _tunnels) = process(Reply::bytes(reply));
    let site = Site::with(process, json!({}));
    let card = token(&site, "4242", ValueType::String);
    let lines = format!(
        "{UPGRADE}api-key: {}\r\nX-Card: {card}\r\nSec-WebSocket-Protocol: chat, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
        site.key()
    );
    let answer = site.client().ask(asking(&lines));
    assert_eq!(answer.status, 101);
    let seen = site.process.only();
    for (name, expected) in [
        ("x-card", Some("4242")),
        ("api-key", None),
        ("sec-websocket-key", Some(KEY)),
        ("sec-websocket-version", Some("13")),
        ("sec-websocket-protocol", Some("chat, b")),
        ("sec-websocket-extensions", Some("permessage-deflate")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(seen.header(name).as_deref(), expected, "{name}");
    }
    assert_eq!(seen.line(), "GET /chat HTTP/1.1");
    let id = answer.header("x-evervault-ctx").unwrap();
    assert_eq!((id.len(), seen.header("x-evervault-ctx")), (32, Some(id)));
    let accept = answer.header("sec-websocket-accept");
    assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let protocol = answer.header("sec-websocket-protocol");
    assert_eq!(protocol.as_deref(), Some("chat"));
    assert_eq!(answer.header("keep-alive"), None);
    assert_eq!(answer.header("transfer-encoding"), None);
}

#[test]
fn t06_the_key_is_asked_for_before_the_tunnel() {
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let site = Site::with(process, json!({}));
    let mut client = site.client();
    for (lines, message) in [
        ("", "No api-key header present on request"),
        ("api-key: ck_no\r\n", "Invalid api key provided"),
    ] {
        let answer = client.ask(asking(&format!("{UPGRADE}{lines}")));
        assert_eq!((answer.status, answer.message().as_str()), (401, message));
        assert_eq!(answer.header("upgrade"), None);
    }
    assert!(site.process.seen().is_empty());
    let lines = format!("{UPGRADE}api-key: {}\r\n", site.key());
    assert_eq!(client.ask(asking(&lines)).status, 101);
    client.send("in");
    assert_eq!(next(&tunnels).bytes(2), b"in");
}

/// A handshake that is not whole could be read as one by the next program and not by this one.
#[test]
fn t01_a_handshake_that_is_not_whole_is_refused_and_forwarded_nowhere() {
    let (process, _tunnels) = process(Reply::bytes(SWITCH));
    let site = Site::open(process);
    let good = handshake();
    for (from, to) in [
        ("GET", "POST"),
        ("GET", "HEAD"),
        ("Host", "Content-Length: 3\r\nHost"),
        ("Host", "Transfer-Encoding: chunked\r\nHost"),
        ("Host", "Upgrade: websocket\r\nHost"),
        ("Upgrade: websocket", "Upgrade: websocket, WebSocket"),
        ("Version: 13", "Version: 8"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        (KEY, "SGVsbG8sIHdvcmxkIQ=="),
        (KEY, ""),
        ("Sec-WebSocket-Key", "X-Key"),
        (
            "Host",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nHost",
        ),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        let mut client = site.client();
        client.send(format!("{bad}{GET}"));
        let answer = if to == "HEAD" {
            client.answer_to_head()
        } else {
            let answer = client.answer();
            answer.message();
            answer
        };
        assert_eq!(answer.status, 400, "{bad}");
        assert_eq!(answer.header("connection").as_deref(), Some("close"));
        let version = from.contains("Version") || to.contains("Version");
        let said = answer.header("sec-websocket-version");
        assert_eq!(said.as_deref(), version.then_some("13"), "{bad}");
        assert_eq!(client.rest(), (Vec::new(), End::Clean), "{bad}");
    }
    assert!(site.process.seen().is_empty(), "{:?}", site.process.seen());
    assert_eq!(site.client().ask(good).status, 101);
}

/// They are for this connection alone, so the user process never hears of them, and what follows is
/// HTTP.
#[test]
fn t01_an_upgrade_to_anything_else_is_dropped() {
    let site = Site::open(Process::echo());
    let settings = "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let whole = asking(UPGRADE);
    for request in [
        asking(settings),
        asking("Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n"),
        asking("Upgrade: websocket/13\r\nConnection: Upgrade\r\n"),
        asking("Upgrade: websocket\r\n"),
        asking("Upgrade: websocket\r\nConnection: keep-alive\r\n"),
        asking("Connection: Upgrade\r\n"),
        whole
            .replace("HTTP/1.1", "HTTP/1.0")
            .replace("Connection: ", "Connection: keep-alive, "),
    ] {
        let before = site.process.seen().len();
        let mut client = site.client();
        client.send(format!("{request}{GET}"));
        assert_eq!(client.answer().body, b"GET /chat HTTP/1.1", "{request}");
        assert_eq!(client.answer().body, b"GET /next HTTP/1.1", "{request}");
        let seen = site.process.seen().split_off(before);
        assert_eq!(seen.len(), 2, "{request}");
        for absent in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(seen[0].header(absent), None, "{}", seen[0].head);
        }
    }
}

/// The classic way around a proxy: it believes in a tunnel that the user process refused.
#[test]
fn t01_what_follows_a_refused_handshake_is_judged_as_a_request() {
    for reply in [
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ] {
        let (sender, tunnels) = channel();
        let process = Process::new(move |request| {
            if request.line().contains("/chat") {
                Reply::bytes(reply).leaving_to(sender.clone())
            } else {
                Reply::ok(request.line())
            }
        });
        let site = Site::with(process, json!({}));
        let key = format!("api-key: {}\r\n", site.key());
        let mut client = site.client();
        let ask = asking(&format!("{UPGRADE}{key}"));
        let good = GET.replace("\r\n\r\n", &format!("\r\n{key}\r\n"));
        client.send(format!("{ask}{GET}{good}\u{1}\u{2}frame\r\n\r\n"));
        let refused = client.answer();
        let upgrade = refused.header("upgrade");
        assert_eq!((refused.body.as_slice(), upgrade), (&b"no"[..], None));
        assert_eq!(client.answer().status, 401, "{reply}");
        assert_eq!(client.answer().body, b"GET /next HTTP/1.1");
        assert_eq!(client.answer().status, 400);
        assert_eq!(client.rest(), (Vec::new(), End::Clean));
        let seen = site.process.seen();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert_ne!(seen[0].connection, seen[1].connection, "used again");
        assert_eq!(next(&tunnels).rest(), b"", "{reply}");
    }
}

#[test]
fn t01_early_bytes_wait_for_the_switch() {
    let late = Reply::bytes("")
        .then(SWITCH)
        .every(Duration::from_millis(200));
    let (process, tunnels) = process(late);
    let site = Site::open(process);
    let mut client = site.client();
    let early = "x".repeat(30_000);
    client.send(format!("{}{early}", handshake()));
    assert_eq!(client.answer().status, 101);
    let mut tunnel = next(&tunnels);
    assert_eq!((tunnel.ahead.len(), site.process.received()), (0, 0));
    assert_eq!(tunnel.bytes(early.len()), early.as_bytes());
    client.send("late");
    assert_eq!(tunnel.bytes(4), b"late");
}

/// A 101 hides everything behind it from every check, so it must be the one that was asked for.
#[test]
fn t02_a_101_that_does_not_belong_is_a_502_and_closes() {
    let frames = "\u{1}secret of another";
    let unasked = "GET /chat HTTP/1.1\r\nHost: a\r\n\r\n";
    for (ask, from, to) in [
        (unasked, "101", "101"),
        (
            "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            "websocket",
            "h2c",
        ),
        ("", "s3pP", "S3pP"),
        ("", "Sec-WebSocket-Accept", "X-Accept"),
        ("", "Upgrade: websocket\r\n", ""),
        ("", "Upgrade: websocket", "Upgrade: h2c"),
        ("", "Connection: Upgrade\r\n", ""),
        ("", "HTTP/1.1", "HTTP/1.0"),
        ("", "Connection", "Content-Length: 5\r\nConnection"),
        ("", "Connection", "Transfer-Encoding: chunked\r\nConnection"),
        ("", "Connection", "Connection : x\r\nConnection"),
    ] {
        let reply = format!("{}{frames}", SWITCH.replacen(from, to, 1));
        let (process, tunnels) = process(Reply::bytes(reply));
        let site = Site::open(process);
        let mut client = site.client();
        let whole = handshake();
        let ask = if ask.is_empty() { &whole } else { ask };
        client.send(format!("{ask}{GET}"));
        let answer = client.answer();
        assert_eq!(answer.status, 502, "{ask} {to}");
        answer.message();
        assert_eq!(client.rest(), (Vec::new(), End::Clean), "{to}");
        assert_eq!(next(&tunnels).rest(), b"", "{to}: early bytes went on");
        assert_eq!(site.process.seen().len(), 1, "{to}");
    }
    let (process, _tunnels) = process(Reply::bytes(format!("{SWITCH}{frames}")));
    let site = Site::open(process);
    let mut client = site.client();
    assert_eq!(client.ask(handshake()).status, 101);
    assert_eq!(client.bytes(frames.len()), frames.as_bytes());
}

/// Also when both sides ended in order, and although the process would answer on it.
#[test]
fn t02_the_connection_of_a_tunnel_is_nobody_elses() {
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let site = Site::open(process);
    assert_eq!(site.client().ask(GET).status, 200);
    let (mut client, tunnel) = open(&site, &tunnels);
    client.finish();
    assert_eq!(tunnel.rest(), b"");
    assert_eq!(client.rest(), (Vec::new(), End::Clean));
    assert_eq!(site.client().ask(GET).status, 200);
    let connections: Vec<_> = site.process.seen().iter().map(|r| r.connection).collect();
    assert_eq!(connections.len(), 3);
    assert_ne!(connections[1], connections[2]);
}

#[test]
fn a_side_that_ends_still_hears_the_other() {
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let site = Site::open(process);
    let (mut client, mut tunnel) = open(&site, &tunnels);
    client.send("last words");
    client.finish();
    let mut heard = Vec::new();
    tunnel.stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"last words");
    for part in 0..3 {
        tunnel.stream.write_all(&[part; 1000]).unwrap();
        assert_eq!(client.bytes(1000), [part; 1000]);
    }
    drop(tunnel);
    assert_eq!(client.rest(), (Vec::new(), End::Clean));

    let (mut client, mut tunnel) = open(&site, &tunnels);
    tunnel.stream.write_all(b"bye").unwrap();
    tunnel.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (b"bye".to_vec(), End::Clean));
    client.send("heard");
    assert_eq!(tunnel.bytes(5), b"heard");
    drop(client);
    assert_eq!(tunnel.rest(), b"");
    wait_until("the end", || site.plane.stats().active_websockets == 0);
}

/// An end without close-notify may be anybody's: then nothing of it looks meant.
#[test]
fn a_side_that_breaks_off_ends_both() {
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let site = Site::open(process);
    let (client, tunnel) = open(&site, &tunnels);
    drop(client);
    assert_eq!(tunnel.rest(), b"");

    let (mut client, mut tunnel) = open(&site, &tunnels);
    client.send(vec![b'x'; 100_000]);
    tunnel.bytes(1);
    // Closed with bytes unread: a reset.
    drop(tunnel);
    assert_eq!(client.rest(), (Vec::new(), End::Cut));
    wait_until("the end", || site.plane.stats().active_websockets == 0);
}

#[test]
fn bytes_are_not_touched_and_who_sends_too_fast_waits() {
    let total = 64 << 20;
    let pattern = |at: usize| u8::try_from(at % 251).unwrap();
    let body: Arc<Vec<u8>> = Arc::new((0..total).map(pattern).collect());
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let site = Site::open(process);

    let (mut client, mut tunnel) = open(&site, &tunnels);
    let sent = Arc::new(AtomicUsize::new(0));
    let (all, count) = (Arc::clone(&body), Arc::clone(&sent));
    let sender = std::thread::spawn(move || {
        for part in all.chunks(1 << 16) {
            client.send(part);
            count.fetch_add(part.len(), Ordering::Relaxed);
        }
        client
    });
    let before_reading = settled(&sent);
    assert!(
        before_reading < total,
        "the whole was taken while nobody read"
    );
    assert!(tunnel.bytes(total) == *body, "the upload differs");
    let mut client = sender.join().unwrap();

    let written = Arc::new(AtomicUsize::new(0));
    let (all, count) = (Arc::clone(&body), Arc::clone(&written));
    let sender = std::thread::spawn(move || {
        for part in all.chunks(1 << 16) {
            tunnel.stream.write_all(part).unwrap();
            count.fetch_add(part.len(), Ordering::Relaxed);
        }
    });
    assert!(settled(&written) < total, "taken while nobody read");
    assert!(client.bytes(total) == *body, "the download differs");
    sender.join().unwrap();
}

/// The count once it has not grown for a while.
fn settled(count: &AtomicUsize) -> usize {
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        let value = count.load(Ordering::Relaxed);
        if value != last {
            (last, since) = (value, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    last
}

/// No limit of requests is one of a session: it may be quiet for as long as it likes.
#[test]
fn a_quiet_tunnel_stays_open_unless_a_limit_is_set() {
    let quick = json!({ "keepalive_idle": 150, "body_idle": 150, "head_timeout": 150, "upstream_response": 150 });
    let limited = |limits: Value| {
        let (process, tunnels) = process(Reply::bytes(SWITCH));
        let config = json!({ "api_key_auth": false, "limits": limits });
        (Site::with(process, config), tunnels)
    };
    let (site, tunnels) = limited(quick);
    let (mut client, mut tunnel) = open(&site, &tunnels);
    std::thread::sleep(Duration::from_millis(1200));
    client.send("still");
    assert_eq!(tunnel.bytes(5), b"still");
    // A side that has ended waits for the other no longer than for a body.
    client.finish();
    assert_eq!(client.rest(), (Vec::new(), End::Clean));
    assert_eq!(tunnel.rest(), b"");

    let (site, tunnels) = limited(json!({ "tunnel_idle": 400 }));
    let (mut client, mut tunnel) = open(&site, &tunnels);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(150));
        tunnel.stream.write_all(b"x").unwrap();
        assert_eq!(client.bytes(1), b"x");
    }
    let begun = Instant::now();
    assert_eq!(client.rest(), (Vec::new(), End::Clean));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(tunnel.rest(), b"");
}

#[test]
fn t03_a_side_that_takes_nothing_is_cut_off() {
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let config = json!({ "api_key_auth": false, "limits": { "body_idle": 300 } });
    let site = Site::with(process, config);
    let (client, mut tunnel) = open(&site, &tunnels);
    let part = vec![b'x'; 1 << 20];
    let begun = Instant::now();
    let is_cut = (0..128).any(|_| tunnel.stream.write_all(&part).is_err());
    assert!(is_cut, "128 MiB were taken from it");
    assert!(begun.elapsed() < Duration::from_secs(9), "not cut off");
    drop(client);
}

#[test]
fn a_session_is_one_record_written_when_it_ends() {
    let folder = std::env::temp_dir().join(format!("cloister-websocket-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("trx.ndjson");
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let changes = Changes {
        config: json!({ "api_key_auth": false }),
        logs: Some(path.clone()),
        ..Changes::default()
    };
    let site = Site::changed(process, changes);
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    let (mut client, mut tunnel) = open(&site, &tunnels);
    client.send("12345");
    assert_eq!(tunnel.bytes(5), b"12345");
    tunnel.stream.write_all(&[b'x'; 1000]).unwrap();
    client.bytes(1000);
    let stats = site.plane.stats();
    assert_eq!((stats.websockets, stats.active_websockets), (1, 1));
    // Records of other requests arrive while the session has none.
    assert_eq!(site.client().ask(GET).status, 200);
    let mut bad = site.client();
    assert_eq!(bad.ask(handshake().replace("13", "8")).status, 400);
    wait_until("the others", || text().lines().count() == 2);
    assert!(
        text()
            .lines()
            .all(|line| line.contains("\"requestType\":\"HTTP\""))
    );
    drop(tunnel);
    client.finish();
    client.rest();
    wait_until("the record", || text().lines().count() == 3);
    let line = text().lines().last().unwrap().to_owned();
    // One that is broken off at the end of a drain has a record too.
    let (mut client, tunnel) = open(&site, &tunnels);
    client.send("1234567");
    wait_until("the bytes", || {
        tunnel.stream.peek(&mut [0; 16]).unwrap() == 7
    });
    site.plane.drain(Duration::from_millis(100)).unwrap();
    wait_until("the last record", || text().lines().count() == 4);
    let last: Value = serde_json::from_str(text().lines().last().unwrap()).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    for (field, expected) in [("requestType", json!("Websocket")), ("bytesIn", json!(7))] {
        assert_eq!(last[field], expected, "{last}");
    }
    serde_json::from_str::<TransactionLog>(&line).expect("every field of a record");
    let log: Value = serde_json::from_str(&line).unwrap();
    for (field, expected) in [
        ("requestType", json!("Websocket")),
        ("requestMethod", json!("GET")),
        ("uri", json!("/chat")),
        ("responseCode", json!(101)),
        ("statusGroup", json!("1XX")),
        ("bytesIn", json!(5)),
    ] {
        assert_eq!(log[field], expected, "{field}: {log}");
    }
    assert_eq!(
        log["responseHeaders"]["upgrade"],
        json!("websocket"),
        "{log}"
    );
    // The head of the answer is counted, as it is for every request.
    let sent = log["bytesOut"].as_u64().unwrap();
    assert!((1000 + SWITCH.len() as u64..1400).contains(&sent), "{log}");
    assert!(log["elapsed"].as_f64().unwrap() > 0.0);
}

/// A drain waits for it, as for a request, and closes it when its time is over.
#[test]
fn a_drain_closes_what_is_left_when_its_time_is_over() {
    let (process, tunnels) = process(Reply::bytes(SWITCH));
    let site = Site::open(process);
    let (mut client, mut tunnel) = open(&site, &tunnels);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| site.plane.drain(Duration::from_millis(700)));
        std::thread::sleep(Duration::from_millis(200));
        client.send("during");
        assert_eq!(tunnel.bytes(6), b"during");
        drain.join().unwrap().unwrap();
    });
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}");
    assert_ne!(client.rest().1, End::Open);
    assert_eq!(tunnel.rest(), b"");

    // One that ends lets the drain end.
    let (process, tunnels) = self::process(Reply::bytes(SWITCH));
    let site = Site::open(process);
    let (mut client, tunnel) = open(&site, &tunnels);
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| site.plane.drain(Duration::from_secs(60)));
        drop(tunnel);
        client.finish();
        assert_eq!(client.rest(), (Vec::new(), End::Clean));
        drain.join().unwrap().unwrap();
    });
}
