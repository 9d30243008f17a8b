//! T-06: who is let in.

use cloister_devplane::DevApiKey;
use serde_json::json;

use crate::plane::{Site, wait_until};
use crate::process::Process;

fn get(key: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a\r\nApi-Key: {key}\r\nX-Other: 1\r\n\r\n")
}

#[test]
fn t06_each_refusal_has_its_words_and_nothing_is_forwarded() {
    let site = Site::with(Process::echo(), json!({}));
    let mut client = site.client();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (answer.status, answer.message().as_str()),
        (401, "No api-key header present on request")
    );
    let mut wrong = site.key().to_owned();
    let last = if wrong.ends_with('A') { 'B' } else { 'A' };
    wrong.pop();
    wrong.push(last);
    for bad in [wrong.as_str(), "x", "ck_x_y", &site.key().to_uppercase()] {
        let answer = client.ask(get(bad));
        assert_eq!(
            (answer.status, answer.message().as_str()),
            (401, "Invalid api key provided"),
            "{bad}"
        );
    }
    let twice = format!(
        "GET / HTTP/1.1\r\nHost: a\r\napi-key: {0}\r\napi-key: {0}\r\n\r\n",
        site.key()
    );
    assert_eq!(client.ask(twice).status, 401);
    assert!(site.process.seen().is_empty());
    assert_eq!(client.ask(get(site.key())).status, 200);
    assert_eq!(
        site.process.only().header("api-key"),
        None,
        "the key stays in the data plane"
    );
}

#[test]
fn t06_a_key_of_another_enclave_is_403_and_a_revoked_one_401() {
    let site = Site::with(Process::echo(), json!({}));
    let other = "ck_other_0123456789012345678901234567890123456789abc";
    let key = |value: &str, scope: &str| DevApiKey {
        value: value.to_owned(),
        scopes: vec![scope.to_owned()],
        not_after_ms: None,
    };
    let mut client = site.client();
    assert_eq!(client.ask(get(site.key())).status, 200);
    let elsewhere = "enclave:00000000-0000-4000-8000-000000000000";
    site.plane
        .replace_api_keys(&[key(other, elsewhere)])
        .unwrap();
    wait_until("the revocation", || {
        client.ask(get(site.key())).status == 401
    });
    let answer = client.ask(get(other));
    assert_eq!(answer.status, 403);
    answer.message();
}

#[test]
fn t06_a_key_is_forwarded_only_where_that_is_asked_for() {
    let site = Site::with(Process::echo(), json!({ "forward_api_key": true }));
    assert_eq!(site.client().ask(get(site.key())).status, 200);
    assert_eq!(
        site.process.only().header("api-key").as_deref(),
        Some(site.key())
    );
}

/// `Connection` names headers that end at the next hop: naming ours must not take them away.
#[test]
fn t06_connection_cannot_hide_what_the_data_plane_says() {
    let site = Site::with(Process::echo(), json!({}));
    let request = format!(
        "GET /x HTTP/1.1\r\nHost: a\r\napi-key: {}\r\nX-Mine: 1\r\nX-Keep: 2\r\n\
         Connection: api-key, host, x-evervault-ctx, x-forwarded-for, forwarded, X-Mine\r\n\r\n",
        site.key()
    );
    assert_eq!(site.client().ask(request).status, 200);
    let seen = site.process.only();
    for present in [
        "host",
        "x-evervault-ctx",
        "x-forwarded-for",
        "forwarded",
        "x-keep",
    ] {
        assert!(seen.header(present).is_some(), "{present}: {}", seen.head);
    }
    for absent in ["x-mine", "connection", "api-key"] {
        assert_eq!(seen.header(absent), None, "{}", seen.head);
    }
}
