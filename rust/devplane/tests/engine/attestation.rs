//! T-07 and the attestation endpoint: the document binds the key of this very connection.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloister_attestation::{Policy, TrustAnchor, UnixMillis, verify};
use serde_json::json;

use crate::client::Client;
use crate::plane::Site;
use crate::process::Process;

fn document(client: &mut Client, query: &str) -> Vec<u8> {
    let answer = client.ask(format!(
        "GET /.well-known/attestation{query} HTTP/1.1\r\nHost: a\r\n\r\n"
    ));
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-origin").as_deref(),
        Some("*")
    );
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    STANDARD
        .decode(json["attestation_doc"].as_str().unwrap())
        .unwrap()
}

fn claims(site: &Site, document: &[u8]) -> cloister_attestation::Claims {
    let anchor = TrustAnchor::dangerous_root(site.plane.nsm_root_der()).unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = UnixMillis(now.as_millis().try_into().unwrap());
    let policy = Policy::builder()
        .anchor(anchor)
        .dangerous_accept_debug()
        .dangerous_any_measurement()
        .build();
    verify(document, &policy.unwrap(), now).unwrap()
}

#[test]
fn t07_the_document_binds_the_key_and_carries_the_nonce() {
    let site = Site::with(Process::echo(), json!({}));
    let mut client = site.client();
    let cached = document(&mut client, "");
    assert_eq!(
        cached,
        document(&mut client, ""),
        "without a nonce it is kept"
    );
    let user_data = claims(&site, &cached).user_data.unwrap();
    let certificate = client.certificate();
    assert!(
        crate::client::find(&certificate, &user_data).is_some(),
        "the leaf's public key"
    );
    let nonce = [7; 32];
    let fresh = document(
        &mut client,
        &format!("?nonce={}", URL_SAFE_NO_PAD.encode(nonce)),
    );
    let fresh = claims(&site, &fresh);
    assert_eq!(fresh.nonce.as_deref(), Some(&nonce[..]));
    assert_eq!(fresh.user_data, Some(user_data));
    assert!(
        site.process.seen().is_empty(),
        "the user process is not asked"
    );
}

#[test]
fn t07_the_endpoint_judges_method_and_nonce() {
    let site = Site::with(
        Process::echo(),
        json!({ "attestation_cors": { "origin": "https://a.example" } }),
    );
    let mut client = site.client();
    let path = "/.well-known/attestation";
    client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(client.answer_to_head().status, 200);
    let preflight = client.ask(format!("OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n\r\n"));
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("access-control-allow-origin").as_deref(),
        Some("https://a.example")
    );
    for (method, query, status) in [
        ("POST", "", 405),
        ("DELETE", "", 405),
        ("GET", "?nonce=AAAA", 400),
        ("GET", "?nonce=!", 400),
    ] {
        let answer = client.ask(format!(
            "{method} {path}{query} HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        assert_eq!(answer.status, status, "{method} {query}");
        answer.message();
    }
    // Only that path: what merely begins like it needs a key.
    assert_eq!(
        client
            .ask(format!("GET {path}x HTTP/1.1\r\nHost: a\r\n\r\n"))
            .status,
        401
    );
}
