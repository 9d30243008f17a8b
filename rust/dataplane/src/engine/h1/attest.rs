//! `GET /.well-known/attestation` (data-plane specification §4): the document that binds this connection's key.
//!
//! Exempt from authentication and logs. CORS is answered as the configuration says.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloister_http::{RequestFraming, RequestHead};

use super::Conversation;
use super::refusal::Refusal;
use crate::documents::DocumentError;

const PATH: &[u8] = b"/.well-known/attestation";
/// Bounds of a nonce, in bytes after decoding.
const NONCE_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// Whether a request is for the endpoint, whatever its method and query.
pub(super) fn is_for(head: &RequestHead, bytes: &[u8]) -> bool {
    let target = head.raw_target.of(bytes);
    let Some(rest) = target.strip_prefix(PATH) else {
        return false;
    };
    matches!(rest.first(), None | Some(b'?'))
}

impl Conversation<'_> {
    /// Answers the endpoint; false when the connection is to be closed.
    pub(super) async fn attest(&mut self, context: &[u8; 32]) -> bool {
        let method = self.head.method.of(&self.head_bytes);
        let is_head = method == b"HEAD";
        if method == b"OPTIONS" {
            return self.attest_answer(204, &[], context, false).await;
        }
        if method != b"GET" && !is_head {
            let refusal = Refusal::new(405, "only GET and HEAD are answered here").kept();
            return self.refuse(&refusal, context).await;
        }
        match self.document().await {
            Ok(document) => {
                let body = format!("{{\"attestation_doc\":\"{}\"}}", STANDARD.encode(document));
                self.attest_answer(200, body.as_bytes(), context, is_head)
                    .await
            }
            Err(refusal) => self.refuse(&refusal, context).await,
        }
    }

    async fn document(&self) -> Result<std::sync::Arc<[u8]>, Refusal> {
        let spki = &self.client.certificate.spki;
        let target = self.head.raw_target.of(&self.head_bytes);
        let made = match nonce(target)? {
            None => self.site.documents.current(spki).await,
            Some(nonce) => self.site.documents.fresh(spki, nonce).await,
        };
        made.map_err(|error| {
            let message = match error {
                DocumentError::Busy => "too many attestation documents are being made",
                _ => "the attestation document cannot be made",
            };
            Refusal::new(503, message).retry_after(1).kept()
        })
    }

    async fn attest_answer(
        &mut self,
        status: u16,
        body: &[u8],
        context: &[u8; 32],
        is_head: bool,
    ) -> bool {
        let is_kept = self.head.is_persistent
            && self.head.framing == RequestFraming::None
            && !self.site.is_draining();
        let out = &mut self.out;
        out.clear();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(super::refusal::reason(status).as_bytes());
        out.extend_from_slice(b"\r\nx-evervault-ctx: ");
        out.extend_from_slice(context);
        out.extend_from_slice(b"\r\naccess-control-allow-origin: ");
        out.extend_from_slice(self.site.config.attestation_cors.origin.as_bytes());
        if self.site.config.attestation_cors.origin != "*" {
            out.extend_from_slice(b"\r\nvary: origin");
        }
        if status == 204 {
            out.extend_from_slice(
                b"\r\naccess-control-allow-methods: GET, HEAD, OPTIONS\
                  \r\naccess-control-allow-headers: *\r\naccess-control-max-age: 86400",
            );
        } else {
            out.extend_from_slice(
                b"\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: ",
            );
            out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        }
        if !is_kept {
            out.extend_from_slice(b"\r\nconnection: close");
        }
        out.extend_from_slice(b"\r\n\r\n");
        if !is_head {
            out.extend_from_slice(body);
        }
        self.send().await && is_kept
    }
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
            return Err(Refusal::new(400, message).kept());
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
