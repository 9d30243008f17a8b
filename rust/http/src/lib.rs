//! HTTP/1 as we accept it: strict heads, chunked bodies, the handshake of WebSocket, and what may be
//! forwarded.
//!
//! Everything a client or the user process sends is judged here before anything else looks at it.
//! The rules are those of RFC 9110 and RFC 9112 at their strictest, because a message that two
//! parsers read differently is a way around every check: one framing or none, no bare CR or LF, no
//! folded lines, no space before a colon. What goes on is written again from what was parsed.
//!
//! This crate does no I/O. It trusts nothing; limits come before anything is stored. A head is
//! parsed where it lies, as ranges into the caller's buffer.

#![forbid(unsafe_code)]

pub mod chunked;
mod error;
pub mod fields;
pub mod forward;
mod lines;
pub mod request;
pub mod response;
pub mod websocket;

pub use chunked::{ChunkDecoder, ChunkError, ChunkEvent, ChunkLimits};
pub use error::{HeadError, Status};
pub use fields::{Field, Fields, Known, Span};
pub use lines::HeadSearch;
pub use request::{RequestFraming, RequestHead, Target};
pub use response::{ResponseFraming, ResponseHead};
pub use websocket::{HandshakeError, SwitchError};

/// Bounds of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// The whole head, in bytes (431).
    pub head: usize,
    /// Header lines (431).
    pub headers: usize,
    /// Request target, in bytes (414).
    pub target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            head: 64 * 1024,
            headers: 128,
            target: 32 * 1024,
        }
    }
}

/// Protocol version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpVersion {
    /// HTTP/1.0.
    V1_0,
    /// HTTP/1.1.
    V1_1,
}
