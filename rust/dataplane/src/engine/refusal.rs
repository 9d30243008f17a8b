//! Answers the data plane itself gives (data-plane specification §3): JSON, with a context id.

use std::fmt;

use cloister_http::{ChunkError, HandshakeError, HeadError};

use super::opening::Overloaded;
use crate::server::traffic::{Reason, UpstreamError};

/// An answer to a request that is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Refusal {
    pub(in crate::engine) status: u16,
    message: String,
    retry_after_s: Option<u32>,
    /// What it is counted as.
    counted: (Reason, Option<UpstreamError>),
    /// A header line more, with its end.
    line: &'static str,
    /// Whether the connection is in order, so that the next request can be read.
    pub(in crate::engine) keeps_connection: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.message)
    }
}

/// Bodies that are held whole take all the memory that is set aside for them.
pub(in crate::engine) fn no_room() -> Refusal {
    Refusal::new(503, "bodies of other requests take all the room there is").retry_after(1)
}

impl Refusal {
    /// The user process cannot be connected to.
    pub(in crate::engine) fn unreachable(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::TimedOut {
            return Self::new(504, "the user process did not accept in time")
                .of_process(UpstreamError::ConnectTimeout)
                .kept();
        }
        Self::new(502, "the user process does not accept connections")
            .of_process(UpstreamError::Connect)
            .kept()
    }

    /// A refusal after which the connection is closed.
    pub(in crate::engine) fn new(status: u16, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            message,
            retry_after_s: None,
            counted: counted(status),
            line: "",
            keeps_connection: false,
        }
    }

    /// The same, with the connection kept.
    pub(in crate::engine) fn kept(self) -> Self {
        Self {
            keeps_connection: true,
            ..self
        }
    }

    /// The same, with a `Retry-After`.
    pub(in crate::engine) fn retry_after(self, seconds: u32) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..self
        }
    }

    /// Its header lines, without framing and context id, and its body.
    pub(in crate::engine) fn parts(&self) -> (Vec<u8>, String) {
        let mut lines = b"content-type: application/json\r\n".to_vec();
        if let Some(seconds) = self.retry_after_s {
            lines.extend_from_slice(b"retry-after: ");
            lines.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        lines.extend_from_slice(self.line.as_bytes());
        let body = serde_json::json!({ "message": self.message }).to_string();
        (lines, body)
    }

    /// The same, counted as something else than its status says.
    pub(in crate::engine) fn because(self, reason: Reason) -> Self {
        Self {
            counted: (reason, None),
            ..self
        }
    }

    /// The same, counted as an error of the user process.
    pub(in crate::engine) fn of_process(self, error: UpstreamError) -> Self {
        Self {
            counted: (Reason::Upstream, Some(error)),
            ..self
        }
    }

    /// What it is counted as.
    pub(in crate::engine) fn reason(&self) -> Reason {
        self.counted.0
    }

    /// What the user process did, when it did.
    pub(in crate::engine) fn upstream_error(&self) -> Option<UpstreamError> {
        self.counted.1
    }

    /// Appends the answer, body included unless the request was HEAD.
    pub(in crate::engine) fn write(
        &self,
        context: &[u8; 32],
        is_kept: bool,
        is_head: bool,
        out: &mut Vec<u8>,
    ) {
        let (lines, body) = self.parts();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\nx-evervault-ctx: ");
        out.extend_from_slice(context);
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&lines);
        if !is_kept {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !is_head {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

/// What a status stands for, unless something else is said.
fn counted(status: u16) -> (Reason, Option<UpstreamError>) {
    let reason = match status {
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        405 => Reason::Method,
        408 => Reason::SlowRequest,
        413 => Reason::TooLarge,
        414 | 431 => Reason::HeadTooLarge,
        422 => Reason::Ciphertext,
        503 => Reason::Overloaded,
        502 => return (Reason::Upstream, Some(UpstreamError::Protocol)),
        504 => return (Reason::Upstream, Some(UpstreamError::Timeout)),
        _ => Reason::Malformed,
    };
    (reason, None)
}

impl From<Overloaded> for Refusal {
    fn from(_: Overloaded) -> Self {
        Self::new(503, "too many ciphertexts are being opened").retry_after(1)
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        let line = match error {
            // RFC 6455 §4.4: whoever speaks another version is told which one is spoken here.
            HandshakeError::Version => "sec-websocket-version: 13\r\n",
            _ => "",
        };
        Self {
            line,
            ..Self::new(error.status(), error.to_string())
        }
    }
}

impl From<ChunkError> for Refusal {
    fn from(error: ChunkError) -> Self {
        Self::new(400, error.to_string())
    }
}

/// Reason phrases of RFC 9110 §15 for the statuses that are answered here.
pub(in crate::engine) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_json_with_a_context_id() {
        let mut out = Vec::new();
        Refusal::new(503, "say \"when\"")
            .retry_after(1)
            .write(&[b'A'; 32], false, false, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(text.contains("\r\ncontent-length: 26\r\n"), "{text}");
        assert!(
            text.contains("\r\nretry-after: 1\r\nconnection: close\r\n\r\n"),
            "{text}"
        );
        assert!(
            text.ends_with("{\"message\":\"say \\\"when\\\"\"}"),
            "{text}"
        );
    }

    #[test]
    fn head_gets_the_head_alone() {
        let mut out = Vec::new();
        Refusal::new(401, "no").write(&[b'A'; 32], true, true, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("content-length: 16") && text.ends_with("\r\n\r\n"));
        assert!(!text.contains("connection"));
    }
}
