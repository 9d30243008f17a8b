//! `[service] protocol = "tcp"`: ends, limits and records of sessions. Real clients and servers are in
//! `tests/integration/test_tcp_service.py`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cloister_devplane::{DevError, DevPlane};
use cloister_wire::logs::TransactionLog;
use serde_json::{Value, json};

use crate::client::{Client, End};
use crate::plane::{Changes, start, wait_until};

/// A data plane in front of a socket that the test accepts from.
pub(crate) struct Raw {
    pub(crate) plane: DevPlane,
    pub(crate) process: TcpListener,
}

impl Raw {
    fn open(limits: Value) -> Self {
        let mut config = json!({});
        config["limits"] = limits;
        Self::changed(Changes {
            config,
            ..Changes::default()
        })
    }

    fn changed(mut changes: Changes) -> Self {
        changes.config["api_key_auth"] = false.into();
        changes.config["service"] = json!({ "protocol": "tcp" });
        Self::started(changes).unwrap()
    }

    pub(crate) fn started(changes: Changes) -> Result<Self, DevError> {
        let process = TcpListener::bind("127.0.0.1:0").unwrap();
        let plane = start(process.local_addr().unwrap(), changes)?;
        Ok(Self { plane, process })
    }

    pub(crate) fn accept(&self) -> TcpStream {
        loop {
            let (stream, _) = self.process.accept().unwrap();
            let patience = Some(Duration::from_secs(10));
            stream.set_read_timeout(patience).unwrap();
            stream.set_write_timeout(patience).unwrap();
            // The data plane asks every second whether something listens, and says nothing.
            if !matches!(stream.peek(&mut [0]), Ok(0)) {
                return stream;
            }
        }
    }

    /// A session, from both ends; its first byte went through.
    fn session(&self) -> (Client, TcpStream) {
        let mut client = Client::to(&self.plane, b"", &[]);
        client.send("!");
        let mut process = self.accept();
        assert_eq!(bytes(&mut process, 1), b"!");
        (client, process)
    }
}

pub(crate) fn bytes(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// What comes until the end, and the error it was, if it was one.
pub(crate) fn rest(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    (bytes, ended.err().map(|error| error.kind()))
}

/// Makes the close that follows a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

#[test]
fn each_side_may_end_first_and_go_on_reading() {
    let raw = Raw::open(Value::Null);
    let (mut client, mut process) = raw.session();
    client.finish();
    assert_eq!(rest(&mut process), (Vec::new(), None));
    process.write_all(b"after the end").unwrap();
    drop(process);
    assert_eq!(client.rest(), (b"after the end".to_vec(), End::Clean));

    let (mut client, mut process) = raw.session();
    process.write_all(b"bye").unwrap();
    process.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (b"bye".to_vec(), End::Clean));
    client.send("more");
    assert_eq!(bytes(&mut process, 4), b"more");
    client.finish();
    assert_eq!(rest(&mut process), (Vec::new(), None));
}

/// Anybody on the way can end a TCP connection. What was cut off must not look whole to the
/// application; the twin with a close-notify is above.
#[test]
fn a_client_that_is_cut_off_is_a_reset_to_the_process() {
    let raw = Raw::open(Value::Null);
    let (mut client, mut process) = raw.session();
    client.send("half a mess");
    assert_eq!(bytes(&mut process, 11), b"half a mess");
    drop(client);
    let reset = Some(ErrorKind::ConnectionReset);
    assert_eq!(rest(&mut process), (Vec::new(), reset));
}

#[test]
fn a_process_that_breaks_off_is_no_clean_end_to_the_client() {
    let raw = Raw::open(Value::Null);
    let (mut client, mut process) = raw.session();
    process.write_all(b"half an answ").unwrap();
    assert_eq!(client.bytes(12), b"half an answ");
    reset(process);
    assert_eq!(client.rest(), (Vec::new(), End::Cut));
}

/// A process may answer and be done while the client still sends.
#[test]
fn an_early_answer_arrives_whole_although_the_client_goes_on_sending() {
    let raw = Raw::open(Value::Null);
    let (mut client, mut process) = raw.session();
    // What is on its way when the reset comes would be lost: so much is not.
    let answer = vec![b'a'; 30_000];
    process.write_all(&answer).unwrap();
    process.shutdown(Shutdown::Both).unwrap();
    client.try_send(&vec![b'x'; 100_000]);
    let (got, end) = client.rest();
    assert!(got == answer, "{} bytes", got.len());
    assert_ne!(end, End::Open);
}

#[test]
fn without_a_process_or_a_bundle_a_session_is_closed_without_a_clean_end() {
    let Raw { plane, process } = Raw::open(Value::Null);
    drop(process);
    let mut client = Client::to(&plane, b"", &[]);
    assert_eq!(client.rest(), (Vec::new(), End::Cut));
    wait_until("the count", || plane.stats().active_sessions == 0);
    assert_eq!((plane.stats().sessions, plane.stats().refused), (1, 1));

    let raw = Raw::changed(Changes {
        config: json!({}),
        bundle_life: Some(Duration::from_secs(2)),
        ..Changes::default()
    });
    let (mut client, mut process) = raw.session();
    raw.plane.hold_back_bundles(true);
    wait_until("the end of the bundle", || {
        let mut late = Client::to(&raw.plane, b"", &[]);
        late.patience(Duration::from_millis(50));
        late.rest().1 == End::Cut
    });
    // What was let in before goes on.
    client.send("still");
    assert_eq!(bytes(&mut process, 5), b"still");
}

