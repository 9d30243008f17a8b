//! Hands a call to the Python half: one connection for each, over its Unix socket.
//!
//! A handful of calls an hour cross here, so nothing is pooled. What is forwarded is made anew from
//! what was parsed; who is asking is set here and a peer's own claim is dropped.

use std::path::Path;

use bytes::Bytes;
use cloister_transport::{Address, connect};
use cloister_wire::agent::{ENCLAVE_HEADER, MAX_BODY_BYTES};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, ETAG, HOST, HeaderName, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::ANSWER_TIMEOUT;
use super::answer::{Answer, problem};

/// Forwards and waits for the whole answer, at most [`ANSWER_TIMEOUT`].
pub(super) async fn forward(
    upstream: &Path,
    enclave: &str,
    head: Parts,
    body: Bytes,
) -> Result<Answer, Answer> {
    let request = remade(enclave, &head, body).ok_or_else(|| {
        problem(
            StatusCode::BAD_REQUEST,
            "the request target cannot be forwarded",
        )
    })?;
    let failed = |error: Failed| {
        tracing::warn!(%error, "the agent application did not answer");
        problem(
            StatusCode::BAD_GATEWAY,
            "the host's agent application did not answer",
        )
    };
    match timeout(ANSWER_TIMEOUT, exchange(upstream, request)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_elapsed) => Err(problem(
            StatusCode::GATEWAY_TIMEOUT,
            "the host's agent application took too long",
        )),
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn remade(enclave: &str, head: &Parts, body: Bytes) -> Option<Request<Full<Bytes>>> {
    let target = head.uri.path_and_query()?.as_str();
    let mut builder = Request::builder()
        .method(head.method.clone())
        .uri(target)
        .header(HOST, "host")
        .header(ENCLAVE_HEADER, enclave);
    for name in FORWARDED {
        for value in head.headers.get_all(name) {
            builder = builder.header(name, value);
        }
    }
    builder.body(Full::new(body)).ok()
}

async fn exchange(upstream: &Path, request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
    let address = Address::Unix(upstream.to_owned());
    let stream = connect(&address, ANSWER_TIMEOUT).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await?;
        let mut answer = Response::new(Full::new(body.to_bytes()));
        *answer.status_mut() = head.status;
        for name in RETURNED {
            if let Some(value) = head.headers.get(name) {
                answer.headers_mut().insert(name.clone(), value.clone());
            }
        }
        Ok(answer)
    };
    tokio::pin!(connection, asking);
    // The connection is driven here and not by a task: nothing outlives the call.
    let mut driven = false;
    loop {
        tokio::select! {
            answer = &mut asking => return answer,
            _ = &mut connection, if !driven => driven = true,
        }
    }
}

/// Header fields of a request that the calls of wire.md §2 use.
const FORWARDED: [&HeaderName; 3] = [&CONTENT_TYPE, &IF_MATCH, &IF_NONE_MATCH];
/// And those of an answer.
const RETURNED: [&HeaderName; 3] = [&CONTENT_TYPE, &ETAG, &RETRY_AFTER];
