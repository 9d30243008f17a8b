//! The start and the end inside an enclave: what init is told, in which order, and when traffic is
//! accepted. init, the host and the engine are fakes behind their seams; everything else is real.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_wire::config::Reload;
use cloister_wire::control::ToInit;
use cloister_wire::health::State;

use super::*;
use crate::health::services::Services;
use crate::provision::tests::{ENCLAVE, Host, PCR0};
use crate::server::traffic::Traffic;
use crate::test_support::{Paused, provider};

const CONFIG: &str = include_str!("../../../../tests/vectors/config/enclave.json");

/// An engine that is told when to end.
#[derive(Default)]
struct Idle {
    is_drained: AtomicBool,
    services: Mutex<Option<Services>>,
}

impl Traffic for Idle {
    fn drain(&self, _grace: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.is_drained.store(true, Ordering::Relaxed);
        Box::pin(async {})
    }

    fn stats(&self) -> TrafficStats {
        TrafficStats::default()
    }
}

/// An enclave without a user process: init is this test.
struct Enclave {
    handle: Handle,
    host: Arc<Host>,
    engine: Arc<Idle>,
    init: BufReader<UnixStream>,
    /// Where the user process will listen; nobody does yet.
    service: Address,
}

fn enclave(reload: Reload) -> Enclave {
    enclave_with(reload, false)
}

fn enclave_with(reload: Reload, tells_health: bool) -> Enclave {
    let clock = Paused::new();
    let host = Host::new(&clock);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let service = free_port();
    let mut config = EnclaveConfig::from_json(CONFIG.as_bytes()).unwrap();
    config.uuid = ENCLAVE;
    config.trust.service_keys = vec![STANDARD.encode(host.service_key())];
    config.healthcheck = None;
    config.env.reload = reload;
    let (ours, init) = UnixStream::pair().unwrap();
    init.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let engine = Arc::new(Idle::default());
    let started = Arc::clone(&engine);
    let handle = DataPlane::start(DataPlaneOptions {
        config: Arc::new(config),
        ingress: Ingress::Late(free_port()),
        proxy_protocol: true,
        upstream: service.clone(),
        workers: 1,
        health: None,
        internal_api: Some(free_port()),
        agent: Arc::clone(&host) as Arc<dyn AgentApi>,
        objects: None,
        nsm: provider(PCR0, &clock),
        clock: Arc::new(clock),
        certificate: Some(GivenCertificate {
            chain: made.cert.pem().into_bytes(),
            key: made.signing_key.serialize_pem().into_bytes(),
        }),
        control: Some(InitChannel {
            stream: ours,
            tells_health,
        }),
        start_traffic: Box::new(move |parts| {
            *started.services.lock().unwrap() = Some(parts.services);
            Ok(started)
        }),
    })
    .unwrap();
    Enclave {
        handle,
        host,
        engine,
        init: BufReader::new(init),
        service,
    }
}

/// An address of the loopback that was free a moment ago.
fn free_port() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    }
}

