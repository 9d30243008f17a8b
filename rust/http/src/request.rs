//! Request heads (RFC 9112 §3).

use crate::error::HeadError;
use crate::fields::{Fields, FramingFields, Known, Span};
use crate::lines::{HeadSearch, is_token, line};
use crate::{HeadLimits, HttpVersion};

/// Longest method, in bytes. The registry's longest has 17 letters.
const MAX_METHOD_BYTES: usize = 32;

/// How a request's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestFraming {
    /// In chunks.
    Chunked,
    /// After so many bytes.
    Length(u64),
    /// There is none.
    #[default]
    None,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// `http://authority/path`: the authority takes the place of `Host` (RFC 9112 §3.2.2).
    Absolute {
        /// Host and port.
        authority: Span,
        /// Path and query; empty means `/`.
        path: Span,
    },
    /// `*`, with OPTIONS.
    #[default]
    Asterisk,
    /// Path and query.
    Origin(Span),
}

/// A request head, as ranges into the buffer it was parsed from.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Length of the head, its empty line included.
    pub length: usize,
    /// Method.
    pub method: Span,
    /// Target.
    pub target: Target,
    /// The target as it was written.
    pub raw_target: Span,
    /// Protocol version.
    pub version: HttpVersion,
    /// Header lines.
    pub fields: Fields,
    /// How the body ends.
    pub framing: RequestFraming,
    /// Whether the client wants the connection kept.
    pub is_persistent: bool,
    /// Whether the client waits for a 100 before it sends the body.
    pub expects_continue: bool,
    /// Whether `Connection` lists `upgrade`; [`websocket::key`](crate::websocket::key) says to what.
    pub has_upgrade_option: bool,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            length: 0,
            method: Span::default(),
            target: Target::default(),
            raw_target: Span::default(),
            version: HttpVersion::V1_1,
            fields: Fields::default(),
            framing: RequestFraming::None,
            is_persistent: false,
            expects_continue: false,
            has_upgrade_option: false,
        }
    }
}

impl RequestHead {
    /// Parses the head at the start of `buffer` into `self`; false when more bytes are needed.
    ///
    /// `search` goes from call to call while the head arrives and starts anew with each head.
    ///
    /// # Errors
    ///
    /// [`HeadError`]; the connection cannot be used after one.
    pub fn parse(
        &mut self,
        buffer: &[u8],
        limits: &HeadLimits,
        search: &mut HeadSearch,
    ) -> Result<bool, HeadError> {
        let Some(length) = search.advance(buffer, limits)? else {
            // A target that is too long has a status of its own, also while it arrives.
            let is_long =
                !search.has_first_line() && buffer.len() > limits.target.saturating_add(64);
            return if is_long {
                Err(HeadError::TargetTooLong {
                    limit: limits.target,
                })
            } else {
                Ok(false)
            };
        };
        let head = buffer.get(..length).unwrap_or_default();
        self.length = length;
        let next = self.start_line(head, limits)?;
        self.fields.read(head, next)?;
        self.framing(head)?;
        self.host(head)?;
        Ok(true)
    }

