//! The whole of the services in one process: provisioning, certificate, logs, internal API, health.
//! The engine is a fake behind its seam; the real one is tested with real clients.

#![expect(clippy::arithmetic_side_effects, reason = "sizes of a test are small")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Instant;

use cloister_attestation::{Policy, TrustAnchor, verify};
use cloister_dataplane::certificate::Origin;
use cloister_dataplane::server::traffic::{Traffic, TrafficParts};
use cloister_sealing::PROVISION_USER_DATA;
use cloister_transport::Address;

use super::*;

const CONFIG: &str = include_str!("../../../tests/vectors/config/enclave.json");

/// An engine that keeps what it was started with and moves nothing.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<Option<TrafficParts>>>);

impl Traffic for Idle {
    fn drain(&self, _grace: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }

    fn stats(&self) -> TrafficStats {
        TrafficStats {
            requests: 7,
            ..TrafficStats::default()
        }
    }
}

fn local(port: u16) -> Address {
    Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

fn options() -> DevOptions {
    let mut options = DevOptions::new(CONFIG.into(), local(0), local(9));
    options.internal_api = Some(local(0));
    options.health = Some(local(0));
    options
}

fn start(options: DevOptions) -> (DevPlane, Idle) {
    let idle = Idle::default();
    let seam = idle.clone();
    let traffic: StartTraffic = Box::new(move |parts| {
        *seam.0.lock().unwrap() = Some(parts);
        Ok(Arc::new(seam))
    });
    (DevPlane::start_with(options, traffic).unwrap(), idle)
}

/// One request with a head of the test's choice; status, and what follows the head.
fn send(address: &Address, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let Address::Tcp { host, port } = address else {
        panic!("a TCP address");
    };
    let mut stream = TcpStream::connect((host.as_str(), *port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let length = body.len();
    let head = format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let status = std::str::from_utf8(&answer[9..12])
        .unwrap()
        .parse()
        .unwrap();
    (status, answer.split_off(end + 4))
}

fn call(plane: &DevPlane, line: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let address = plane.internal_api().unwrap();
    send(
        &address,
        &format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:9999"),
        body,
    )
}

fn json(plane: &DevPlane, line: &str, body: &[u8]) -> serde_json::Value {
    let (status, answer) = call(plane, line, body);
    assert_eq!(status, 200, "{line}: {}", String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).unwrap()
}

fn policy(plane: &DevPlane) -> Policy {
    Policy::builder()
        .anchor(TrustAnchor::dangerous_root(plane.nsm_root_der()).unwrap())
        .dangerous_accept_debug()
        .dangerous_any_measurement()
        .build()
        .unwrap()
}

fn now() -> UnixMillis {
    UnixMillis(System.now_ms())
}

#[test]
fn it_starts_provisioned_and_with_an_ordered_certificate_well_within_a_second() {
    let begun = Instant::now();
    let (plane, idle) = start(options());
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let parts = idle.0.lock().unwrap();
    let parts = parts.as_ref().unwrap();
    assert_eq!(
        parts.certificates.as_ref().unwrap().current().origin,
        Origin::Ordered
    );
    let live = parts.live.load();
    let enclave = parts.config.uuid;
    let key = plane.api_keys()[0].as_bytes();
    live.api_keys.check(key, enclave, System.now_ms()).unwrap();
    let newest = live.keyring.as_ref().unwrap().newest().unwrap();
    assert_eq!(newest.compressed(), plane.app_public_key());
    assert_eq!(plane.health().bundle_version, Some(1));
    assert_eq!(plane.stats().requests, 7);
}

#[test]
fn a_key_that_was_replaced_is_gone_at_once() {
    let (plane, idle) = start(options());
    let live = Arc::clone(&idle.0.lock().unwrap().as_ref().unwrap().live);
    let enclave = idle.0.lock().unwrap().as_ref().unwrap().config.uuid;
    let key = plane.api_keys()[0].clone();
    let is_known = || {
        live.load()
            .api_keys
            .check(key.as_bytes(), enclave, 1)
            .is_ok()
    };
    assert!(is_known());
    let other = DevApiKey {
        value: format!("ck_other_{}", "x".repeat(43)),
        scopes: vec!["app".to_owned()],
        not_after_ms: None,
    };
    plane.replace_api_keys(&[other]).unwrap();
    let begun = Instant::now();
    while is_known() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_address_in_use_is_named() {
    let (plane, _idle) = start(options());
    let mut second = options();
    second.listen = plane.address().clone();
    let error = DevPlane::start(second).unwrap_err();
    assert!(
        error.to_string().contains(&plane.address().to_string()),
        "{error}"
    );
}

#[test]
fn a_drain_ends_it_and_a_second_one_is_harmless() {
    let (plane, _idle) = start(options());
    plane.drain(Duration::from_secs(1)).unwrap();
    plane.stop().unwrap();
    assert_eq!(plane.stats().requests, 7);
}

/// T-08, T-19: when a bundle ends without a renewal its app keys are wiped, also by workers that
/// serve nobody and so never look at what is true.
#[test]
fn the_app_keys_of_a_bundle_that_ended_are_held_by_nobody() {
    let captured = Arc::new(Mutex::new(None));
    let live = Arc::clone(&captured);
    let traffic: StartTraffic = Box::new(move |parts| {
        *live.lock().unwrap() = Some(Arc::clone(&parts.live));
        engine()(parts)
    });
    let mut options = options();
    options.workers = 2;
    options.bundle_life = Duration::from_secs(2);
    let plane = DevPlane::start_with(options, traffic).unwrap();
    let live = captured.lock().unwrap().take().unwrap();
    let keyring = Arc::downgrade(live.load().keyring.as_ref().unwrap());
    assert!(keyring.upgrade().is_some());
    plane.hold_back_bundles(true);
    let begun = Instant::now();
    while keyring.upgrade().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(8));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(live.load().keyring.is_none());
}

/// T-21, end to end: the documents an application can have made are genuine, and none of them is a
/// TLS binding or a provisioning request.
#[test]
fn the_internal_api_makes_documents_of_text_only() {
    let (plane, idle) = start(options());
    let body = br#"{"challenge":"hello","nonce":"n0nce","publicKey":"AQID"}"#;
    let (status, document) = call(&plane, "POST /attestation-doc", body);
    assert_eq!(status, 200);
    let expected = policy(&plane).with_user_data(b"hello").with_nonce(b"n0nce");
    let claims = verify(&document, &expected, now()).unwrap();
    assert_eq!(claims.public_key.as_deref(), Some([1, 2, 3].as_slice()));

    let answer = json(&plane, "POST /attestation-doc?format=base64", b"{}");
    assert!(answer["attestation_doc"].as_str().unwrap().len() > 1000);

    let spki = Arc::clone(
        &idle
            .0
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .certificates
            .as_ref()
            .unwrap()
            .current()
            .spki,
    );
    let binary = [b"{\"challenge\":\"".as_slice(), &spki, b"\"}"].concat();
    let provisioning = [b"{\"challenge\":\"".as_slice(), PROVISION_USER_DATA, b"\"}"].concat();
    let escaped = br#"{"challenge":"\u00ffcloister/provision/v1"}"#;
    for refused in [&binary, &provisioning, &escaped.to_vec()] {
        let (status, answer) = call(&plane, "POST /attestation-doc", refused);
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(&answer));
    }
}

/// T-21: a document that an application had made is not taken for the request of a boot.
#[test]
fn the_platform_refuses_a_document_of_the_internal_api() {
    let (plane, _idle) = start(options());
    let challenge = plane.platform.challenge().unwrap();
    // The application knows a challenge and has a key; it cannot have the right user data.
    let text = String::from_utf8(challenge.to_vec()).unwrap_or_else(|_| "x".repeat(32));
    let body = serde_json::json!({ "nonce": text, "publicKey": "AAAA" }).to_string();
    let (status, document) = call(&plane, "POST /attestation-doc", body.as_bytes());
    assert_eq!(status, 200);
    verify(&document, &policy(&plane), now()).unwrap();
    plane.platform.provision(&document).unwrap_err();
}

#[test]
fn json_is_encrypted_and_comes_back_as_it_was() {
    let (plane, _idle) = start(options());
    let clear = br#"{"name":"Ada","n":1.50,"list":[true,null,"x"]}"#;
    let (status, sealed) = call(&plane, "POST /encrypt", clear);
    assert_eq!(status, 200);
    let shape: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
    assert!(shape["name"].as_str().unwrap().starts_with("ev:"));
    assert!(shape["list"][1].is_null());
    let (status, opened) = call(&plane, "POST /decrypt", &sealed);
    assert_eq!((status, opened.as_slice()), (200, clear.as_slice()));

    // One bit of a ciphertext is turned over: still a token, and no longer genuine.
    let mut broken = sealed;
    let end = broken.windows(2).position(|two| two == b":$").unwrap();
    broken[end - 8] = if broken[end - 8] == b'A' { b'B' } else { b'A' };
    assert_eq!(call(&plane, "POST /decrypt", &broken).0, 422);
    let (status, untouched) = call(&plane, "POST /decrypt", br#"{"a":"ev:no"}"#);
    assert_eq!(
        (status, untouched.as_slice()),
        (200, br#"{"a":"ev:no"}"#.as_slice())
    );
    let (status, answer) = call(&plane, "POST /encrypt", b"{\n  nope}");
    assert_eq!(status, 400);
    assert!(
        String::from_utf8(answer)
            .unwrap()
            .contains("line 2, column")
    );
}

#[test]
fn registers_of_the_application_can_be_extended_and_locked_and_no_others() {
    let (plane, _idle) = start(options());
    let first = json(&plane, "POST /pcr/16/extend", b"measured");
    let pcrs = json(&plane, "GET /pcrs", b"");
    assert_eq!(pcrs["pcrs"]["16"]["value"], first["value"]);
    assert_eq!(pcrs["pcrs"]["0"]["locked"], true);
    assert_eq!(json(&plane, "POST /pcr/16/lock", b"")["locked"], true);
    assert_eq!(call(&plane, "POST /pcr/16/extend", b"again").0, 409);
    assert_eq!(call(&plane, "POST /pcr/0/extend", b"x").0, 403);
    assert_eq!(call(&plane, "POST /pcr/15/lock", b"").0, 403);
    assert_eq!(call(&plane, "POST /pcr/32/extend", b"x").0, 400);
    assert_eq!(call(&plane, "POST /pcr/17/extend", &[0; 513]).0, 413);
    assert_eq!(call(&plane, "POST /pcr/17/extend", &[0; 512]).0, 200);
}

#[test]
fn randomness_is_bounded_and_not_repeated() {
    let (plane, _idle) = start(options());
    let (status, first) = call(&plane, "GET /random?n=4096", b"");
    assert_eq!((status, first.len()), (200, 4096));
    assert_ne!(call(&plane, "GET /random?n=4096", b"").1, first);
    for line in ["GET /random?n=4097", "GET /random?n=0", "GET /random?n=x"] {
        assert_eq!(call(&plane, line, b"").0, 400, "{line}");
    }
}

/// DNS rebinding: a page gives its own name this address, and its requests carry that name.
#[test]
fn a_request_under_another_name_is_refused() {
    let (plane, _idle) = start(options());
    let address = plane.internal_api().unwrap();
    let status = |head: &str| send(&address, head, b"").0;
    for host in ["127.0.0.1", "localhost:9999", "LOCALHOST"] {
        assert_eq!(
            status(&format!("GET /info HTTP/1.1\r\nHost: {host}")),
            200,
            "{host}"
        );
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost:x",
        "127.0.0.1@evil",
        "",
    ] {
        assert_eq!(
            status(&format!("GET /info HTTP/1.1\r\nHost: {host}")),
            403,
            "{host}"
        );
    }
    let twice = "GET /info HTTP/1.1\r\nHost: localhost\r\nHost: evil.example";
    assert_eq!(status(twice), 403);
    let absolute = "GET http://evil.example/info HTTP/1.1\r\nHost: localhost";
    assert_eq!(status(absolute), 403);
    assert_eq!(status("GET /info HTTP/1.0"), 403);
}

#[test]
fn mistakes_of_a_caller_are_never_500() {
    let (plane, _idle) = start(options());
    for (line, expected) in [
        ("GET /nothing", 404),
        ("GET /encrypt", 405),
        ("DELETE /info", 405),
        ("GET /pcr/16/extend", 405),
        ("POST /pcr/16/reset", 404),
        ("POST /attestation-doc?format=xml", 400),
        ("POST /decrypt", 400),
    ] {
        assert_eq!(call(&plane, line, b"").0, expected, "{line}");
    }
    assert_eq!(
        call(&plane, "POST /attestation-doc", &vec![b' '; 17 * 1024]).0,
        413
    );
}

#[test]
fn the_variables_of_the_bundle_are_shown() {
    let mut options = options();
    options.env = vec![
        ("TEXT".to_owned(), b"a\nb".to_vec()),
        ("BYTES".to_owned(), vec![0xFF]),
    ];
    let (plane, _idle) = start(options);
    let env = json(&plane, "GET /env", b"");
    let expected = serde_json::json!([
        { "name": "TEXT", "value": "a\nb" },
        { "name": "BYTES", "base64": "/w==" },
    ]);
    assert_eq!(env["env"], expected);
    assert_eq!(json(&plane, "GET /info", b"")["name"], "hello");
    assert_eq!(json(&plane, "GET /health", b"")["bundle_version"], 1);
}

#[test]
fn health_and_metrics_say_what_is_true() {
    let (plane, _idle) = start(options());
    let health = plane.health_address().unwrap();
    let get = |path: &str| send(&health, &format!("GET {path} HTTP/1.1\r\nHost: h"), b"");
    // Nobody listens at the upstream, so "unknown" and then "unhealthy": never 200.
    let (status, body) = get("/health");
    assert_eq!(status, 503, "{}", String::from_utf8_lossy(&body));
    let (status, metrics) = get("/metrics");
    let metrics = String::from_utf8(metrics).unwrap();
    assert_eq!(status, 200);
    for line in [
        "cloister_state{state=\"ready\"} 1",
        "cloister_bundle_version 1",
        "cloister_requests_total 7",
        "cloister_memory_total_bytes ",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert_eq!(get("/nothing").0, 404);
}

#[test]
fn a_drain_can_be_asked_for_over_the_health_port() {
    let (plane, _idle) = start(options());
    let health = plane.health_address().unwrap();
    let (status, _) = send(&health, "POST /v1/drain HTTP/1.1\r\nHost: h", b"");
    assert_eq!(status, 202);
    plane.handle.join().unwrap();
}

#[test]
fn a_healthy_application_makes_health_ok() {
    let application = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = application.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = application.accept().unwrap();
        let mut head = [0; 1024];
        let length = stream.read(&mut head).unwrap();
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let mut options = options();
    options.upstream = local(port);
    let (plane, _idle) = start(options);
    let head = server.join().unwrap();
    assert!(head.starts_with("GET /health HTTP/1.1\r\n"), "{head}");
    assert!(
        head.to_lowercase()
            .contains("user-agent: evervault-healthcheck-agent"),
        "{head}"
    );
    let begun = Instant::now();
    let health = plane.health_address().unwrap();
    while send(&health, "GET /health HTTP/1.1\r\nHost: h", b"").0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

/// T-23: documents with registers of a test's choice are worth nothing outside of the test.
#[test]
fn t23_chosen_registers_need_a_root_that_is_kept_nowhere() {
    let now = UnixMillis(System.now_ms());
    let nsm = |root: DevelopmentRoot| {
        let simulator = Simulator::new(&root, [(0, [7; 48])], "i-test", now).unwrap();
        let module = Arc::new(Steered::new(simulator, || UnixMillis(System.now_ms())));
        DevNsm { module, root }
    };
    let folder = std::env::temp_dir().join(format!("cloister-kept-root-{}", std::process::id()));
    // A root that is made there, and one that is found there.
    for _ in 0..2 {
        let kept = DevelopmentRoot::load_or_create(&folder, now).unwrap();
        let mut options = options();
        options.nsm = Some(nsm(kept));
        assert!(matches!(
            DevPlane::start(options).unwrap_err(),
            DevError::KeptRoot
        ));
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let mut options = options();
    options.nsm = Some(nsm(DevelopmentRoot::generate(now).unwrap()));
    let (plane, _idle) = start(options);
    let pcrs = json(&plane, "GET /pcrs", b"");
    assert_eq!(pcrs["pcrs"]["0"]["value"], "07".repeat(48));
}
