//! The agent API over HTTP/1.1 (wire.md §2).
//!
//! One connection a call: calls are few, and a long poll then never stands in the way of another
//! call. The peer is the attacker, so the whole call has one deadline, the head and the body have
//! limits, and an answer is parsed before it is used.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloister_transport::{Address, connect};
use cloister_wire::agent::{
    BATCH_SEQUENCE_HEADER, BOOT_HEADER, BUNDLE_POLL_MS, Challenge, Event, LogsAcked,
    MAX_BODY_BYTES, ObjectHead, Order, OrderAccepted, OrderState, Provision, SealedBundle, VERSION,
    VERSION_HEADER,
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, ETAG, HOST, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{AgentApi, AgentError, AgentFuture};
use crate::log_ring::Batch;
use crate::objects::{EntityTag, Head, ObjectStore, Only, StoredObject};

/// Asks the host at an address.
#[derive(Clone)]
pub struct HttpAgent {
    address: Address,
}

/// One call, as it is sent.
struct Call {
    /// Method and path without anything variable, for messages.
    name: &'static str,
    method: Method,
    target: String,
    headers: Vec<(&'static str, String)>,
    condition: Option<(HeaderName, HeaderValue)>,
    content_type: &'static str,
    body: Bytes,
    deadline: Duration,
}

/// What came back.
struct Answer {
    status: StatusCode,
    entity_tag: Option<HeaderValue>,
    body: Bytes,
}

impl HttpAgent {
    /// The agent at `address`. Nothing is connected yet.
    pub fn new(address: Address) -> Self {
        Self { address }
    }

    async fn send(&self, call: Call) -> Result<(StatusCode, Bytes), AgentError> {
        let Answer { status, body, .. } = self.answer(call).await?;
        Ok((status, body))
    }

    async fn answer(&self, call: Call) -> Result<Answer, AgentError> {
        let name = call.name;
        timeout(call.deadline, self.exchange(call))
            .await
            .unwrap_or(Err(AgentError::Deadline { call: name }))
    }

    async fn exchange(&self, call: Call) -> Result<Answer, AgentError> {
        let name = call.name;
        let broken = |source| AgentError::Io { call: name, source };
        let stream = connect(&self.address, CONNECT_DEADLINE)
            .await
            .map_err(|error| broken(error.into()))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.into()))?;
        let request = call.into_request()?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| broken(error.into()))?;
            let (head, body) = response.into_parts();
            match Limited::new(body, MAX_BODY_BYTES).collect().await {
                Ok(body) => Ok(Answer {
                    status: head.status,
                    entity_tag: head.headers.get(ETAG).cloned(),
                    body: body.to_bytes(),
                }),
                Err(error) if error.is::<LengthLimitError>() => Err(AgentError::Malformed {
                    call: name,
                    problem: "is longer than 1 MiB",
                }),
                Err(error) => Err(broken(error)),
            }
        };
        let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The peer may close as soon as it has answered; what it sent is still to be read.
            _ = &mut connection => exchange.await,
        }
    }

    async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, AgentError> {
        let name = call.name;
        let (status, body) = self.send(call).await?;
        parse(name, accepted(name, status)?, &body)
    }
}

impl AgentApi for HttpAgent {
    fn challenge(&self) -> AgentFuture<'_, [u8; 32]> {
        Box::pin(async {
            let call = Call::post("POST /v1/challenge", "/v1/challenge", Bytes::new());
            let answer: Challenge = self.json(call).await?;
            let challenge = decode("POST /v1/challenge", &answer.challenge)?;
            challenge.try_into().map_err(|_| AgentError::Malformed {
                call: "POST /v1/challenge",
                problem: "is not 32 bytes long",
            })
        })
    }

    fn provision(&self, document: Vec<u8>) -> AgentFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let body = encode(&Provision {
                attestation_doc: STANDARD.encode(document),
            });
            let call = Call::post("POST /v1/provision", "/v1/provision", body);
            let answer: SealedBundle = self.json(call.within(PROVISION_DEADLINE)).await?;
            decode("POST /v1/provision", &answer.bundle)
        })
    }

    fn newer_bundle(&self, after: u64) -> AgentFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let name = "GET /v1/bundle";
            let call = Call::get(name, format!("/v1/bundle?after={after}"));
            let (status, body) = self.send(call.within(POLL_DEADLINE)).await?;
            if status == StatusCode::NO_CONTENT {
                return Ok(None);
            }
            let answer: SealedBundle = parse(name, accepted(name, status)?, &body)?;
            decode(name, &answer.bundle).map(Some)
        })
    }

    fn order(&self, csr: Vec<u8>, domains: Vec<String>) -> AgentFuture<'_, String> {
        Box::pin(async move {
            let name = "POST /v1/acme/orders";
            let body = encode(&Order {
                csr: STANDARD.encode(csr),
                domains,
            });
            let answer: OrderAccepted =
                self.json(Call::post(name, "/v1/acme/orders", body)).await?;
            // The id becomes part of a path.
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if answer.id.is_empty() || answer.id.len() > 128 || !answer.id.bytes().all(is_plain) {
                return Err(AgentError::Malformed {
                    call: name,
                    problem: "has an id that is not 1 to 128 letters, digits, `-` and `_`",
                });
            }
            Ok(answer.id)
        })
    }

    fn order_state(&self, id: String) -> AgentFuture<'_, OrderState> {
        Box::pin(async move {
            let target = format!("/v1/acme/orders/{id}");
            self.json(Call::get("GET /v1/acme/orders/{id}", target))
                .await
        })
    }

    fn logs(&self, boot: Arc<str>, batch: Batch) -> AgentFuture<'_, u64> {
        Box::pin(async move {
            let mut call = Call::post("POST /v1/logs", "/v1/logs", batch.ndjson.into());
            call.content_type = "application/x-ndjson";
            call.headers = vec![
                (BATCH_SEQUENCE_HEADER, batch.last_sequence.to_string()),
                (BOOT_HEADER, boot.to_string()),
            ];
            let answer: LogsAcked = self.json(call.within(LOGS_DEADLINE)).await?;
            Ok(answer.acked)
        })
    }

    fn event(&self, event: Event) -> AgentFuture<'_, ()> {
        Box::pin(async move {
            let name = "POST /v1/events";
            let call = Call::post(name, "/v1/events", encode(&event));
            let (status, _) = self.send(call).await?;
            accepted(name, status).map(|_| ())
        })
    }
}

