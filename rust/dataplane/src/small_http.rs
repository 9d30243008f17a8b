//! HTTP/1.1 for the enclave's own small servers: health and the internal API.
//!
//! Requests are few and small; a connection, a head and a body are bounded in number, time and
//! size. Traffic of clients never comes here: that is the engine's.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloister_transport::Listener;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A whole answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// An answer that says no, on the error path.
pub(crate) type Refused = Box<Answer>;

/// Answers requests.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers one request; what cannot be answered becomes an error answer.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// Serves until it is dropped, or the listening socket breaks.
pub(crate) async fn serve(listener: Listener, service: Arc<impl Service>) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        let accepted = listener.accept().await?;
        let service = Arc::clone(&service);
        let connection = async move {
            let answer = service_fn(|request| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(service.answer(request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(accepted.stream), answer);
            // A peer that breaks off or sends nonsense ends its own connection.
            drop(timeout(CONNECTION_DEADLINE, connection).await);
        };
        connections.spawn(connection);
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn whole(body: Incoming, limit: usize) -> Result<Bytes, Refused> {
    match timeout(BODY_DEADLINE, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the body is longer than {limit} bytes"),
        )
        .into()),
        Ok(Err(_)) => Err(refusal(
            StatusCode::BAD_REQUEST,
            "the body broke off or is malformed",
        )
        .into()),
        Err(_elapsed) => Err(refusal(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )
        .into()),
    }
}

/// `{"message": …}` with a status.
pub(crate) fn refusal(status: StatusCode, message: &str) -> Answer {
    json(status, &serde_json::json!({ "message": message }))
}

/// 405 that names what is allowed.
pub(crate) fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("expected {allowed}"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // The values are maps of text and numbers: they always have a JSON form.
    let body = serde_json::to_vec(value).unwrap_or_default();
    answer(status, "application/json", body)
}

/// An answer of any type.
pub(crate) fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Connections served at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 128;
/// Longest head, bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// A connection is closed after this, idle or not: callers connect again.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(300);
