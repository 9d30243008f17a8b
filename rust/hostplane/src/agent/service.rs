//! Which call goes where.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cloister_wire::agent::{
    BATCH_SEQUENCE_HEADER, BOOT_HEADER, LogsAcked, MAX_BODY_BYTES, Time, VERSION, VERSION_HEADER,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use hyper::{Method, Request, StatusCode};
use tokio::time::timeout;

use super::answer::{Answer, closing, json, problem, versioned};
use super::segments::{LogWriter, SegmentError};
use super::{BODY_TIMEOUT, Counters, forward, intake};

/// Answers the calls of one enclave.
#[derive(Debug)]
pub(super) struct Service {
    upstream: PathBuf,
    enclave: String,
    writer: LogWriter,
    counters: Arc<Counters>,
}

impl Service {
    pub(super) fn new(
        upstream: PathBuf,
        enclave: String,
        writer: LogWriter,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            upstream,
            enclave,
            writer,
            counters,
        }
    }

    /// Answers one request; what cannot be answered becomes a problem document.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        versioned(match self.decide(request).await {
            Ok(answer) | Err(answer) => answer,
        })
    }

    async fn decide(&self, request: Request<Incoming>) -> Result<Answer, Answer> {
        if let Some(refusal) = newer_version(request.headers()) {
            return Err(refusal);
        }
        let (head, body) = request.into_parts();
        match (head.uri.path(), &head.method) {
            ("/v1/time", &Method::GET) => Ok(json(StatusCode::OK, &now())),
            ("/v1/logs", &Method::POST) => {
                if head.headers.contains_key(CONTENT_ENCODING) {
                    return Err(closing(problem(
                        StatusCode::UNSUPPORTED_MEDIA_TYPE,
                        "expected NDJSON without a content encoding",
                    )));
                }
                self.take_logs(&head.headers, whole(body).await?).await
            }
            ("/v1/time" | "/v1/logs", _) => Err(closing(problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "expected GET /v1/time or POST /v1/logs",
            ))),
            (path, _) if path.starts_with("/v1/") => {
                let body = whole(body).await?;
                forward::forward(&self.upstream, &self.enclave, head, body).await
            }
            _ => Err(closing(problem(
                StatusCode::NOT_FOUND,
                "no such call: the agent API is under /v1/",
            ))),
        }
    }

    async fn take_logs(&self, headers: &HeaderMap, body: Bytes) -> Result<Answer, Answer> {
        let bad = |error: intake::BatchError| problem(StatusCode::BAD_REQUEST, &error.to_string());
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let batch = intake::Batch::check(text(BOOT_HEADER), text(BATCH_SEQUENCE_HEADER), body)
            .map_err(bad)?;
        match self.writer.append(batch).await {
            Ok(acked) => {
                self.counters.acked.store(acked, Ordering::Relaxed);
                Ok(json(StatusCode::OK, &LogsAcked { acked }))
            }
            Err(error @ SegmentError::Busy) => {
                Err(problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()))
            }
            Err(error) => {
                tracing::error!(%error, "logs cannot be written");
                Err(problem(
                    StatusCode::INSUFFICIENT_STORAGE,
                    "the logs cannot be written to the host's disk",
                ))
            }
        }
    }
}

/// wire.md §6: a side that reads a higher version answers with its own and closes.
fn newer_version(headers: &HeaderMap) -> Option<Answer> {
    let value = headers.get(VERSION_HEADER)?;
    let version: Option<u32> = value.to_str().ok().and_then(|text| text.parse().ok());
    match version {
        Some(version) if version <= VERSION => None,
        Some(_) => {
            tracing::warn!("the enclave speaks a newer protocol: the host must be upgraded");
            Some(closing(problem(
                StatusCode::UPGRADE_REQUIRED,
                "the host speaks version 1 and must be upgraded",
            )))
        }
        None => Some(closing(problem(
            StatusCode::BAD_REQUEST,
            "`x-cloister-version` is not a whole number",
        ))),
    }
}

/// Reads a whole body of at most [`MAX_BODY_BYTES`] within [`BODY_TIMEOUT`].
async fn whole(body: Incoming) -> Result<Bytes, Answer> {
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(closing(problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "a body is at most 1 MiB long",
        ))),
        Ok(Err(_)) => Err(closing(problem(
            StatusCode::BAD_REQUEST,
            "the body broke off or is malformed",
        ))),
        Err(_elapsed) => Err(closing(problem(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive within 30 s",
        ))),
    }
}

fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time {
        unix_nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
    }
}
