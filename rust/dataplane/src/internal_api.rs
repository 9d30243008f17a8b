//! The internal API: what the user process may ask of its enclave, on 127.0.0.1:9999
//! (data-plane.md §5).
//!
//! Callers are the application, and whoever can make it send a request, so a call can neither make
//! a document that passes for a TLS binding or a provisioning request ([`attestation`], T-21), nor
//! be reached through a name of the caller's choice (`Host`). Measurements of the image (PCR0–15)
//! cannot be touched. A caller's mistake is a 4xx with a message, never a 500.

pub mod attestation;
mod crypto;
mod files;
mod openings;
mod pcr;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_nsm::{ErrorCode, NsmError};
use cloister_wire::config::EnclaveConfig;
use hyper::body::Incoming;
use hyper::header::{EXPECT, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub(crate) use self::openings::Openings;
use crate::clock::Clock;
use crate::health::Board;
use crate::held::HeldBytes;
use crate::live::Live;
use crate::nsm_thread::{NsmCallError, NsmThread};
use crate::small_http::{
    Answer, Pieces, Refused, Service, answer, drain, json, not_allowed, refusal, whole, with_body,
};
use crate::wiped;

/// Answers the calls of the user process.
pub struct InternalApi {
    pub(crate) nsm: NsmThread,
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) config: Arc<EnclaveConfig>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) board: Arc<Board>,
    pub(crate) started: Instant,
    /// Where ciphertexts are opened.
    pub(crate) openings: Openings,
    /// Whose turn it is to encrypt a document.
    pub(crate) sealings: Arc<Semaphore>,
    pub(crate) held: HeldBytes,
}

impl Service for InternalApi {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match self.decide(request).await {
            Ok(answer) => answer,
            Err(refused) => *refused,
        }
    }
}

impl InternalApi {
    async fn decide(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        check_host(&request)?;
        let (head, mut body) = request.into_parts();
        let decided = self.call(&head, &mut body).await;
        // Who waits for a word before it sends anything needs no reading on.
        if decided.is_err() && !head.headers.contains_key(EXPECT) {
            drain(&mut body).await;
        }
        decided
    }

    async fn call(
        &self,
        head: &http::request::Parts,
        body: &mut Incoming,
    ) -> Result<Answer, Refused> {
        let path = head.uri.path();
        match (path, &head.method) {
            ("/attestation-doc", &Method::POST) => {
                let body = whole(body, attestation::MAX_BODY_BYTES).await?;
                self.document(&body, head.uri.query()).await
            }
            ("/encrypt", &Method::POST) => {
                let role = crypto::data_role(&head.headers)?;
                self.encrypt(body, role).await
            }
            ("/decrypt", &Method::POST) => self.decrypt(body).await,
            ("/encrypt/file", &Method::POST) => self.encrypt_file(body).await,
            ("/decrypt/file", &Method::POST) => self.decrypt_file(body).await,
            ("/random", &Method::GET) => self.random(head.uri.query()).await,
            ("/pcrs", &Method::GET) => self.pcrs().await,
            ("/health", &Method::GET) => Ok(json(StatusCode::OK, &self.board.health())),
            ("/info", &Method::GET) => Ok(self.info()),
            ("/env", &Method::GET) => Ok(self.env()),
            (
                "/attestation-doc" | "/encrypt" | "/decrypt" | "/encrypt/file" | "/decrypt/file",
                _,
            ) => Err(not_allowed("POST").into()),
            ("/random" | "/pcrs" | "/health" | "/info" | "/env", _) => {
                Err(not_allowed("GET").into())
            }
            _ => match path
                .strip_prefix("/pcr/")
                .and_then(|rest| rest.split_once('/'))
            {
                Some((index, call @ ("extend" | "lock"))) => {
                    if head.method != Method::POST {
                        return Err(not_allowed("POST").into());
                    }
                    let index = pcr::index(index)?;
                    let body = whole(body, pcr::MAX_EXTEND_BYTES).await?;
                    if call == "extend" {
                        self.extend(index, body.to_vec()).await
                    } else {
                        self.lock(index).await
                    }
                }
                _ => Err(refusal(StatusCode::NOT_FOUND, "no such call").into()),
            },
        }
    }

    async fn document(&self, body: &[u8], query: Option<&str>) -> Result<Answer, Refused> {
        let wants_base64 = match parameter(query, "format") {
            None | Some("cbor") => false,
            Some("base64") => true,
            Some(_) => return Err(bad_request("`format` is neither `base64` nor `cbor`")),
        };
        let request =
            attestation::request(body).map_err(|error| bad_request(&error.to_string()))?;
        let document = self
            .nsm
            .call(move |nsm| nsm.attestation_document(&request))
            .await
            .map_err(|error| nsm_failure(&error))?;
        Ok(if wants_base64 {
            let document = STANDARD.encode(document);
            json(StatusCode::OK, &json!({ "attestation_doc": document }))
        } else {
            answer(StatusCode::OK, "application/cbor", document)
        })
    }

