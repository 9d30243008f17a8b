//! Answers this half gives itself: JSON, and RFC 9457 problem documents.

use bytes::Bytes;
use cloister_wire::agent::{VERSION, VERSION_HEADER};
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

pub(super) type Answer = Response<Full<Bytes>>;

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    with_type(status, "application/json", body)
}

/// A problem document. `detail` is ours, never the peer's text.
pub(super) fn problem(status: StatusCode, detail: &str) -> Answer {
    #[derive(Serialize)]
    struct Problem<'a> {
        title: &'a str,
        status: u16,
        detail: &'a str,
    }
    let body = Problem {
        title: status.canonical_reason().unwrap_or("error"),
        status: status.as_u16(),
        detail,
    };
    with_type(status, "application/problem+json", &body)
}

/// The same answer, after which the connection is closed.
pub(super) fn closing(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Every answer names the protocol's version (wire.md §6).
pub(super) fn versioned(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(VERSION_HEADER, HeaderValue::from(VERSION));
    answer
}

fn with_type(status: StatusCode, content_type: &'static str, body: &impl Serialize) -> Answer {
    // Plain structs of numbers and text always serialize.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
