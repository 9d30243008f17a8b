//! T-04: silent and slow clients before and during the handshake delay nobody.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::plane::{Changes, Site, wait_until};
use crate::process::Process;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn site(acceptor: &serde_json::Value, max_waiting: u32) -> Site {
    let limits = json!({ "max_waiting": max_waiting });
    Site::with(
        Process::echo(),
        json!({ "api_key_auth": false, "acceptor": acceptor, "limits": limits }),
    )
}

fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match (&*stream).read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn t04_silent_clients_take_no_handshake_and_no_time() {
    let site = site(&json!({ "max_concurrent_handshakes": 1 }), 2000);
    let silent: Vec<_> = (0..50)
        .map(|number| {
            let mut stream = TcpStream::connect(site.address()).unwrap();
            // Some are silent, some send a part of a ClientHello.
            stream
                .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1][..number % 8])
                .unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(site.client().ask(GET).status, 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(silent.iter().all(|stream| !is_closed(stream)));
}

#[test]
fn t04_over_the_limit_the_oldest_is_shed_and_counted() {
    let site = site(&json!({}), 10);
    let silent: Vec<_> = (0..15)
        .map(|number| {
            let stream = TcpStream::connect(site.address()).unwrap();
            wait_until("the connection", || site.plane.stats().connections > number);
            stream
        })
        .collect();
    wait_until("five are shed", || {
        silent.iter().filter(|stream| is_closed(stream)).count() == 5
    });
    assert!(silent[..5].iter().all(is_closed), "the oldest five");
    assert_eq!(site.plane.stats().shed, 5);
    assert_eq!(site.client().ask(GET).status, 200);
}

#[test]
fn t04_a_handshake_has_a_deadline() {
    let site = site(&json!({ "handshake_timeout": 200 }), 2000);
    let mut stream = TcpStream::connect(site.address()).unwrap();
    stream.write_all(&[0x16, 3, 1]).unwrap();
    let begun = Instant::now();
    wait_until("the close", || is_closed(&stream));
    assert!(
        begun.elapsed() >= Duration::from_millis(150),
        "{:?}",
        begun.elapsed()
    );
    wait_until("the count", || site.plane.stats().failed_handshakes == 1);
    assert_eq!(site.client().ask(GET).status, 200);
}

#[test]
fn t04_connections_over_the_limit_are_closed_at_once() {
    let site = site(&json!({ "max_concurrent_connections": 3 }), 2000);
    let mut open: Vec<_> = (0..3).map(|_| site.client()).collect();
    let refused = TcpStream::connect(site.address()).unwrap();
    wait_until("the close", || is_closed(&refused));
    assert_eq!(open[0].ask(GET).status, 200);
    drop(open);
    wait_until("room", || site.plane.stats().active_connections == 0);
    assert_eq!(site.client().ask(GET).status, 200);
}

/// The relay's header says who connects; without it a stream is not served.
#[test]
fn t04_a_stream_without_its_proxy_header_is_closed() {
    let changes = Changes {
        config: json!({ "api_key_auth": false }),
        proxy_protocol: true,
        ..Changes::default()
    };
    let site = Site::changed(Process::echo(), changes);
    for bad in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(site.address()).unwrap();
        stream.write_all(bad).unwrap();
        wait_until("the close", || is_closed(&stream));
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend([192, 0, 2, 7, 127, 0, 0, 1, 0x0F, 0xA0, 0x01, 0xBB]);
    assert_eq!(Client::connect(&site, &header).ask(GET).status, 200);
    let seen = site.process.only();
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("192.0.2.7"));
    assert_eq!(
        seen.header("forwarded").as_deref(),
        Some("for=192.0.2.7;proto=https")
    );
    let probe = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    assert_eq!(Client::connect(&site, probe).ask(GET).status, 200);
}