impl ObjectStore for HttpAgent {
    fn read(&self, name: &str) -> AgentFuture<'_, Option<StoredObject>> {
        let target = format!("/v1/objects/{name}");
        Box::pin(async move {
            let name = "GET /v1/objects/{name}";
            let answer = self.answer(Call::get(name, target)).await?;
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            accepted(name, answer.status)?;
            // It goes back in a header.
            let tag = answer.entity_tag.filter(|tag| tag.len() <= MAX_TAG_BYTES);
            let tag = tag.ok_or(AgentError::Malformed {
                call: name,
                problem: "has no entity tag of at most 256 bytes",
            })?;
            Ok(Some(StoredObject {
                body: answer.body.to_vec(),
                tag: EntityTag(tag),
            }))
        })
    }

    fn write(&self, name: &str, body: Vec<u8>, only: Only) -> AgentFuture<'_, bool> {
        let target = format!("/v1/objects/{name}");
        Box::pin(async move {
            let name = "PUT /v1/objects/{name}";
            let mut call = Call::get(name, target);
            call.method = Method::PUT;
            call.body = body.into();
            call.content_type = "application/octet-stream";
            call.condition = Some(match only {
                Only::IfAbsent => (IF_NONE_MATCH, HeaderValue::from_static("*")),
                Only::If(EntityTag(tag)) => (IF_MATCH, tag),
            });
            match self.send(call).await?.0 {
                StatusCode::PRECONDITION_FAILED => Ok(false),
                status => accepted(name, status).map(|_| true),
            }
        })
    }

    fn record(&self, name: &str, head: Head) -> AgentFuture<'_, bool> {
        let target = format!("/v1/objects/{name}/head");
        Box::pin(async move {
            let name = "POST /v1/objects/{name}/head";
            let body = encode(&ObjectHead {
                version: head.version,
                sha256: STANDARD.encode(head.sha256),
                proof: STANDARD.encode(head.proof),
            });
            let call = Call::post(name, &target, body).within(PROVISION_DEADLINE);
            match self.send(call).await?.0 {
                StatusCode::CONFLICT => Ok(false),
                status => accepted(name, status).map(|_| true),
            }
        })
    }
}

impl Call {
    fn get(name: &'static str, target: String) -> Self {
        Self {
            name,
            method: Method::GET,
            target,
            headers: Vec::new(),
            condition: None,
            content_type: "application/json",
            body: Bytes::new(),
            deadline: CALL_DEADLINE,
        }
    }

    fn post(name: &'static str, target: &str, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(name, target.to_owned())
        }
    }

    fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn into_request(self) -> Result<Request<Full<Bytes>>, AgentError> {
        let call = self.name;
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.target)
            .header(HOST, "agent")
            .header(VERSION_HEADER, VERSION.to_string());
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, self.content_type);
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if let Some((name, value)) = self.condition {
            request = request.header(name, value);
        }
        request
            .body(Full::new(self.body))
            .map_err(|error| AgentError::Io {
                call,
                source: error.into(),
            })
    }
}

fn accepted(call: &'static str, status: StatusCode) -> Result<StatusCode, AgentError> {
    if status.is_success() {
        return Ok(status);
    }
    Err(AgentError::Refused {
        call,
        status: status.as_u16(),
    })
}

fn parse<T: DeserializeOwned>(
    call: &'static str,
    _accepted: StatusCode,
    body: &[u8],
) -> Result<T, AgentError> {
    serde_json::from_slice(body).map_err(|_| AgentError::Malformed {
        call,
        problem: "is not the JSON that the protocol says",
    })
}

fn decode(call: &'static str, text: &str) -> Result<Vec<u8>, AgentError> {
    STANDARD.decode(text).map_err(|_| AgentError::Malformed {
        call,
        problem: "is not base64",
    })
}

/// The bodies are structs of text: they always have a JSON form.
fn encode(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).unwrap_or_default().into()
}

impl fmt::Debug for HttpAgent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HttpAgent({})", self.address)
    }
}

/// Longest head of an answer, bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Longest entity tag of an object, bytes.
const MAX_TAG_BYTES: usize = 256;
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The host asks the platform, which verifies a document.
const PROVISION_DEADLINE: Duration = Duration::from_secs(20);
/// The host writes and syncs.
const LOGS_DEADLINE: Duration = Duration::from_secs(30);
/// The host's own wait, and ten seconds on the way.
const POLL_DEADLINE: Duration = Duration::from_millis(BUNDLE_POLL_MS + 10_000);

#[cfg(test)]
mod tests;
