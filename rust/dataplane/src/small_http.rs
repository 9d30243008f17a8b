//! HTTP/1.1 for the enclave's own small servers: health and the internal API.
//!
//! Requests are few and small; a connection, a head and a body are bounded in number, time and
//! size. Traffic of clients never comes here: that is the engine's.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cloister_ciphertext::wipe;
use cloister_transport::Listener;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::held::Held;

/// An answer whose body is there whole.
pub(crate) type Answer = Response<Pieces>;

/// A body that is there whole, in pieces, and the room it takes.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    left: VecDeque<Bytes>,
    _room: Vec<Held>,
}

impl Pieces {
    /// A body that gives `room` back when it has been sent, or nobody wants it any more.
    pub(crate) fn new(pieces: VecDeque<Bytes>, room: Vec<Held>) -> Self {
        Self {
            left: pieces,
            _room: room,
        }
    }

    /// Clear text: wiped when it has been sent. Cut, so that what the connection copies into a buffer
    /// of its own is little.
    pub(crate) fn secret(clear: Zeroizing<Vec<u8>>, room: Vec<Held>) -> Self {
        let mut rest = Bytes::from_owner(Secret(clear));
        let mut pieces = VecDeque::new();
        while !rest.is_empty() {
            pieces.push_back(rest.split_to(rest.len().min(SECRET_PIECE_BYTES)));
        }
        Self::new(pieces, room)
    }
}

struct Secret(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let lengths = self.left.iter().map(Bytes::len);
        let length = lengths.fold(0, usize::saturating_add);
        SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}

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
pub(crate) async fn whole(body: &mut Incoming, limit: usize) -> Result<Bytes, Refused> {
    match timeout(BODY_DEADLINE, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the body is longer than {limit} bytes"),
        )
        .into()),
        Ok(Err(_)) => Err(broken_off()),
        Err(_elapsed) => Err(too_slow()),
    }
}

/// The next piece of a body, as it arrives; `None` at its end.
pub(crate) async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, Refused> {
    loop {
        match timeout(BODY_DEADLINE, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                // Trailers say nothing here.
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
            Ok(Some(Err(_))) => return Err(broken_off()),
            Err(_elapsed) => return Err(too_slow()),
        }
    }
}

/// Reads a body that nobody wants any more, for a while: many clients send all of it before they read
/// an answer, and one whose connection is closed meanwhile never sees it.
pub(crate) async fn drain(body: &mut Incoming) {
    let mut left = MOST_DRAINED_BYTES;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _elapsed = timeout(DRAIN_DEADLINE, rest).await;
}

fn broken_off() -> Refused {
    let message = "the body broke off or is malformed";
    refusal(StatusCode::BAD_REQUEST, message).into()
}

fn too_slow() -> Refused {
    let message = "the body did not arrive in time";
    refusal(StatusCode::REQUEST_TIMEOUT, message).into()
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
    let pieces = VecDeque::from([Bytes::from(body)]);
    with_body(status, content_type, Pieces::new(pieces, Vec::new()))
}

/// An answer with a body that was made elsewhere.
pub(crate) fn with_body(status: StatusCode, content_type: &'static str, body: Pieces) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Connections served at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 128;
/// Length of the pieces in which a secret is sent, bytes.
const SECRET_PIECE_BYTES: usize = 64 * 1024;
/// Longest head, bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// How much of an unwanted body is read, bytes, and for how long.
const MOST_DRAINED_BYTES: usize = 64 << 20;
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
/// Longest wait for a turn, where work takes turns.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// A connection is closed after this, idle or not: callers connect again.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(300);
