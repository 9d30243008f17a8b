//! `tls_termination = false`: what the user process receives, byte for byte. Real TLS through it is in
//! `tests/integration/test_tls_passthrough.py`.

use std::io::{ErrorKind, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::plane::{Changes, address, wait_until};
use crate::raw::{Raw, bytes, reset, rest};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const HAPROXY: &[u8] = include_bytes!("../../../../tests/vectors/proxy/haproxy-tlvs");
const HAPROXY_CHECK: &[u8] = include_bytes!("../../../../tests/vectors/proxy/haproxy-check");

fn passthrough(proxy_protocol: bool, replays: bool, limits: Value) -> Raw {
    let mut config = json!({
        "api_key_auth": false,
        "forward_proxy_protocol": replays,
        "tls": { "termination": false },
        "logs": { "trx_logging": false },
    });
    config["limits"] = limits;
    Raw::started(Changes {
        config,
        proxy_protocol,
        ..Changes::default()
    })
    .unwrap()
}

fn client(raw: &Raw) -> TcpStream {
    let client = TcpStream::connect(address(&raw.plane)).unwrap();
    let patience = Some(Duration::from_secs(10));
    client.set_read_timeout(patience).unwrap();
    client
}

/// A session in which the client has said `said`; what the process got of it is what it should be.
fn session(raw: &Raw, said: &[u8], got: &[u8]) -> (TcpStream, TcpStream) {
    let mut client = client(raw);
    client.write_all(said).unwrap();
    // Probes of health begin with a header of their own when headers are wanted.
    let process = loop {
        let mut process = raw.accept();
        if bytes(&mut process, got.len().min(16)) == got[..got.len().min(16)] {
            assert_eq!(
                bytes(&mut process, got.len().saturating_sub(16)),
                got[got.len().min(16)..]
            );
            break process;
        }
    };
    (client, process)
}

#[test]
fn bytes_pass_both_ways_and_each_end_by_itself() {
    let raw = passthrough(false, false, Value::Null);
    let (mut client, mut process) = session(&raw, b"\x16\x03\x01any", b"\x16\x03\x01any");
    process.write_all(b"back").unwrap();
    assert_eq!(bytes(&mut client, 4), b"back");
    let bulk: Vec<u8> = (0..4_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&bulk).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        assert!(
            rest(&mut process) == (bulk.clone(), None),
            "the upload differs"
        );
    });
    process.write_all(b"after the end").unwrap();
    drop(process);
    assert_eq!(rest(&mut client), (b"after the end".to_vec(), None));
    wait_until("the end", || raw.plane.stats().active_sessions == 0);
    let stats = raw.plane.stats();
    assert_eq!(
        (stats.sessions, stats.bytes_in, stats.bytes_out),
        (1, 4_000_006, 17)
    );
    assert_eq!(raw.plane.ca_pem(), None);
    assert_eq!(raw.plane.health().certificate_not_after, None);
}

/// What stands in front of the bytes goes no further, or goes on as it came.
#[test]
fn the_header_ends_here_or_is_replayed_byte_for_byte() {
    let unspecified = [SIGNATURE, b"\x21\x00\x00\x05\xAA\xBB\xCC\xDD\xEE"].concat();
    let local = [SIGNATURE, b"\x20\x11\x00\x02hi"].concat();
    for header in [HAPROXY, HAPROXY_CHECK, &unspecified, &local] {
        let said = [header, b"hello from the client"].concat();
        let ends = passthrough(true, false, Value::Null);
        session(&ends, &said, b"hello from the client");
        wait_until("the count", || ends.plane.stats().bytes_in == 21);
        let replays = passthrough(true, true, Value::Null);
        session(&replays, &said, &said);
        wait_until("the count", || replays.plane.stats().bytes_in == 21);
    }
}

/// Without a host in between the data plane itself says whom it accepted.
#[test]
fn a_header_is_made_where_none_came() {
    let raw = passthrough(false, true, Value::Null);
    let mut client = client(&raw);
    client.write_all(b"hello").unwrap();
    let port = client.local_addr().unwrap().port().to_be_bytes();
    let at = address(&raw.plane).port().to_be_bytes();
    let header = [
        SIGNATURE,
        b"\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01",
        &port,
        &at,
    ]
    .concat();
    loop {
        let mut process = raw.accept();
        let got = bytes(&mut process, 16);
        if got == [SIGNATURE, b"\x20\0\0\0"].concat() {
            // A probe of health, which says so.
            assert_eq!(rest(&mut process), (Vec::new(), None));
            continue;
        }
        let rest = bytes(&mut process, 12 + 5);
        assert_eq!([got, rest].concat(), [&header[..], b"hello"].concat());
        break;
    }
}