    fn start_line(&mut self, head: &[u8], limits: &HeadLimits) -> Result<usize, HeadError> {
        let (content, next) = line(head, 0).ok_or(HeadError::StartLine)?;
        let mut parts = content.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadError::StartLine);
        };
        if method.is_empty()
            || method.len() > MAX_METHOD_BYTES
            || !method.iter().all(|byte| is_token(*byte))
        {
            return Err(HeadError::Method);
        }
        if target.len() > limits.target {
            return Err(HeadError::TargetTooLong {
                limit: limits.target,
            });
        }
        self.version = match version {
            b"HTTP/1.1" => HttpVersion::V1_1,
            b"HTTP/1.0" => HttpVersion::V1_0,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(HeadError::Version);
            }
            _ => return Err(HeadError::StartLine),
        };
        if method == b"CONNECT" {
            return Err(HeadError::MethodNotAllowed);
        }
        let start = method.len().saturating_add(1);
        self.method = Span::new(0, method.len());
        self.raw_target = Span::new(start, start.saturating_add(target.len()));
        self.target = target_form(method, target, start)?;
        Ok(next)
    }

    fn framing(&mut self, head: &[u8]) -> Result<(), HeadError> {
        let found = FramingFields::read(head, &self.fields)?;
        if found.is_chunked && self.version == HttpVersion::V1_0 {
            return Err(HeadError::TransferEncoding);
        }
        self.framing = match found.length {
            _ if found.is_chunked => RequestFraming::Chunked,
            Some(0) | None => RequestFraming::None,
            Some(length) => RequestFraming::Length(length),
        };
        self.is_persistent = match self.version {
            HttpVersion::V1_1 => !found.is_close,
            HttpVersion::V1_0 => found.is_keep_alive && !found.is_close,
        };
        self.has_upgrade_option = found.has_upgrade_option;
        self.expects_continue = false;
        let expectations = self.fields.iter().filter(|f| f.known == Known::Expect);
        for field in expectations {
            if !field.value.of(head).eq_ignore_ascii_case(b"100-continue") {
                return Err(HeadError::Expectation);
            }
            // RFC 9110 §10.1.1: ignored from HTTP/1.0, and without a body there is nothing to wait for.
            self.expects_continue =
                self.version == HttpVersion::V1_1 && self.framing != RequestFraming::None;
        }
        Ok(())
    }

    fn host(&self, head: &[u8]) -> Result<(), HeadError> {
        let mut hosts = self
            .fields
            .iter()
            .filter(|field| field.known == Known::Host);
        match (hosts.next(), hosts.next()) {
            (Some(field), None) if is_authority(field.value.of(head)) => Ok(()),
            (None, None) if self.version == HttpVersion::V1_0 => Ok(()),
            _ => Err(HeadError::Host),
        }
    }
}

fn target_form(method: &[u8], target: &[u8], start: usize) -> Result<Target, HeadError> {
    // No control character, no space, no fragment; bytes above ASCII pass, as servers let them.
    let is_allowed = |byte: u8| !matches!(byte, 0..=b' ' | 0x7F | b'#');
    if !target
        .iter()
        .fold(true, |all, byte| all & is_allowed(*byte))
    {
        return Err(HeadError::Target);
    }
    let end = start.saturating_add(target.len());
    if target.first() == Some(&b'/') {
        return Ok(Target::Origin(Span::new(start, end)));
    }
    if target == b"*" && method == b"OPTIONS" {
        return Ok(Target::Asterisk);
    }
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
        target
            .get(..scheme.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(scheme))
    });
    let rest = scheme
        .and_then(|scheme| target.get(scheme.len()..))
        .ok_or(HeadError::Target)?;
    let length = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let authority = rest.get(..length).unwrap_or_default();
    if authority.is_empty() || !is_authority(authority) {
        return Err(HeadError::Target);
    }
    let from = end.saturating_sub(rest.len());
    let path = from.saturating_add(length);
    Ok(Target::Absolute {
        authority: Span::new(from, path),
        path: Span::new(path, end),
    })
}

/// Host and optional port (RFC 3986 §3.2.2, §3.2.3), without user information. An empty host is
/// allowed (RFC 9112 §3.2).
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = if text.first() == Some(&b'[') {
        let Some(close) = text.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let (host, rest) = text
            .split_at_checked(close.saturating_add(1))
            .unwrap_or((text, b""));
        let inside = host
            .get(1..host.len().saturating_sub(1))
            .unwrap_or_default();
        if !inside
            .iter()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        {
            return false;
        }
        match rest.split_first() {
            None => (inside, None),
            Some((b':', port)) => (inside, Some(port)),
            Some(_) => return false,
        }
    } else {
        let mut parts = text.splitn(2, |byte| *byte == b':');
        let host = parts.next().unwrap_or_default();
        let is_name = |byte: &u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
        };
        if !host.iter().all(is_name) {
            return false;
        }
        (host, parts.next())
    };
    let is_port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    host.len() <= 255 && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests;
