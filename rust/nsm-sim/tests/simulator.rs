//! The simulator through the production verifier, its limits, its root on disk, and its socket.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(clippy::expect_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use cloister_attestation::{
    Measurements, PcrIndex, Policy, TrustAnchor, UnixMillis, VerifyError, decode_unverified, verify,
};
use cloister_nsm::{DocumentRequest, ErrorCode, NsmError, NsmProvider as _, SocketNsm};
use cloister_nsm_sim::serve::serve_connection;
use cloister_nsm_sim::{DevelopmentRoot, KEY_FILE, LocalNsm, RootError, Simulator, SimulatorError};

const NOW: UnixMillis = UnixMillis(1_790_000_000_123);
const PCR0: [u8; 48] = [0x11; 48];

fn root() -> DevelopmentRoot {
    DevelopmentRoot::generate(NOW).expect("a root")
}

fn local(root: &DevelopmentRoot) -> LocalNsm {
    let pcrs = [(0, PCR0), (1, [0x22; 48]), (2, [0x33; 48])];
    let simulator = Simulator::new(root, pcrs, "i-sim-enc1", NOW).expect("a simulator");
    LocalNsm::new(simulator, || NOW)
}

fn policy(root: &DevelopmentRoot) -> Policy {
    Policy::builder()
        .anchor(root.dangerous_anchor().expect("an anchor"))
        .accept(Measurements::new([(PcrIndex::IMAGE, PCR0)]).expect("a set"))
        .build()
        .expect("a policy")
}

fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("cl-{name}-{}-{unique}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

#[test]
fn a_simulated_document_verifies_under_its_root_alone() {
    let root = root();
    let request = DocumentRequest {
        user_data: Some(b"spki".to_vec()),
        nonce: Some(vec![3; 32]),
        public_key: Some(vec![4; 1024]),
    };
    let document = local(&root)
        .attestation_document(&request)
        .expect("a document");
    let expected = policy(&root)
        .with_user_data(b"spki")
        .with_nonce(vec![3; 32]);
    let claims = verify(&document, &expected, NOW).expect("the twin that verifies");
    assert_eq!(claims.module_id, "i-sim-enc1");
    assert_eq!(claims.public_key, Some(vec![4; 1024]));
    assert_eq!(claims.pcrs.iter().count(), 16);
    let production = Policy::builder()
        .dangerous_any_measurement()
        .build()
        .expect("a policy");
    assert!(production.anchor().is_aws_nitro());
    assert!(matches!(
        verify(&document, &production, NOW),
        Err(VerifyError::UntrustedChain(_))
    ));
    let other = self::root();
    assert!(matches!(
        verify(&document, &policy(&other), NOW),
        Err(VerifyError::UntrustedChain(_))
    ));
}

#[test]
fn the_chain_has_the_shape_of_the_genuine_one() {
    let root = root();
    let document = local(&root)
        .attestation_document(&DocumentRequest::default())
        .expect("one");
    let decoded = decode_unverified(&document).expect("decodes");
    assert_eq!(decoded.cabundle.len(), 4);
    assert_eq!(decoded.cabundle[0], root.certificate_der());
    let lives: Vec<u64> = decoded.validity[1..]
        .iter()
        .map(|(from, to)| to.since(*from).as_secs() / 3600)
        .collect();
    assert_eq!(lives, [20 * 24, 6 * 24, 24, 3]);
    // Every name says that this is not AWS.
    for certificate in decoded.cabundle.iter().chain([&decoded.certificate]) {
        let text = String::from_utf8_lossy(certificate);
        assert!(text.contains("simulated, not AWS"));
        assert!(certificate.len() <= 1024);
    }
}

/// Days of uptime: at any moment the document verifies, with an hour of its leaf left.
#[test]
fn certificates_are_renewed_before_they_expire() {
    let root = root();
    let clock = Arc::new(AtomicU64::new(NOW.0));
    let simulator = Simulator::new(&root, [(0, PCR0)], "i-sim", NOW).expect("a simulator");
    let reading = Arc::clone(&clock);
    let nsm = LocalNsm::new(simulator, move || {
        UnixMillis(reading.load(Ordering::Relaxed))
    });
    for hours in [
        0, 1, 2, 3, 19, 21, 24, 100, 130, 144, 400, 470, 480, 481, 2000,
    ] {
        let now = NOW.plus(Duration::from_secs(hours * 3600));
        clock.store(now.0, Ordering::Relaxed);
        let document = nsm
            .attestation_document(&DocumentRequest::default())
            .expect("one");
        let claims = verify(&document, &policy(&root), now).expect("verifies");
        let left = claims.certificate_not_after.since(now);
        assert!(left >= Duration::from_secs(3599), "{hours} h: {left:?}");
    }
    // A clock that steps back gets a chain that is valid then.
    clock.store(NOW.0, Ordering::Relaxed);
    let document = nsm
        .attestation_document(&DocumentRequest::default())
        .expect("one");
    verify(&document, &policy(&root), NOW).expect("verifies");
}

#[test]
fn zero_registers_are_a_debug_enclave() {
    let root = root();
    let simulator = Simulator::new(&root, [], "i-sim", NOW).expect("a simulator");
    let document = LocalNsm::new(simulator, || NOW)
        .attestation_document(&DocumentRequest::default())
        .expect("a document");
    let any = Policy::builder()
        .anchor(root.dangerous_anchor().expect("an anchor"))
        .dangerous_any_measurement();
    let strict = any.clone().build().expect("a policy");
    assert_eq!(
        verify(&document, &strict, NOW),
        Err(VerifyError::DebugEnclave)
    );
    let lax = any.dangerous_accept_debug().build().expect("a policy");
    assert!(
        verify(&document, &lax, NOW)
            .expect("accepted by name")
            .is_debug
    );
}

#[test]
fn limits_and_errors_are_those_of_the_nsm() {
    let root = root();
    let nsm = local(&root);
    let code = |answer: Result<Vec<u8>, NsmError>| match answer {
        Err(NsmError::Refused { code, .. }) => Some(code),
        Ok(_) => None,
        Err(other) => panic!("{other:?}"),
    };
    let ask = |user_data: usize, nonce: usize, public_key: usize| {
        code(nsm.attestation_document(&DocumentRequest {
            user_data: Some(vec![0; user_data]),
            nonce: Some(vec![0; nonce]),
            public_key: Some(vec![0; public_key]),
        }))
    };
    assert_eq!(ask(512, 512, 1024), None);
    assert_eq!(ask(513, 0, 0), Some(ErrorCode::InputTooLarge));
    assert_eq!(ask(0, 513, 0), Some(ErrorCode::InputTooLarge));
    assert_eq!(ask(0, 0, 1025), Some(ErrorCode::InputTooLarge));
    assert_eq!(
        code(nsm.extend_pcr(0, b"x")),
        Some(ErrorCode::ReadOnlyIndex)
    );
    assert_eq!(
        code(nsm.extend_pcr(32, b"x")),
        Some(ErrorCode::InvalidIndex)
    );
    let description = nsm.describe().expect("a description");
    assert_eq!(
        (description.max_pcrs, description.digest.as_str()),
        (32, "SHA384")
    );
    assert_eq!(description.locked_pcrs, (0..16).collect::<Vec<u16>>());
    let mut random = [0; 600];
    nsm.random(&mut random).expect("entropy");
    assert!(
        random
            .chunks(100)
            .all(|chunk| chunk.iter().any(|byte| *byte != 0))
    );
    let unnamed = Simulator::new(&root, [], "", NOW);
    assert!(matches!(
        unnamed,
        Err(SimulatorError::ModuleId { length: 0 })
    ));
}

/// A register of the application's own is in documents from its lock on.
#[test]
fn an_extended_and_locked_register_is_attested() {
    let root = root();
    let nsm = local(&root);
    let index = PcrIndex::new(17).expect("an index");
    let pcrs = || {
        let document = nsm
            .attestation_document(&DocumentRequest::default())
            .expect("one");
        verify(&document, &policy(&root), NOW)
            .expect("verifies")
            .pcrs
    };
    let value = nsm.extend_pcr(17, b"model v1").expect("extended");
    assert_eq!(pcrs().value(index), None);
    nsm.lock_pcr(17).expect("locked");
    assert_eq!(pcrs().value(index), Some(value.as_slice()));
}

#[test]
fn garbage_is_answered_with_an_error() {
    let root = root();
    let mut simulator = Simulator::new(&root, [], "i-sim", NOW).expect("a simulator");
    for request in [&b""[..], b"\xff", b"\x66Reboot", &[0; 5000]] {
        let answer = simulator.handle(request, NOW);
        assert!(answer.starts_with(b"\xa1\x65Error"), "{answer:?}");
    }
}

#[test]
fn the_root_is_made_once_and_for_its_owner() {
    let dir = folder("root");
    let made = DevelopmentRoot::load_or_create(&dir, NOW).expect("made");
    let again = DevelopmentRoot::load_or_create(&dir, NOW).expect("loaded");
    assert_eq!(made.certificate_der(), again.certificate_der());
    let key = dir.join(KEY_FILE);
    let mode = fs::metadata(&key).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::metadata(&dir).expect("the folder").permissions().mode() & 0o777,
        0o700
    );
    // What one instance of the root signs, the other one's anchor believes.
    let nsm = local(&again);
    let document = nsm
        .attestation_document(&DocumentRequest::default())
        .expect("a document");
    verify(&document, &policy(&made), NOW).expect("verifies");
    // The certificate can be made again from the key, for a crash between the two files.
    fs::remove_file(dir.join("nsm-root.pem")).expect("removed");
    DevelopmentRoot::load_or_create(&dir, NOW).expect("certified again");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("exposed");
    assert!(matches!(
        DevelopmentRoot::load_or_create(&dir, NOW),
        Err(RootError::Exposed { mode: 0o644, .. })
    ));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("hidden");
    let foreign = root().certificate_pem();
    fs::write(dir.join("nsm-root.pem"), foreign).expect("written");
    assert!(matches!(
        DevelopmentRoot::load_or_create(&dir, NOW),
        Err(RootError::Unrelated { .. })
    ));
    fs::remove_file(&key).expect("removed");
    assert!(matches!(
        DevelopmentRoot::load_or_create(&dir, NOW),
        Err(RootError::NoKey { .. })
    ));
    fs::remove_dir_all(&dir).expect("cleaned");
}