#[test]
fn t04_what_is_no_header_of_version_two_reaches_nobody() {
    let raw = passthrough(true, false, Value::Null);
    let mut flipped = HAPROXY.to_vec();
    flipped[20] ^= 1;
    let bad = [
        &b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 443\r\n\x16\x03\x01"[..],
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        &flipped,
    ];
    for (position, said) in bad.iter().enumerate() {
        let mut client = client(&raw);
        client.write_all(said).unwrap();
        let (got, _) = rest(&mut client);
        assert_eq!(got, b"");
        let count = u64::try_from(position).unwrap() + 1;
        wait_until("the count", || raw.plane.stats().refused_headers == count);
    }
    assert_eq!(raw.plane.stats().sessions, 0);
    let good = [HAPROXY, b"good"].concat();
    session(&raw, &good, b"good");
}

#[test]
fn t04_a_header_that_does_not_come_is_waited_for_no_longer_than_a_handshake() {
    let raw = Raw::started(Changes {
        config: json!({
            "api_key_auth": false,
            "tls": { "termination": false },
            "logs": { "trx_logging": false },
            "acceptor": { "handshake_timeout": 300 },
        }),
        proxy_protocol: true,
        ..Changes::default()
    })
    .unwrap();
    for said in [&b""[..], &HAPROXY[..HAPROXY.len() - 1]] {
        let mut client = client(&raw);
        client.write_all(said).unwrap();
        assert_eq!(rest(&mut client).0, b"");
    }
    assert_eq!(raw.plane.stats().sessions, 0);
    // A session has no such limit.
    let (mut client, mut process) = session(&raw, &[HAPROXY, b"x"].concat(), b"x");
    std::thread::sleep(Duration::from_millis(700));
    process.write_all(b"y").unwrap();
    assert_eq!(bytes(&mut client, 1), b"y");
}

#[test]
fn what_breaks_off_is_reset_on_the_other_side() {
    let raw = passthrough(false, false, Value::Null);
    let (client_side, mut process) = session(&raw, b"x", b"x");
    reset(client_side);
    assert_eq!(rest(&mut process).1, Some(ErrorKind::ConnectionReset));
    let (mut client_side, process) = session(&raw, b"x", b"x");
    reset(process);
    assert_eq!(rest(&mut client_side).1, Some(ErrorKind::ConnectionReset));

    let Raw { plane, process } = passthrough(false, false, Value::Null);
    let raw = Raw {
        plane,
        process: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
    };
    drop(process);
    let mut refused = client(&raw);
    assert_eq!(rest(&mut refused).1, Some(ErrorKind::ConnectionReset));
    wait_until("the count", || raw.plane.stats().refused == 1);
}

#[test]
fn limits_and_a_drain_end_what_passes_through() {
    let raw = passthrough(false, false, json!({ "tunnel_idle": 400 }));
    let (mut client_side, mut process) = session(&raw, b"x", b"x");
    assert_eq!(rest(&mut client_side), (Vec::new(), None));
    assert_eq!(rest(&mut process), (Vec::new(), None));

    let raw = passthrough(false, false, json!({ "body_idle": 300 }));
    let (mut quiet, mut its_process) = session(&raw, b"x", b"x");
    let (half, mut waits) = session(&raw, b"y", b"y");
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut waits), (Vec::new(), None));
    wait_until("the end of the half", || {
        raw.plane.stats().active_sessions == 1
    });
    quiet.write_all(b"still").unwrap();
    assert_eq!(bytes(&mut its_process, 5), b"still");

    std::thread::scope(|scope| {
        let drain = scope.spawn(|| raw.plane.drain(Duration::from_secs(30)));
        wait_until("the door is closed", || {
            TcpStream::connect(address(&raw.plane)).is_err()
        });
        quiet.write_all(b"during").unwrap();
        assert_eq!(bytes(&mut its_process, 6), b"during");
        drop((quiet, its_process));
        drain.join().unwrap().unwrap();
    });
}
