//! What a host can answer, and what the enclave makes of it. Answers are raw bytes over a socket.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// A host that takes one connection, answers with these bytes and says what it was asked.
async fn host(answer: impl Into<Vec<u8>>) -> (HttpAgent, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer.into();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let mut room = [0; 4096];
        while !is_whole(&request) {
            let length = stream.read(&mut room).await.unwrap();
            assert!(length > 0, "the request broke off");
            request.extend_from_slice(&room[..length]);
        }
        // The peer may stop listening before the last byte of an answer that is too long.
        let _is_gone = stream.write_all(&answer).await;
        String::from_utf8(request).unwrap()
    });
    let address = Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    };
    (HttpAgent::new(address), asked)
}

/// Head and body, as far as Content-Length says.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let head = std::str::from_utf8(&request[..end]).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    request.len() >= end.saturating_add(4).saturating_add(length)
}

fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_challenge_is_32_bytes() {
    let text = STANDARD.encode([7; 32]);
    let (agent, asked) = host(json(
        "200 OK",
        &format!("{{\"challenge\":\"{text}\",\"new\":1}}"),
    ))
    .await;
    assert_eq!(agent.challenge().await.unwrap(), [7; 32]);
    let asked = asked.await.unwrap();
    assert!(
        asked.starts_with("POST /v1/challenge HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("x-cloister-version: 1\r\n"), "{asked}");

    for body in [
        r#"{"challenge":"AAAA"}"#,
        r#"{"challenge":"%"}"#,
        "{}",
        "[",
        "",
    ] {
        let (agent, _asked) = host(json("200 OK", body)).await;
        let error = agent.challenge().await.unwrap_err();
        assert!(
            matches!(error, AgentError::Malformed { .. }),
            "{body}: {error}"
        );
    }
}

#[tokio::test]
async fn a_document_goes_out_and_a_bundle_comes_back() {
    let (agent, asked) = host(json("200 OK", r#"{"bundle":"AQID"}"#)).await;
    assert_eq!(agent.provision(vec![0xFF]).await.unwrap(), [1, 2, 3]);
    let asked = asked.await.unwrap();
    assert!(asked.ends_with(r#"{"attestation_doc":"/w=="}"#), "{asked}");
}

#[tokio::test]
async fn a_poll_gives_a_bundle_or_nothing() {
    let (agent, asked) = host("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(agent.newer_bundle(41).await.unwrap(), None);
    let asked = asked.await.unwrap();
    assert!(
        asked.starts_with("GET /v1/bundle?after=41 HTTP/1.1\r\n"),
        "{asked}"
    );
    let (agent, _asked) = host(json("200 OK", r#"{"bundle":"AQID"}"#)).await;
    assert_eq!(agent.newer_bundle(41).await.unwrap(), Some(vec![1, 2, 3]));
}

#[tokio::test]
async fn a_refusal_keeps_its_status_and_nothing_of_its_words() {
    let (agent, _asked) = host(json("403 Forbidden", "{\"message\":\"\u{1b}[31m\"}")).await;
    let error = agent.provision(Vec::new()).await.unwrap_err();
    assert!(
        matches!(error, AgentError::Refused { status: 403, .. }),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "the host answered `POST /v1/provision` with status 403"
    );
}

#[tokio::test]
async fn an_order_id_cannot_lead_to_another_path() {
    let (agent, asked) = host(json("202 Accepted", r#"{"id":"a-Z_9"}"#)).await;
    assert_eq!(
        agent
            .order(vec![1], vec!["a.example".into()])
            .await
            .unwrap(),
        "a-Z_9"
    );
    let asked = asked.await.unwrap();
    assert!(
        asked.ends_with(r#"{"csr":"AQ==","domains":["a.example"]}"#),
        "{asked}"
    );
    for id in ["../bundle", "a/b", "a?b", "", "a b"] {
        let (agent, _asked) = host(json("202 Accepted", &format!("{{\"id\":\"{id}\"}}"))).await;
        let error = agent.order(Vec::new(), Vec::new()).await.unwrap_err();
        assert!(matches!(error, AgentError::Malformed { .. }), "{id}");
    }
}

#[tokio::test]
async fn logs_carry_their_boot_and_their_number() {
    let (agent, asked) = host(json("200 OK", r#"{"acked":9}"#)).await;
    let batch = Batch {
        last_sequence: 9,
        ndjson: b"{}\n".to_vec(),
    };
    assert_eq!(agent.logs("b007".into(), batch).await.unwrap(), 9);
    let asked = asked.await.unwrap().to_lowercase();
    for line in ["x-batch-sequence: 9\r\n", "x-cloister-boot: b007\r\n"] {
        assert!(asked.contains(line), "{asked}");
    }
}

/// The host is the attacker: an endless head or body must cost a bounded amount.
#[tokio::test]
async fn what_is_too_long_is_cut_off() {
    let long = "x".repeat(MAX_BODY_BYTES);
    let (agent, _asked) = host(json("200 OK", &format!("{{\"challenge\":\"{long}\"}}"))).await;
    let error = agent.challenge().await.unwrap_err();
    assert!(
        matches!(
            error,
            AgentError::Malformed {
                problem: "is longer than 1 MiB",
                ..
            }
        ),
        "{error}"
    );

    let head = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
        "x".repeat(2 * MAX_HEAD_BYTES)
    );
    let (agent, _asked) = host(head).await;
    let error = agent.challenge().await.unwrap_err();
    assert!(matches!(error, AgentError::Io { .. }), "{error}");
}

#[tokio::test]
async fn nonsense_and_a_broken_connection_are_errors_at_once() {
    for answer in [
        "",
        "hello\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let begun = Instant::now();
        let (agent, _asked) = host(answer).await;
        agent.challenge().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(2), "{answer:?}");
    }
}

/// A host that accepts and says nothing holds one call, for its deadline.
#[tokio::test(start_paused = true)]
async fn a_silent_host_is_given_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = HttpAgent::new(Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    });
    let error = agent.challenge().await.unwrap_err();
    assert!(
        matches!(error, AgentError::Deadline { .. } | AgentError::Io { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_object_comes_with_its_tag_or_there_is_none() {
    let answer = "HTTP/1.1 200 OK\r\netag: \"abc\"\r\ncontent-length: 3\r\n\r\n\u{1}\u{2}\u{3}";
    let (agent, asked) = host(answer).await;
    let found = agent.read("tls.x").await.unwrap().unwrap();
    assert_eq!(found.body, [1, 2, 3]);
    assert_eq!(found.tag.0, "\"abc\"");
    let asked = asked.await.unwrap();
    assert!(
        asked.starts_with("GET /v1/objects/tls.x HTTP/1.1\r\n"),
        "{asked}"
    );

    let (agent, _asked) = host(json("404 Not Found", "{}")).await;
    assert!(agent.read("tls.x").await.unwrap().is_none());
    // Without a tag it could be replaced by nobody; a long one would be sent back.
    let long = format!(
        "HTTP/1.1 200 OK\r\netag: {}\r\ncontent-length: 0\r\n\r\n",
        "x".repeat(257)
    );
    for answer in [json("200 OK", "{}"), long] {
        let (agent, _asked) = host(answer).await;
        let error = agent.read("tls.x").await.unwrap_err();
        assert!(matches!(error, AgentError::Malformed { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_write_says_its_condition_and_hears_whether_it_held() {
    let only = Only::If(EntityTag(HeaderValue::from_static("\"abc\"")));
    for (only, line) in [
        (Only::IfAbsent, "if-none-match: *\r\n"),
        (only, "if-match: \"abc\"\r\n"),
    ] {
        let (agent, asked) = host("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(
            agent
                .write("tls.x", vec![b'a'], only.clone())
                .await
                .unwrap()
        );
        let asked = asked.await.unwrap();
        assert!(
            asked.starts_with("PUT /v1/objects/tls.x HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains(line) && asked.ends_with("\r\n\r\na"),
            "{asked}"
        );
        let (agent, _asked) = host(json("412 Precondition Failed", "{}")).await;
        assert!(!agent.write("tls.x", vec![b'a'], only).await.unwrap());
    }
    let (agent, _asked) = host(json("500 Internal Server Error", "{}")).await;
    let error = agent
        .write("tls.x", vec![1], Only::IfAbsent)
        .await
        .unwrap_err();
    assert!(
        matches!(error, AgentError::Refused { status: 500, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_head_is_recorded_or_another_one_is() {
    let head = Head {
        version: 7,
        sha256: [0; 32],
        proof: [0xFF; 32],
    };
    let (agent, asked) = host("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(agent.record("tls.x", head).await.unwrap());
    let asked = asked.await.unwrap();
    let (zeros, ones) = (STANDARD.encode([0; 32]), STANDARD.encode([0xFF; 32]));
    let body = format!("{{\"version\":7,\"sha256\":\"{zeros}\",\"proof\":\"{ones}\"}}");
    assert!(
        asked.starts_with("POST /v1/objects/tls.x/head HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.ends_with(&body), "{asked}");
    let (agent, _asked) = host(json("409 Conflict", "{}")).await;
    assert!(!agent.record("tls.x", head).await.unwrap());
    let (agent, _asked) = host(json("403 Forbidden", "{}")).await;
    let error = agent.record("tls.x", head).await.unwrap_err();
    assert!(
        matches!(error, AgentError::Refused { status: 403, .. }),
        "{error}"
    );
}
