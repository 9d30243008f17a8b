//! The opening handshake of WebSocket (RFC 6455 §4), from either side.
//!
//! A connection whose protocol is switched is read by nobody here any more, so both sides must mean
//! it: a request that asks for WebSocket is a whole handshake or refused, and a 101 is the answer to
//! that very request or broken. `Upgrade` to anything else, from HTTP/1.0, or without `upgrade` in
//! `Connection` asks for nothing (RFC 9110 §7.8) and stays here like every header of one connection.
//!
//! What `Sec-WebSocket-Accept` must be is for the caller to compute: this crate has no digests.
//! Extensions and subprotocols are between client and user process.

use thiserror::Error;

use crate::fields::{Field, Fields, Known};
use crate::request::{RequestFraming, RequestHead};
use crate::response::ResponseHead;
use crate::{HttpVersion, Status};

/// Length of `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455 §4.1).
pub const KEY_CHARACTERS: usize = 24;

/// What is put behind the key before it is hashed (RFC 6455 §1.3).
pub const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request that asks for WebSocket is no handshake. No variant carries the peer's text.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// It has a body: where that ends and the tunnel begins would be open to opinion.
    #[error("a websocket handshake has no body")]
    Body,
    /// `Sec-WebSocket-Key` is missing, given twice, or not 16 bytes in base64.
    #[error("sec-websocket-key is not 16 bytes in base64, given once")]
    Key,
    /// Another method than GET.
    #[error("a websocket handshake is a GET request")]
    Method,
    /// `Upgrade` names it twice.
    #[error("upgrade names websocket more than once")]
    Repeated,
    /// `Sec-WebSocket-Version` is missing, given twice, or not 13.
    #[error("sec-websocket-version is not 13, given once")]
    Version,
}

impl HandshakeError {
    /// Status of the answer.
    pub fn status(self) -> Status {
        400
    }
}

/// Why a 101 does not switch the protocol.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SwitchError {
    /// `Sec-WebSocket-Accept` is missing, given twice, or of another key.
    #[error("sec-websocket-accept does not belong to the key of the request")]
    Accept,
    /// It has a length: where it ends and the tunnel begins would be open to opinion.
    #[error("a 101 has no body")]
    Body,
    /// `Connection` does not list `upgrade`.
    #[error("connection does not list upgrade")]
    Connection,
    /// `Upgrade` is not exactly `websocket`.
    #[error("upgrade is not websocket")]
    Upgrade,
    /// HTTP/1.0 switches no protocols.
    #[error("the protocol version is not HTTP/1.1")]
    Version,
}

/// The key of a request that asks for WebSocket; `None` when it asks for nothing of the kind.
///
/// `bytes` is what `head` was parsed from. The key is [`KEY_CHARACTERS`] long.
///
/// # Errors
///
/// Checked in this order: [`HandshakeError::Repeated`], [`HandshakeError::Method`],
/// [`HandshakeError::Body`], [`HandshakeError::Version`], [`HandshakeError::Key`].
pub fn key<'b>(head: &RequestHead, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, HandshakeError> {
    if !head.has_upgrade_option || head.version != HttpVersion::V1_1 {
        return Ok(None);
    }
    let mut named = protocols(&head.fields, bytes).filter(|protocol| is_websocket(protocol));
    if named.next().is_none() {
        return Ok(None);
    }
    if named.next().is_some() {
        return Err(HandshakeError::Repeated);
    }
    if head.method.of(bytes) != b"GET" {
        return Err(HandshakeError::Method);
    }
    if head.framing != RequestFraming::None {
        return Err(HandshakeError::Body);
    }
    if only(&head.fields, bytes, b"sec-websocket-version") != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    only(&head.fields, bytes, b"sec-websocket-key")
        .filter(|key| is_key(key))
        .map(Some)
        .ok_or(HandshakeError::Key)
}

/// Judges a 101 that answers a handshake. `accept` is what its key leads to.
///
/// # Errors
///
/// Checked in this order: [`SwitchError::Version`], [`SwitchError::Body`], [`SwitchError::Upgrade`],
/// [`SwitchError::Connection`], [`SwitchError::Accept`].
pub fn check_switch(head: &ResponseHead, bytes: &[u8], accept: &[u8]) -> Result<(), SwitchError> {
    if head.version != HttpVersion::V1_1 {
        return Err(SwitchError::Version);
    }
    // RFC 9110 §8.6: there is none. Servers that say 0 mean the same.
    if head.content_length.is_some_and(|length| length > 0) {
        return Err(SwitchError::Body);
    }
    let mut protocols = protocols(&head.fields, bytes);
    if !protocols.next().is_some_and(is_websocket) || protocols.next().is_some() {
        return Err(SwitchError::Upgrade);
    }
    let mut options = list(&head.fields, bytes, Known::Connection);
    if !options.any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return Err(SwitchError::Connection);
    }
    if only(&head.fields, bytes, b"sec-websocket-accept") != Some(accept) {
        return Err(SwitchError::Accept);
    }
    Ok(())
}

/// The protocols of all `Upgrade` lines, in order.
fn protocols<'b>(fields: &'b Fields, bytes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
    list(fields, bytes, Known::Upgrade)
}

/// RFC 6455 §4.2.1: in any letter case.
fn is_websocket(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"websocket")
}

/// The elements of a list header (RFC 9110 §5.6.1), without the empty ones.
fn list<'b>(fields: &'b Fields, bytes: &'b [u8], known: Known) -> impl Iterator<Item = &'b [u8]> {
    fields
        .iter()
        .filter(move |field| field.known == known)
        .flat_map(|field| field.value.of(bytes).split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// The value of a header that is there once.
fn only<'b>(fields: &Fields, bytes: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    let is_named = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name);
    let mut found = fields.iter().filter(is_named);
    match (found.next(), found.next()) {
        (Some(field), None) => Some(field.value.of(bytes)),
        _ => None,
    }
}

/// 16 bytes: 22 characters, of which the last holds two bits, and two of padding (RFC 4648 §3.5: the
/// bits that are left over are zero).
fn is_key(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match text {
        [digits @ .., b'A' | b'Q' | b'g' | b'w', b'=', b'='] => {
            text.len() == KEY_CHARACTERS && digits.iter().all(is_digit)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
