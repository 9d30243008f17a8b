//! What is decided of a request before anything of it goes on, whatever protocol it came in: who may,
//! and what is opened.

use cloister_ciphertext::{
    OpenSession, Place, ScanError, ScanLimits, Scanner, may_need_scan, place_for,
};
use cloister_http::{Fields, Known, RequestHead};

use super::opening::Job;
use super::refusal::Refusal;
use super::settings::Settings;
use super::site::Site;
use crate::live::{ApiKeyId, AuthFailure, Live, Serving};
use crate::server::traffic::Reason;

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
        let refusal = Refusal::new(503, reason).retry_after(1).kept();
        return Err(refusal.because(Reason::NotReady));
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
/// 422, or 503 when too much is being opened: nothing of it went on.
pub(super) async fn open_whole(
    site: &Site,
    place: Place,
    body: &[u8],
    session: &mut OpenSession<'_>,
) -> Result<Vec<u8>, Refusal> {
    let mut opened = Vec::with_capacity(body.len());
    if !may_need_scan(place, body) {
        opened.extend_from_slice(body);
        return Ok(opened);
    }
    let mut scanner = Scanner::new(place, scan_limits(&site.settings));
    let mut job = site.opening.job();
    // What is paused holds the rest of its piece.
    for piece in body.chunks(PIECE_BYTES) {
        scan(&mut job, &mut scanner, piece, &mut opened, session)
            .await
            .map_err(Refusal::kept)?;
    }
    end_scan(&mut job, &mut scanner, &mut opened, session)
        .await
        .map_err(Refusal::kept)?;
    Ok(opened)
}

/// Pushes a piece of a body through its scanner.
///
/// # Errors
///
/// 422 and 503, as [`open_whole`].
pub(in crate::engine) async fn scan(
    job: &mut Job<'_>,
    scanner: &mut Scanner,
    piece: &[u8],
    out: &mut Vec<u8>,
    session: &mut OpenSession<'_>,
) -> Result<(), Refusal> {
    scanner.push(piece, out, session).map_err(unopened)?;
    job.run(session, |session| {
        scanner.resume(out, session).map_err(unopened)
    })
    .await
}

/// Ends a body.
///
/// # Errors
///
/// 422 and 503, as [`open_whole`].
pub(in crate::engine) async fn end_scan(
    job: &mut Job<'_>,
    scanner: &mut Scanner,
    out: &mut Vec<u8>,
    session: &mut OpenSession<'_>,
) -> Result<(), Refusal> {
    let mut end = |session: &mut OpenSession<'_>| {
        let ended = scanner.finish(out, session);
        ended.map(|_| ()).map_err(unopened)
    };
    end(session)?;
    job.run(session, end).await
}

/// Calls `write`, which opens headers, again until none of them is left for later.
///
/// # Errors
///
/// What `write` says, or 503 when too much is being opened.
pub(in crate::engine) async fn open_head(
    site: &Site,
    session: &mut OpenSession<'_>,
    mut write: impl FnMut(&mut OpenSession<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut attempt = |session: &mut OpenSession<'_>| match write(session) {
        Err(_not_yet) if session.is_paused() => Ok(()),
        outcome => outcome,
    };
    attempt(session)?;
    let ended = site.opening.job().run(session, attempt).await;
    ended.map_err(Refusal::kept)
}

fn unopened(error: ScanError) -> Refusal {
    Refusal::new(422, error.to_string())
}

/// How much of a body is scanned at once.
const PIECE_BYTES: usize = 16 * 1024;