impl Enclave {
    fn told(&mut self) -> Option<ToInit> {
        let mut line = String::new();
        let length = self.init.read_line(&mut line).unwrap();
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    fn says(&mut self, line: &str) {
        writeln!(self.init.get_mut(), "{line}").unwrap();
    }

    /// The user process begins to listen.
    fn listen(&self) -> TcpListener {
        let Address::Tcp { host, port } = &self.service else {
            panic!("a TCP address");
        };
        TcpListener::bind((host.as_str(), *port)).unwrap()
    }
}

fn env(value: &str) -> Vec<(String, String)> {
    vec![("SECRET".to_owned(), STANDARD.encode(value))]
}

#[test]
fn the_process_starts_with_its_secrets_and_traffic_is_accepted_when_it_is_up() {
    let mut enclave = enclave(Reload::None);
    // The internal API is there before the process is told to start.
    assert!(enclave.handle.internal_api().is_some());
    let told = enclave.told();
    assert_eq!(told, Some(ToInit::StartProcess { env: env("value") }));
    let early = enclave
        .handle
        .wait_until_accepting(Duration::from_millis(300));
    assert!(matches!(early, Err(ServerError::NotReady { .. })));
    assert_eq!(enclave.handle.health().state, State::Provisioning);
    assert_eq!(enclave.handle.address(), None);

    let _listening = enclave.listen();
    let patience = Duration::from_secs(5);
    enclave.handle.wait_until_accepting(patience).unwrap();
    assert!(enclave.handle.address().is_some());
    assert_eq!(enclave.handle.health().state, State::Ready);
    assert_eq!(enclave.handle.health().process_healthy, Some(true));
}

/// The time from a process that listens to traffic is part of every start.
#[test]
fn a_process_that_comes_up_is_noticed_at_once() {
    let mut enclave = enclave(Reload::None);
    enclave.told();
    std::thread::sleep(Duration::from_millis(100));
    enclave.says(r#"{"type":"process_started","pid":9,"restarts":0}"#);
    std::thread::sleep(Duration::from_millis(100));
    let begun = std::time::Instant::now();
    let _listening = enclave.listen();
    enclave
        .handle
        .wait_until_accepting(Duration::from_secs(5))
        .unwrap();
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_drain_of_init_ends_it_and_init_is_told() {
    let mut enclave = enclave(Reload::None);
    enclave.told();
    let _listening = enclave.listen();
    enclave
        .handle
        .wait_until_accepting(Duration::from_secs(5))
        .unwrap();
    enclave.says(r#"{"type":"drain"}"#);
    assert_eq!(enclave.told(), Some(ToInit::Drained));
    enclave.handle.join().unwrap();
    assert!(enclave.engine.is_drained.load(Ordering::Relaxed));
}

/// A drain must also end an enclave whose user process never came up.
/// A second signal must not wait, also when its call comes before that of the first.
#[test]
fn a_shorter_grace_is_not_made_longer() {
    let shared = Shared::new();
    let (second, half) = (Duration::from_secs(1), Duration::from_millis(500));
    for (grace, expected) in [
        (second, second),
        (half, half),
        (second, half),
        (Duration::ZERO, Duration::ZERO),
        (half, Duration::ZERO),
    ] {
        shared.end_within(grace);
        assert_eq!(*shared.stop.borrow(), Some(expected));
    }
}

/// A data plane that hears nobody any more is no use: it ends, and init starts another one. It must
/// not say that it was drained, because then the enclave would end.
#[test]
fn a_service_that_fails_ends_the_data_plane_and_not_the_enclave() {
    let mut enclave = enclave(Reload::None);
    assert!(matches!(enclave.told(), Some(ToInit::StartProcess { .. })));
    let _listening = enclave.listen();
    enclave.says(r#"{"type":"process_started","pid":7,"restarts":0}"#);
    enclave
        .handle
        .wait_until_accepting(Duration::from_secs(10))
        .unwrap();
    let health = enclave.handle.health();
    assert_eq!(health.state, State::Ready);
    assert!(health.services["internal_api"]);
    let services = enclave.engine.services.lock().unwrap().clone().unwrap();
    services.run("ingress");
    services.fail("ingress");
    let ended = enclave.handle.join();
    assert!(
        matches!(ended, Err(ServerError::Service { service: "ingress" })),
        "{ended:?}"
    );
    assert_eq!(enclave.handle.health().state, State::Failed);
    assert_eq!(enclave.told(), None);
}

#[test]
fn a_drain_before_traffic_ends_it_too() {
    let mut enclave = enclave(Reload::None);
    enclave.told();
    enclave.says(r#"{"type":"drain"}"#);
    assert_eq!(enclave.told(), Some(ToInit::Drained));
    enclave.handle.join().unwrap();
}

#[test]
fn without_init_there_is_nothing_to_serve() {
    let mut enclave = enclave(Reload::None);
    enclave.told();
    enclave
        .init
        .get_ref()
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    // Nobody is there to hear that it is drained.
    drop(enclave.handle.join());
}

#[test]
fn what_init_says_of_the_process_is_shown() {
    let mut enclave = enclave(Reload::None);
    enclave.told();
    let _listening = enclave.listen();
    enclave
        .handle
        .wait_until_accepting(Duration::from_secs(5))
        .unwrap();
    enclave.says(r#"{"type":"process_exited","code":1,"signal":null,"backoff_ms":100}"#);
    enclave.says(
        r#"{"type":"process_exited","code":null,"signal":15,"backoff_ms":0,"is_planned":true}"#,
    );
    enclave.says(r#"{"type":"process_started","pid":9,"restarts":3}"#);
    let begun = std::time::Instant::now();
    while enclave.handle.health().process_restarts != 3 {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
    let events = enclave.host.events();
    for expected in [
        "state: waiting for the user process",
        "state: accepting traffic",
        "process-exit: the user process ended by exit code 1; again in 100 ms",
        "process-reload: the user process starts anew; it ended by signal 15",
    ] {
        assert!(events.iter().any(|event| event == expected), "{events:?}");
    }
}

/// HEALTHCHECK of the image decides, and a port that accepts does not; with the port alone the same
/// process is healthy at once (`the_process_starts_with_its_secrets_and_traffic_is_accepted_…`).
#[test]
fn what_init_says_of_health_decides_where_the_image_has_a_check() {
    let mut enclave = enclave_with(Reload::None, true);
    enclave.told();
    let _listening = enclave.listen();
    enclave.says(r#"{"type":"process_started","pid":9,"restarts":0}"#);
    enclave.says(r#"{"type":"process_health","is_healthy":null,"reason":"exit code 1"}"#);
    let early = enclave
        .handle
        .wait_until_accepting(Duration::from_millis(300));
    let Err(ServerError::NotReady { reason, .. }) = early else {
        panic!("a port that accepts is no verdict");
    };
    assert_eq!(reason, "exit code 1");

    enclave.says(r#"{"type":"process_health","is_healthy":true,"reason":null}"#);
    enclave
        .handle
        .wait_until_accepting(Duration::from_secs(5))
        .unwrap();
    let health = enclave.handle.health();
    assert_eq!(
        (health.state, health.process_healthy, health.reason),
        (State::Ready, Some(true), None)
    );

    enclave.says(r#"{"type":"process_health","is_healthy":false,"reason":"exit code 2"}"#);
    let begun = std::time::Instant::now();
    let is_reported = || {
        let events = enclave.host.events();
        events.iter().any(|event| event == "health: exit code 2")
    };
    while enclave.handle.health().process_healthy != Some(false) || !is_reported() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
    let reason = enclave.handle.health().reason;
    assert_eq!(reason.as_deref(), Some("exit code 2"));
}

#[test]
fn changed_variables_reach_the_process_as_the_configuration_says() {
    for (reload, expected) in [
        (Reload::Sighup, ToInit::SignalProcess { signal: 1 }),
        (
            Reload::Restart,
            ToInit::RestartProcess { env: env("other") },
        ),
    ] {
        let mut enclave = enclave(reload);
        enclave.told();
        let _listening = enclave.listen();
        enclave
            .handle
            .wait_until_accepting(Duration::from_secs(5))
            .unwrap();
        enclave.host.change_variable("other");
        assert_eq!(enclave.told(), Some(expected));
    }
}

#[test]
fn changed_variables_leave_the_process_alone_by_default() {
    let mut enclave = enclave(Reload::None);
    enclave.told();
    let _listening = enclave.listen();
    enclave
        .handle
        .wait_until_accepting(Duration::from_secs(5))
        .unwrap();
    enclave.host.change_variable("other");
    let begun = std::time::Instant::now();
    while enclave.handle.health().bundle_version != Some(2) {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
    enclave.says(r#"{"type":"drain"}"#);
    assert_eq!(enclave.told(), Some(ToInit::Drained));
}
