//! The agent server and the small requests, one against the other.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "integration tests are their own crate"
)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cloister_hostplane::agent::{MAX_CONNECTIONS, SegmentLimits};
use cloister_hostplane::request::RequestError;
use cloister_hostplane::{AgentOptions, AgentServer, request};
use cloister_transport::Address;
use cloister_wire::agent::Time;

const LIMIT: Duration = Duration::from_secs(10);

/// A folder of this test's own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cl-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn server(&self) -> AgentServer {
        AgentServer::start(AgentOptions {
            listen: Address::Unix(self.0.join("agent")),
            upstream: self.0.join("app"),
            log_dir: self.0.join("logs"),
            enclave: "5b8f6c1e-6f0e-4a51-9f0c-0f6f6c9d7a11".to_owned(),
            segments: SegmentLimits::default(),
        })
        .unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn the_time_is_told_in_nanoseconds() {
    let folder = Folder::new("time");
    let server = folder.server();
    let answer = request(server.address(), "GET", "/v1/time", Vec::new(), LIMIT).unwrap();
    assert_eq!(answer.status, 200);
    let told: Time = serde_json::from_slice(&answer.body).unwrap();
    let told = SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_nanos(told.unix_nanos))
        .unwrap();
    let apart = SystemTime::now().duration_since(told).unwrap_or_default();
    assert!(apart < Duration::from_secs(60), "{apart:?}");
}

/// Who asks is set by the server; what the peer says about itself does not reach the application.
#[test]
fn a_call_is_made_anew_for_the_application() {
    let folder = Folder::new("anew");
    let application = UnixListener::bind(folder.0.join("app")).unwrap();
    let hearing = std::thread::spawn(move || {
        let (mut stream, _) = application.accept().unwrap();
        let mut heard = Vec::new();
        let mut chunk = [0; 4096];
        while !heard.ends_with(b"BODY") {
            let count = stream.read(&mut chunk).unwrap();
            heard.extend_from_slice(chunk.get(..count).unwrap());
        }
        stream
            .write_all(
                b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\netag: \"t\"\r\nx-own: a\r\n\r\nok",
            )
            .unwrap();
        String::from_utf8(heard).unwrap()
    });
    let server = folder.server();
    let Address::Unix(path) = server.address() else {
        panic!("made as a Unix address");
    };
    let mut enclave = UnixStream::connect(path).unwrap();
    enclave.set_read_timeout(Some(LIMIT)).unwrap();
    enclave
        .write_all(
            b"PUT /v1/objects/a?x=1 HTTP/1.1\r\nhost: evil\r\nx-cloister-enclave: other\r\n\
              if-match: \"t\"\r\nauthorization: Bearer x\r\nconnection: close\r\n\
              content-length: 4\r\n\r\nBODY",
        )
        .unwrap();
    let mut answer = String::new();
    enclave.read_to_string(&mut answer).unwrap();
    let heard = hearing.join().unwrap().to_ascii_lowercase();
    assert!(
        heard.starts_with("put /v1/objects/a?x=1 http/1.1\r\n"),
        "{heard}"
    );
    assert!(heard.contains("x-cloister-enclave: 5b8f6c1e-6f0e-4a51-9f0c-0f6f6c9d7a11\r\n"));
    assert!(heard.contains("if-match: \"t\"\r\n"));
    for gone in ["other", "evil", "authorization", "connection"] {
        assert!(!heard.contains(gone), "{heard}");
    }
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.contains("etag: \"t\"\r\n") && answer.ends_with("ok"));
    assert!(!answer.contains("x-own"));
}

#[test]
fn connections_are_bounded_and_the_ones_within_go_on() {
    let folder = Folder::new("bounded");
    let server = folder.server();
    let Address::Unix(path) = server.address() else {
        panic!("made as a Unix address");
    };
    let mut open: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| UnixStream::connect(path).unwrap())
        .collect();
    let mut over = UnixStream::connect(path).unwrap();
    over.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(over.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.stats().refused, 1);

    let first = open.first_mut().unwrap();
    first.set_read_timeout(Some(LIMIT)).unwrap();
    first
        .write_all(b"GET /v1/time HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut status = [0; 15];
    first.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}

#[test]
fn a_request_says_what_went_wrong() {
    let folder = Folder::new("wrong");
    let nobody = Address::Unix(folder.0.join("nobody"));
    let error = request(&nobody, "GET", "/health", Vec::new(), LIMIT).unwrap_err();
    assert!(matches!(error, RequestError::Connect { .. }), "{error:?}");

    let path = folder.0.join("silent");
    let _silent = UnixListener::bind(&path).unwrap();
    let silent = Address::Unix(path);
    let limit = Duration::from_millis(50);
    let error = request(&silent, "GET", "/health", Vec::new(), limit).unwrap_err();
    assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");

    for (method, path, field) in [
        ("GET", "health", "path"),
        ("GET", "/a b", "path"),
        ("G T", "/", "method"),
    ] {
        let error = request(&silent, method, path, Vec::new(), limit).unwrap_err();
        assert!(
            matches!(error, RequestError::Argument { field: found } if found == field),
            "{error:?}"
        );
    }
}

/// The enclave is a stranger to its host: an endless or broken answer to a health question ends.
#[test]
fn an_answer_that_is_endless_or_not_http_is_broken() {
    let folder = Folder::new("broken");
    let cases: [(&[u8], bool); 4] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        (b"\x00\x01 what\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", false),
        (b"HTTP/1.1 200 OK\r\n\r\n", false),
    ];
    for (index, (answer, is_whole)) in cases.into_iter().enumerate() {
        let path = folder.0.join(index.to_string());
        let listener = UnixListener::bind(&path).unwrap();
        let endless = answer.ends_with(b"OK\r\n\r\n");
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = [0; 4096];
            assert!(stream.read(&mut heard).unwrap() > 0);
            stream.write_all(answer).unwrap();
            let chunk = vec![b'x'; 65_536];
            while endless && stream.write_all(&chunk).is_ok() {}
        });
        let result = request(&Address::Unix(path), "GET", "/health", Vec::new(), LIMIT);
        answering.join().unwrap();
        match result {
            Ok(response) => assert!(is_whole && response.body == b"ok"),
            Err(error) => assert!(
                !is_whole && matches!(error, RequestError::Broken(_)),
                "{error:?}"
            ),
        }
    }
}
