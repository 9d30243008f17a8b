//! A certificate is replaced while clients are served: nobody is dropped, refused or delayed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::plane::{Changes, Site};
use crate::process::Process;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Two thirds of it are the minute that a renewal waits at least.
const LIFE: Duration = Duration::from_secs(90);

/// Connections of before go on, with the certificate that they were shown; new ones get the next.
#[test]
#[ignore = "a renewal comes after a minute; `make conformance` waits for it"]
fn a_renewal_under_load_drops_nobody() {
    let changes = Changes {
        config: json!({ "api_key_auth": false }),
        certificate_life: Some(LIFE),
        ..Changes::default()
    };
    let site = Site::changed(Process::echo(), changes);
    let mut kept: Vec<_> = (0..8).map(|_| site.client()).collect();
    let first = kept[0].certificate();
    let (begun, mut renewed_at) = (Instant::now(), None);
    let mut fresh = 0;
    // Until some seconds after the renewal, and no longer than the first certificate lives.
    while renewed_at.is_none_or(|at: Instant| at.elapsed() < Duration::from_secs(5)) {
        assert!(begun.elapsed() < LIFE, "no renewal came");
        for client in &mut kept {
            let asked = Instant::now();
            assert_eq!(client.ask(GET).status, 200);
            assert!(asked.elapsed() < Duration::from_secs(1));
        }
        let mut client = site.client();
        assert_eq!(client.ask(GET).status, 200);
        fresh += 1;
        let is_next = client.certificate() != first;
        assert!(
            is_next || renewed_at.is_none(),
            "the old certificate came back"
        );
        if is_next && renewed_at.is_none() {
            renewed_at = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(kept.iter().all(|client| client.certificate() == first));
    let stats = site.plane.stats();
    assert_eq!(
        (stats.failed_handshakes, stats.shed, stats.refused),
        (0, 0, 0)
    );
    assert_eq!(stats.connections, 8 + fresh);
}