/// A handshake is not refused for what it offers: it is the process that knows its protocol.
#[test]
fn any_offer_of_protocols_is_agreed_to_with_none() {
    let raw = Raw::open(Value::Null);
    let offers: [&[&[u8]]; 3] = [&[], &[b"h2", b"http/1.1"], &[b"postgresql"]];
    for offer in offers {
        let mut client = Client::to(&raw.plane, b"", offer);
        assert_eq!(client.agreed(), None);
        client.send("GET / HTTP/1.1\r\nno: header\nof HTTP\r\n\0");
        let mut process = raw.accept();
        let got = bytes(&mut process, 37);
        assert_eq!(got, b"GET / HTTP/1.1\r\nno: header\nof HTTP\r\n\0");
    }
}

/// No key can be asked for, and the enclave does not start as if one were.
#[test]
fn t06_an_api_key_that_could_not_be_asked_for_refuses_the_start() {
    let with_keys = |keys: bool| {
        let config = json!({ "api_key_auth": keys, "service": { "protocol": "tcp" } });
        Raw::started(Changes {
            config,
            ..Changes::default()
        })
    };
    let error = with_keys(true).err().unwrap().to_string();
    assert!(error.contains("api_key_auth"), "{error}");
    with_keys(false).unwrap();
}

#[test]
fn t03_a_side_that_takes_nothing_is_waited_for_and_then_cut_off() {
    let raw = Raw::open(json!({ "body_idle": 700 }));
    let (client, mut process) = raw.session();
    let part = vec![b'x'; 1 << 20];
    let (begun, mut taken) = (Instant::now(), 0);
    while process.write_all(&part).is_ok() {
        taken += 1;
        assert!(taken < 64, "64 MiB were taken from it");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}");
    assert!(took < Duration::from_secs(9), "not cut off");
    drop(client);
}

#[test]
fn a_quiet_session_stays_open_unless_a_limit_is_set() {
    let quick = json!({ "keepalive_idle": 150, "body_idle": 150, "head_timeout": 150 });
    let raw = Raw::open(quick);
    let (mut client, mut process) = raw.session();
    std::thread::sleep(Duration::from_millis(1200));
    process.write_all(b"still").unwrap();
    assert_eq!(client.bytes(5), b"still");

    let raw = Raw::open(json!({ "tunnel_idle": 300 }));
    let (mut client, mut process) = raw.session();
    let begun = Instant::now();
    assert_eq!(client.rest(), (Vec::new(), End::Clean));
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert_eq!(rest(&mut process), (Vec::new(), None));
}

#[test]
fn a_session_is_one_record_also_when_it_is_broken_off() {
    let folder = std::env::temp_dir().join(format!("cloister-raw-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("trx.ndjson");
    let raw = Raw::changed(Changes {
        config: json!({}),
        proxy_protocol: true,
        logs: Some(path.clone()),
        ..Changes::default()
    });
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    let header =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\0\0\x01\x0f\xa0\x01\xbb";
    let open = || {
        let mut client = Client::to(&raw.plane, header, &[]);
        client.send("12345");
        let mut process = raw.accept();
        assert_eq!(bytes(&mut process, 5), b"12345");
        process.write_all(&[b'x'; 1000]).unwrap();
        client.bytes(1000);
        (client, process)
    };
    let (mut client, process) = open();
    let stats = raw.plane.stats();
    assert_eq!((stats.sessions, stats.active_sessions), (1, 1));
    assert_eq!(text(), "");
    drop(process);
    client.finish();
    client.rest();
    wait_until("the record", || text().lines().count() == 1);
    let stats = raw.plane.stats();
    assert_eq!((stats.active_sessions, stats.requests), (0, 0));
    assert_eq!((stats.bytes_in, stats.bytes_out), (5, 1000));
    let (client, process) = open();
    raw.plane.drain(Duration::from_millis(100)).unwrap();
    wait_until("the other record", || text().lines().count() == 2);
    drop((client, process));
    let lines = text();
    std::fs::remove_dir_all(&folder).unwrap();
    for line in lines.lines() {
        serde_json::from_str::<TransactionLog>(line).expect("every field of a record");
        let log: Value = serde_json::from_str(line).unwrap();
        for (field, expected) in [
            ("requestType", json!("TCP")),
            ("remoteIp", json!("192.0.2.7")),
            ("bytesIn", json!(5)),
            ("bytesOut", json!(1000)),
            ("uri", Value::Null),
            ("responseCode", Value::Null),
        ] {
            assert_eq!(log[field], expected, "{field}: {log}");
        }
        assert!(log["elapsed"].as_f64().unwrap() > 0.0);
    }
}
