//! What is decided of a request before anything of it goes on, whatever protocol it came in: who may,
//! and what is opened.

use cloister_ciphertext::{OpenSession, Place, ScanLimits, Scanner, may_need_scan, place_for};
use cloister_http::{Fields, Known, RequestHead};

use super::refusal::Refusal;
use super::settings::Settings;
use super::site::Site;
use crate::live::{ApiKeyId, AuthFailure, Live, Serving};

/// Whether the request is let in, and by which key.
///
/// # Errors
///
/// 503 while nothing is served, 401 without a valid key, 403 for a key of another enclave.
pub(super) fn authenticate(
    site: &Site,
    live: &Live,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<Option<ApiKeyId>, Refusal> {
    let now_ms = site.clock.now_ms();
    if let Serving::NotReady { reason } = live.serving_at(now_ms) {
        return Err(Refusal::new(503, reason).retry_after(1).kept());
    }
    if !site.config.api_key_auth {
        return Ok(None);
    }
    let mut keys = head
        .fields
        .iter()
        .filter(|field| field.known == Known::ApiKey);
    let presented = keys.next().map_or(&b""[..], |field| field.value.of(bytes));
    let checked = if keys.next().is_some() {
        // Two keys are two answers to one question.
        Err(AuthFailure::Invalid)
    } else {
        live.api_keys.check(presented, site.config.uuid, now_ms)
    };
    checked.map(|id| Some(id.clone())).map_err(|failure| {
        let status = if failure == AuthFailure::Forbidden {
            403
        } else {
            401
        };
        Refusal::new(status, failure.to_string()).kept()
    })
}

/// RFC 9110 §9.2.2.
pub(super) fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}

/// Whether a body of this length is taken; one of unknown length is counted while it arrives.
///
/// # Errors
///
/// 413.
pub(super) fn length(settings: &Settings, length: Option<u64>) -> Result<(), Refusal> {
    match (length, settings.max_body) {
        (Some(length), Some(limit)) if length > limit => {
            let message = format!("the body is {length} bytes long, the limit is {limit}");
            Err(Refusal::new(413, message))
        }
        _ => Ok(()),
    }
}

/// Where tokens stand in a body with this head; none when it passes untouched.
pub(super) fn place(fields: &Fields, bytes: &[u8]) -> Option<Place> {
    let value = |known| fields.first(known).map(|field| field.value.of(bytes));
    let coding = value(Known::ContentEncoding);
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return None;
    }
    place_for(value(Known::ContentType))
}

/// Bounds of what a scanner holds back.
pub(super) fn scan_limits(settings: &Settings) -> ScanLimits {
    ScanLimits {
        max_file: settings.max_file,
        max_token: settings.max_token,
    }
}

/// Opens a body that is all here.
///
/// # Errors
///
/// 422: nothing of it went on.
pub(super) fn open_whole(
    settings: &Settings,
    place: Place,
    body: &[u8],
    session: &mut OpenSession<'_>,
) -> Result<Vec<u8>, Refusal> {
    let mut opened = Vec::with_capacity(body.len());
    if !may_need_scan(place, body) {
        opened.extend_from_slice(body);
        return Ok(opened);
    }
    let mut scanner = Scanner::new(place, scan_limits(settings));
    let pushed = scanner.push(body, &mut opened, session);
    pushed
        .and_then(|()| scanner.finish(&mut opened, session).map(|_| ()))
        .map_err(|error| Refusal::new(422, error.to_string()).kept())?;
    Ok(opened)
}
