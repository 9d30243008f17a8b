//! Why a head was refused, and with which status.

use thiserror::Error;

/// Status code of the answer to a head that was refused.
pub type Status = u16;

/// Why a head was refused. No variant carries the peer's text.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// A carriage return that no line feed follows, or the reverse.
    #[error("a carriage return or line feed stands alone in the head")]
    BareLineBreak,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("the message has both content-length and transfer-encoding")]
    BothFramings,
    /// `Content-Length` is no number, or two of them differ.
    #[error("content-length is not one decimal number")]
    ContentLength,
    /// A byte that no header value may have.
    #[error("a header value has a control character")]
    ControlInValue,
    /// `Expect` with something other than `100-continue`.
    #[error("expect has a value other than 100-continue")]
    Expectation,
    /// A line that begins with white space.
    #[error("a header line is folded")]
    Folded,
    /// A header line without a name, or with one that is no token.
    #[error("a header name is not a token followed by a colon")]
    HeaderName,
    /// None, several or a malformed `Host`.
    #[error("an HTTP/1.1 request has exactly one host, a name with an optional port")]
    Host,
    /// Longer than the limit.
    #[error("the head is longer than {limit} bytes")]
    HeadTooLong {
        /// The limit.
        limit: usize,
    },
    /// CONNECT, or a method that is no token.
    #[error("the method is not a token of at most 32 letters")]
    Method,
    /// CONNECT: this is no forward proxy.
    #[error("connect is not offered")]
    MethodNotAllowed,
    /// The first line has another form.
    #[error("the first line is not of the form RFC 9112 gives it")]
    StartLine,
    /// Not a status code.
    #[error("the status code is not three digits from 100 to 599")]
    StatusCode,
    /// A target of another form.
    #[error("the request target is neither a path, nor an http URL, nor * with OPTIONS")]
    Target,
    /// A target over its limit.
    #[error("the request target is longer than {limit} bytes")]
    TargetTooLong {
        /// The limit.
        limit: usize,
    },
    /// More header lines than the limit.
    #[error("the head has more than {limit} header lines")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// A transfer coding other than exactly `chunked`.
    #[error("transfer-encoding is not exactly chunked")]
    TransferEncoding,
    /// Another protocol version.
    #[error("the protocol version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
}

impl HeadError {
    /// Status of the answer, when the head was a client's (RFC 9110 §15.5).
    pub fn status(self) -> Status {
        match self {
            Self::Expectation => 417,
            Self::HeadTooLong { .. } | Self::TooManyHeaders { .. } => 431,
            Self::MethodNotAllowed => 405,
            Self::TargetTooLong { .. } => 414,
            Self::Version => 505,
            _ => 400,
        }
    }
}
