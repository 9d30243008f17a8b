//! `POST /encrypt` and `POST /decrypt`: any JSON, the same shape back (data-plane.md §5).

use bytes::Bytes;
use cloister_ciphertext::{
    AppPublicKey, SealError, SealOptions, line_and_column, seal_json_within,
};
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderMap;
use tokio::time::timeout;

use super::openings::Unopened;
use super::{InternalApi, bad_request, unavailable};
use crate::held::Held;
use crate::provision::SystemRandom;
use crate::small_http::{Answer, PATIENCE, Pieces, Refused, refusal, whole, with_body};

/// The data role of a request, when it names one.
pub(super) fn data_role(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(role) = headers.get(ROLE_HEADER) else {
        return Ok(None);
    };
    match role.to_str() {
        Ok(role) if !role.is_empty() => Ok(Some(role.to_owned())),
        _ => Err(bad_request("`x-evervault-data-role` is not a name")),
    }
}

impl InternalApi {
    /// Every leaf becomes a ciphertext of the newest app key.
    ///
    /// It is made on a thread that may block, one document at a time: a document of many short values
    /// takes a second.
    pub(super) async fn encrypt(
        &self,
        body: &mut Incoming,
        role: Option<String>,
    ) -> Result<Answer, Refused> {
        let (body, room) = self.read_document(body).await?;
        let key = self.newest_key()?;
        let seconds = self.clock.now_ms().checked_div(1_000).unwrap_or(0);
        let options = SealOptions {
            role,
            ..SealOptions::enclave(u32::try_from(seconds).unwrap_or(u32::MAX))
        };
        let turn = timeout(PATIENCE, self.sealings.clone().acquire_owned()).await;
        let turn = turn.map_err(|_elapsed| unavailable(BUSY))?;
        let document = body.clone();
        // Room and turn go with the document: a caller that hangs up gives neither back before it ends,
        // and the next one begins when what was made has room of its own.
        let sealing = tokio::task::spawn_blocking(move || {
            let mut random = SystemRandom::new();
            let sealed = seal_json_within(&document, MAX_SEALED_BYTES, &key, &options, &mut random);
            drop(document);
            (sealed, room, turn)
        });
        let (sealed, room, turn) = sealing.await.map_err(|_panicked| unavailable(BUSY))?;
        let sealed = sealed.map_err(|error| unsealed(&body, &error))?;
        drop(room);
        let room = self.hold(sealed.len())?;
        drop(turn);
        let pieces = Pieces::new([Bytes::from(sealed)].into(), vec![room]);
        Ok(with_body(StatusCode::OK, "application/json", pieces))
    }

    /// Every ciphertext becomes what is in it.
    pub(super) async fn decrypt(&self, body: &mut Incoming) -> Result<Answer, Refused> {
        let (body, room) = self.read_document(body).await?;
        let opened = self.openings.document(body.clone(), room).await;
        let (clear, room) = opened.map_err(|unopened| match unopened {
            Unopened::NotJson(error) => unsealed(&body, &error),
            other => unopened_answer(&other),
        })?;
        drop((body, room));
        let room = self.hold(clear.len())?;
        let pieces = Pieces::secret(clear, vec![room]);
        Ok(with_body(StatusCode::OK, "application/json", pieces))
    }

    /// The key that ciphertexts are made for.
    pub(super) fn newest_key(&self) -> Result<AppPublicKey, Refused> {
        let live = self.live.load();
        let key = live.keyring.as_ref().and_then(|keyring| keyring.newest());
        key.cloned().ok_or_else(|| unavailable(NO_KEY))
    }

    /// Room among everything that is held whole in the enclave.
    pub(super) fn hold(&self, bytes: usize) -> Result<Held, Refused> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.held.hold(bytes).ok_or_else(|| unavailable(NO_ROOM))
    }

    /// Reads a document, within its room.
    async fn read_document(&self, body: &mut Incoming) -> Result<(Bytes, Held), Refused> {
        let length = body.size_hint().exact().map(usize::try_from);
        let length = match length {
            Some(Ok(length)) => length.min(MAX_BODY_BYTES),
            Some(Err(_)) | None => MAX_BODY_BYTES,
        };
        let room = self.hold(length)?;
        Ok((whole(body, MAX_BODY_BYTES).await?, room))
    }
}

/// The answer for a document from which nothing was made.
fn unsealed(document: &[u8], error: &SealError) -> Refused {
    match error {
        SealError::NotJson { offset } | SealError::TooDeep { offset } => {
            let (line, column) = line_and_column(document, *offset);
            let problem = match error {
                SealError::TooDeep { .. } => "nested deeper than 128 levels",
                _ => "not JSON",
            };
            bad_request(&format!("line {line}, column {column}: {problem}"))
        }
        SealError::Random => unavailable("no randomness"),
        SealError::TooLong { .. } => {
            refusal(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()).into()
        }
        _ => bad_request(&error.to_string()),
    }
}

/// The answer for ciphertexts that were not opened.
pub(super) fn unopened_answer(unopened: &Unopened) -> Refused {
    match unopened {
        Unopened::Document(_) | Unopened::File(_) => {
            refusal(StatusCode::UNPROCESSABLE_ENTITY, &unopened.to_string()).into()
        }
        Unopened::NoKeys => unavailable(NO_KEY),
        Unopened::NotJson(error) => bad_request(&error.to_string()),
        Unopened::Overloaded | Unopened::Stopped => unavailable(&unopened.to_string()),
    }
}

/// Longest document, bytes.
pub(super) const MAX_BODY_BYTES: usize = 8 << 20;
/// Longest encrypted document, bytes: short values grow to sixty times their length and more.
pub(super) const MAX_SEALED_BYTES: usize = 64 << 20;
const ROLE_HEADER: &str = "x-evervault-data-role";
const NO_KEY: &str = "the enclave has no app key at the moment";
const NO_ROOM: &str = "all that is held takes `held_bytes` already";
const BUSY: &str = "other documents are being encrypted";
