//! `GET /.well-known/attestation` (data-plane specification §4): the document that binds this
//! connection's key.
//!
//! Exempt from authentication and logs. CORS is answered as the configuration says.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloister_http::RequestHead;

use super::refusal::Refusal;
use super::site::Site;
use crate::certificate::Current;
use crate::documents::DocumentError;
use crate::server::traffic::Reason;

const PATH: &[u8] = b"/.well-known/attestation";
/// Bounds of a nonce, in bytes after decoding.
const NONCE_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// An answer that is not a refusal.
#[derive(Debug)]
pub(in crate::engine) struct Answer {
    pub(in crate::engine) status: u16,
    /// Header lines, each with its end; framing and context id are for the connection to add.
    pub(in crate::engine) lines: Vec<u8>,
    /// Absent where a status has none.
    pub(in crate::engine) body: Option<Vec<u8>>,
}

/// Whether a request is for the endpoint, whatever its method and query.
pub(in crate::engine) fn is_for(head: &RequestHead, bytes: &[u8]) -> bool {
    let target = head.raw_target.of(bytes);
    let Some(rest) = target.strip_prefix(PATH) else {
        return false;
    };
    matches!(rest.first(), None | Some(b'?'))
}

/// Answers a request that [`is_for`] the endpoint on a connection that was shown `certificate`.
///
/// # Errors
///
/// 405 for other methods than GET, HEAD and OPTIONS, 400 for a bad nonce, 503 when no document can be
/// made now.
pub(in crate::engine) async fn answer(
    site: &Site,
    certificate: &Current,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<Answer, Refusal> {
    let origin = &site.config.attestation_cors.origin;
    let mut lines = b"access-control-allow-origin: ".to_vec();
    lines.extend_from_slice(origin.as_bytes());
    lines.extend_from_slice(b"\r\n");
    if origin != "*" {
        lines.extend_from_slice(b"vary: origin\r\n");
    }
    match head.method.of(bytes) {
        b"GET" | b"HEAD" => {
            let document = document(site, certificate, head.raw_target.of(bytes)).await?;
            lines.extend_from_slice(
                b"content-type: application/json\r\ncache-control: no-store\r\n",
            );
            let body = format!("{{\"attestation_doc\":\"{}\"}}", STANDARD.encode(document));
            Ok(Answer {
                status: 200,
                lines,
                body: Some(body.into_bytes()),
            })
        }
        b"OPTIONS" => {
            lines.extend_from_slice(
                b"access-control-allow-methods: GET, HEAD, OPTIONS\r\n\
                  access-control-allow-headers: *\r\naccess-control-max-age: 86400\r\n",
            );
            Ok(Answer {
                status: 204,
                lines,
                body: None,
            })
        }
        _ => Err(Refusal::new(405, "only GET and HEAD are answered here").kept()),
    }
}

async fn document(
    site: &Site,
    certificate: &Current,
    target: &[u8],
) -> Result<std::sync::Arc<[u8]>, Refusal> {
    let made = match nonce(target)? {
        None => site.documents.current(&certificate.spki).await,
        Some(nonce) => site.documents.fresh(&certificate.spki, nonce).await,
    };
    made.map_err(|error| {
        let message = match error {
            DocumentError::Busy => "too many attestation documents are being made",
            _ => "the attestation document cannot be made",
        };
        let refusal = Refusal::new(503, message).retry_after(1).kept();
        refusal.because(Reason::Attestation)
    })
}

/// The `nonce` of a query: base64url without padding, 16 to 512 bytes.
fn nonce(target: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let query = target
        .split(|byte| *byte == b'?')
        .nth(1)
        .unwrap_or_default();
    let mut found = None;
    for pair in query.split(|byte| *byte == b'&') {
        let Some(value) = pair.strip_prefix(b"nonce=") else {
            continue;
        };
        let trimmed = value.strip_suffix(b"=").unwrap_or(value);
        let trimmed = trimmed.strip_suffix(b"=").unwrap_or(trimmed);
        let nonce = URL_SAFE_NO_PAD.decode(trimmed).ok();
        let nonce = nonce.filter(|nonce| NONCE_BYTES.contains(&nonce.len()));
        if found.is_some() || nonce.is_none() {
            let message = "nonce is one base64url value of 16 to 512 bytes";
            let refusal = Refusal::new(400, message).kept();
            return Err(refusal.because(Reason::Attestation));
        }
        found = nonce;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_has_bounds_and_comes_once() {
        let of = |query: &str| nonce(format!("/.well-known/attestation{query}").as_bytes());
        assert_eq!(of(""), Ok(None));
        assert_eq!(of("?other=1"), Ok(None));
        let sixteen = URL_SAFE_NO_PAD.encode([0xFB; 16]);
        assert_eq!(of(&format!("?nonce={sixteen}")), Ok(Some(vec![0xFB; 16])));
        assert_eq!(
            of(&format!("?nonce={sixteen}==&x")),
            Ok(Some(vec![0xFB; 16]))
        );
        let fifteen = URL_SAFE_NO_PAD.encode([1; 15]);
        let long = URL_SAFE_NO_PAD.encode([1; 513]);
        for bad in [
            format!("?nonce={fifteen}"),
            format!("?nonce={long}"),
            format!("?nonce={sixteen}&nonce={sixteen}"),
            "?nonce=".to_owned(),
            "?nonce=a+b/".to_owned(),
        ] {
            assert_eq!(of(&bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