    async fn random(&self, query: Option<&str>) -> Result<Answer, Refused> {
        let wanted = parameter(query, "n").map_or(Ok(DEFAULT_RANDOM_BYTES), str::parse);
        let length = match wanted {
            Ok(length) if (1..=MAX_RANDOM_BYTES).contains(&length) => length,
            _ => return Err(bad_request("`n` is not a number from 1 to 4096")),
        };
        let bytes = self
            .nsm
            .call(move |nsm| {
                let mut bytes = Zeroizing::new(vec![0; length]);
                nsm.random(&mut bytes).map(|()| bytes)
            })
            .await
            .map_err(|error| nsm_failure(&error))?;
        let bytes = Pieces::secret(bytes, Vec::new());
        Ok(with_body(StatusCode::OK, "application/octet-stream", bytes))
    }

    fn info(&self) -> Answer {
        let live = self.live.load();
        json(
            StatusCode::OK,
            &json!({
                "name": self.config.name,
                "uuid": self.config.uuid,
                "appUuid": self.config.app_uuid,
                "teamUuid": self.config.team_uuid,
                "debug": self.config.debug,
                "version": env!("CARGO_PKG_VERSION"),
                "bundleVersion": live.bundle_version,
                "uptimeSeconds": self.started.elapsed().as_secs(),
            }),
        )
    }

    /// Variables of the newest bundle: the environment of a running process cannot be changed.
    fn env(&self) -> Answer {
        let variables = self.board.provision.variables.borrow().clone();
        let Some(variables) = variables else {
            return *unavailable("no bundle has come yet");
        };
        let encoded = |value: &[u8]| match std::str::from_utf8(value) {
            Ok(_) => Zeroizing::new(String::new()),
            Err(_) => Zeroizing::new(STANDARD.encode(value)),
        };
        let encoded: Vec<_> = variables.iter().map(|(_, value)| encoded(value)).collect();
        let variables = variables.iter().zip(&encoded);
        let env = variables.map(|((name, value), base64)| match std::str::from_utf8(value) {
            Ok(value) => Variable::Text { name, value },
            Err(_) => Variable::Bytes { name, base64 },
        });
        let env = Env { env: env.collect() };
        // Text and lists of text always have a JSON form.
        let body = wiped::to_json(&env).unwrap_or_default();
        let body = Pieces::secret(body, Vec::new());
        with_body(StatusCode::OK, "application/json", body)
    }
}

/// What `GET /env` shows. It borrows: a copy would have to be wiped.
#[derive(Serialize)]
struct Env<'v> {
    env: Vec<Variable<'v>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Variable<'v> {
    Bytes { name: &'v str, base64: &'v str },
    Text { name: &'v str, value: &'v str },
}

/// A page on the internet can have a browser or the application itself send requests to a name that
/// resolves to 127.0.0.1; such a request carries that name.
fn check_host(request: &Request<Incoming>) -> Result<(), Refused> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let is_only = hosts.next().is_none();
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    if is_only && host.is_some_and(is_local) && target.is_none_or(is_local) {
        return Ok(());
    }
    Err(refusal(
        StatusCode::FORBIDDEN,
        "`Host` is neither `127.0.0.1` nor `localhost`",
    )
    .into())
}

fn is_local(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let is_port = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    is_port && (name == "127.0.0.1" || name.eq_ignore_ascii_case("localhost"))
}

/// The first value of a query parameter, as it stands.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn bad_request(message: &str) -> Refused {
    refusal(StatusCode::BAD_REQUEST, message).into()
}

fn unavailable(message: &str) -> Refused {
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, message);
    answer
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer.into()
}

/// What the NSM refuses is the caller's; that it cannot be asked is ours.
fn nsm_failure(error: &NsmCallError) -> Refused {
    let NsmCallError::Nsm(refused) = error else {
        return unavailable(&error.to_string());
    };
    match &**refused {
        NsmError::Refused { code, .. } => match code {
            ErrorCode::ReadOnlyIndex => refusal(StatusCode::CONFLICT, "the PCR is locked").into(),
            ErrorCode::InputTooLarge | ErrorCode::InvalidArgument | ErrorCode::InvalidIndex => {
                bad_request(&refused.to_string())
            }
            _ => unavailable(&refused.to_string()),
        },
        NsmError::RequestTooLarge { .. } => bad_request(&refused.to_string()),
        _ => unavailable("the NSM cannot be reached"),
    }
}

impl fmt::Debug for InternalApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("InternalApi")
            .finish_non_exhaustive()
    }
}

/// Most bytes of `GET /random`.
pub const MAX_RANDOM_BYTES: usize = 4096;
const DEFAULT_RANDOM_BYTES: usize = 32;
