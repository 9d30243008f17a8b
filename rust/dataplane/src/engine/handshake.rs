//! What a WebSocket handshake must be answered with (RFC 6455 §4.2.2).
//!
//! Whether a request is a handshake, and whether a 101 answers it, `cloister_http::websocket` says.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_http::websocket::ACCEPT_GUID;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::response::Parts;
use http::{HeaderValue, StatusCode};

/// Length of `Sec-WebSocket-Accept`: 20 bytes in base64.
const ACCEPT_CHARACTERS: usize = 28;

/// The `Sec-WebSocket-Accept` that belongs to one key.
///
/// SHA-1 protects nothing here: it shows that whoever answers read the request as a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Accept([u8; ACCEPT_CHARACTERS]);

impl Accept {
    pub(in crate::engine) fn of(key: &[u8]) -> Self {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        context.update(key);
        context.update(ACCEPT_GUID);
        let mut text = [0; ACCEPT_CHARACTERS];
        // 20 bytes fill 28 characters; a text that were not filled would match no header.
        let _filled = STANDARD.encode_slice(context.finish(), &mut text);
        Self(text)
    }

    /// Makes a response of HTTP/2 that opens a tunnel the one that HTTP/1 would have.
    pub(in crate::engine) fn switch(&self, parts: &mut Parts) {
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        let headers = &mut parts.headers;
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_bytes(&self.0) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }

    pub(in crate::engine) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 §1.3.
    #[test]
    fn the_example_of_the_specification_is_met() {
        let accept = Accept::of(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept.as_bytes(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_ne!(accept, Accept::of(b"dGhlIHNhbXBsZSBub25jZg=="));
    }
}