/// Threads that start together get one root.
#[test]
fn a_race_makes_one_root() {
    let dir = folder("race");
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let dir = dir.clone();
            std::thread::spawn(move || {
                let root = DevelopmentRoot::load_or_create(&dir, NOW).expect("a root");
                root.certificate_der().to_vec()
            })
        })
        .collect();
    let roots: Vec<Vec<u8>> = threads
        .into_iter()
        .map(|thread| thread.join().expect("joined"))
        .collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    fs::remove_dir_all(&dir).expect("cleaned");
}

#[test]
fn the_socket_carries_the_same_protocol() {
    let dir = folder("socket");
    fs::create_dir_all(&dir).expect("a folder");
    let path = dir.join("nsm.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let root = root();
    let module = local(&root);
    let server = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().expect("accepted");
            let _ = serve_connection(&mut stream, &module, Duration::from_secs(5));
        }
    });
    let nsm = SocketNsm::new(&path);
    assert_eq!(nsm.describe().expect("described").module_id, "i-sim-enc1");
    let document = nsm
        .attestation_document(&DocumentRequest::default())
        .expect("a document");
    verify(&document, &policy(&root), NOW).expect("verifies");
    let refused = nsm.lock_pcr(0).expect_err("locked at boot");
    assert_eq!(
        refused.to_string(),
        "the NSM refused `LockPCR`: ReadOnlyIndex"
    );
    server.join().expect("ended");
    fs::remove_dir_all(&dir).expect("cleaned");
}

/// A silent peer costs the deadline, one that sends a byte now and then no more.
#[test]
fn a_silent_module_is_given_up() {
    let dir = folder("silent");
    fs::create_dir_all(&dir).expect("a folder");
    let path = dir.join("nsm.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let nsm = SocketNsm::new(&path).with_deadline(Duration::from_millis(50));
    assert!(matches!(nsm.describe(), Err(NsmError::Deadline { .. })));
    drop(listener);
    assert!(matches!(nsm.describe(), Err(NsmError::Io { .. })));
    fs::remove_dir_all(&dir).expect("cleaned");
}

/// The anchor of a development root is never the production one.
#[test]
fn a_development_anchor_is_not_the_production_anchor() {
    let anchor = root().dangerous_anchor().expect("an anchor");
    assert!(!anchor.is_aws_nitro());
    assert_ne!(anchor, TrustAnchor::aws_nitro());
}
