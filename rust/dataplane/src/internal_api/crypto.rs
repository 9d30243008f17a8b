//! `POST /encrypt` and `POST /decrypt`: any JSON, the same shape back (data-plane.md §5).

use cloister_ciphertext::{
    OpenPolicy, OpenSession, Place, ScanLimits, Scanner, SealError, SealOptions, seal_json,
};
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::de::IgnoredAny;

use super::{InternalApi, bad_request, unavailable};
use crate::provision::SystemRandom;
use crate::small_http::{Answer, Refused, answer, refusal};

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
    pub(super) fn encrypt(&self, body: &[u8], role: Option<String>) -> Result<Answer, Refused> {
        check_json(body)?;
        let live = self.live.load_full();
        let key = live.keyring.as_ref().and_then(|keyring| keyring.newest());
        let key = key.ok_or_else(|| unavailable(NO_KEY))?;
        let seconds = self.clock.now_ms().checked_div(1_000).unwrap_or(0);
        let options = SealOptions {
            role,
            ..SealOptions::enclave(u32::try_from(seconds).unwrap_or(u32::MAX))
        };
        match seal_json(body, key, &options, &mut SystemRandom::new()) {
            Ok(sealed) => Ok(answer(StatusCode::OK, "application/json", sealed)),
            Err(SealError::Random) => Err(unavailable("no randomness")),
            Err(error) => Err(bad_request(&error.to_string())),
        }
    }

    /// Every ciphertext becomes what is in it.
    pub(super) fn decrypt(&self, body: &[u8]) -> Result<Answer, Refused> {
        check_json(body)?;
        let live = self.live.load_full();
        let keyring = live.keyring.as_ref().ok_or_else(|| unavailable(NO_KEY))?;
        let limits = &self.config.limits;
        let policy = OpenPolicy {
            dangerous_accept_debug: self.config.debug,
            distinct_keys: limits.distinct_keys_per_request,
        };
        let mut session = OpenSession::new(keyring, policy);
        let limits = ScanLimits {
            max_token: usize::try_from(limits.max_token).unwrap_or(usize::MAX),
            ..ScanLimits::default()
        };
        let mut scanner = Scanner::new(Place::Json, limits);
        let mut clear = Vec::with_capacity(body.len());
        scanner
            .push(body, &mut clear, &mut session)
            .and_then(|()| scanner.finish(&mut clear, &mut session))
            .map_err(|error| {
                Box::new(refusal(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    &error.to_string(),
                ))
            })?;
        Ok(answer(StatusCode::OK, "application/json", clear))
    }
}

fn check_json(body: &[u8]) -> Result<(), Refused> {
    serde_json::from_slice::<IgnoredAny>(body)
        .map(|_| ())
        .map_err(|error| {
            let (line, column) = (error.line(), error.column());
            bad_request(&format!("line {line}, column {column}: not JSON"))
        })
}

/// Longest body, bytes.
pub(super) const MAX_BODY_BYTES: usize = 8 << 20;
const ROLE_HEADER: &str = "x-evervault-data-role";
const NO_KEY: &str = "the enclave has no app key at the moment";
