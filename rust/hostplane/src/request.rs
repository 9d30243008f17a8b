//! One small HTTP/1.1 request over any address: health, drain, metrics.
//!
//! Blocking, for callers that poll once a second; nothing here is on a path of many requests. The
//! peer is not trusted: its head and body are bounded, and so is the time it may take.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use cloister_transport::{Address, connect};
use cloister_wire::agent;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::timeout;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, at most [`MAX_BODY_BYTES`] long.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum RequestError {
    /// `method` or `path` cannot be sent.
    #[error("`{field}` is not one of HTTP")]
    Argument {
        /// Which argument.
        field: &'static str,
    },
    /// The peer's answer is not HTTP/1.1, too long, or cut off.
    #[error("the answer broke off or is not HTTP/1.1 within the limits")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// No whole answer in time.
    #[error("no answer within {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
}

/// Sends one request and waits for the whole answer, at most `limit` in all.
///
/// # Errors
///
/// The variants of [`RequestError`], in the order `Argument`, `Connect`, `Broken`; `TimedOut` at
/// any point after the first.
pub fn request(
    address: &Address,
    method: &str,
    path: &str,
    body: Vec<u8>,
    limit: Duration,
) -> Result<Response, RequestError> {
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| RequestError::Argument { field: "method" })?;
    let uri: Uri = path
        .starts_with('/')
        .then(|| path.parse().ok())
        .flatten()
        .ok_or(RequestError::Argument { field: "path" })?;
    let made = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::HOST, "enclave")
        .header(agent::VERSION_HEADER, agent::VERSION)
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(broken)?;
    runtime.block_on(async {
        timeout(limit, exchange(address, made, limit))
            .await
            .unwrap_or(Err(RequestError::TimedOut { limit }))
    })
}

async fn exchange(
    address: &Address,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Response, RequestError> {
    let stream = connect(address, limit)
        .await
        .map_err(|source| RequestError::Connect {
            address: address.clone(),
            source,
        })?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES)
            .collect()
            .await
            .map_err(RequestError::Broken)?
            .to_bytes()
            .into();
        Ok(Response { status, body })
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

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RequestError {
    RequestError::Broken(error.into())
}

/// Largest body of an answer, in bytes: `/metrics` is the longest.
pub const MAX_BODY_BYTES: usize = 1 << 20;
const MAX_HEAD_BYTES: usize = 16 * 1024;
