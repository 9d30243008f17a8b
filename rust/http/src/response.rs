//! Response heads of the user process (RFC 9112 §4): judged as strictly as requests, because a
//! response that ends elsewhere than it says would reach the next client of a pooled connection.

use crate::error::HeadError;
use crate::fields::{Fields, FramingFields, Span};
use crate::lines::{HeadSearch, line};
use crate::{HeadLimits, HttpVersion};

/// How a response's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// In chunks.
    Chunked,
    /// After so many bytes.
    Length(u64),
    /// There is none.
    None,
    /// With the connection.
    UntilClose,
}

/// A response head, as ranges into the buffer it was parsed from.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Length of the head, its empty line included.
    pub length: usize,
    /// Status code, 100 to 599.
    pub status: u16,
    /// Reason phrase.
    pub reason: Span,
    /// Protocol version.
    pub version: HttpVersion,
    /// Header lines.
    pub fields: Fields,
    /// How the body ends.
    pub framing: ResponseFraming,
    /// `Content-Length`, also where there is no body (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the connection may be used again once the body has ended.
    pub is_persistent: bool,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            length: 0,
            status: 0,
            reason: Span::default(),
            version: HttpVersion::V1_1,
            fields: Fields::default(),
            framing: ResponseFraming::None,
            content_length: None,
            is_persistent: false,
        }
    }
}

impl ResponseHead {
    /// Parses the head at the start of `buffer` into `self`; false when more bytes are needed.
    ///
    /// `is_head_request`: the request was HEAD, so there is no body whatever the head says.
    ///
    /// # Errors
    ///
    /// [`HeadError`]: the user process broke the protocol; the connection cannot be used after it.
    pub fn parse(
        &mut self,
        buffer: &[u8],
        limits: &HeadLimits,
        search: &mut HeadSearch,
        is_head_request: bool,
    ) -> Result<bool, HeadError> {
        let Some(length) = search.advance(buffer, limits)? else {
            return Ok(false);
        };
        let head = buffer.get(..length).unwrap_or_default();
        self.length = length;
        let next = self.status_line(head)?;
        self.fields.read(head, next)?;
        let found = FramingFields::read(head, &self.fields)?;
        if found.is_chunked && self.version == HttpVersion::V1_0 {
            return Err(HeadError::TransferEncoding);
        }
        let has_no_body = matches!(self.status, 100..=199 | 204 | 304);
        if found.is_chunked && matches!(self.status, 100..=199 | 204) {
            return Err(HeadError::TransferEncoding);
        }
        self.content_length = found.length;
        self.framing = match found.length {
            _ if has_no_body || is_head_request => ResponseFraming::None,
            _ if found.is_chunked => ResponseFraming::Chunked,
            Some(0) => ResponseFraming::None,
            Some(length) => ResponseFraming::Length(length),
            None => ResponseFraming::UntilClose,
        };
        self.is_persistent = self.framing != ResponseFraming::UntilClose
            && match self.version {
                HttpVersion::V1_1 => !found.is_close,
                HttpVersion::V1_0 => found.is_keep_alive && !found.is_close,
            };
        Ok(true)
    }

    fn status_line(&mut self, head: &[u8]) -> Result<usize, HeadError> {
        let (content, next) = line(head, 0).ok_or(HeadError::StartLine)?;
        let (version, rest) = content.split_at_checked(8).ok_or(HeadError::StartLine)?;
        self.version = match version {
            b"HTTP/1.1" => HttpVersion::V1_1,
            b"HTTP/1.0" => HttpVersion::V1_0,
            _ => return Err(HeadError::Version),
        };
        let (code, reason) = match rest {
            [
                b' ',
                a @ b'1'..=b'5',
                b @ b'0'..=b'9',
                c @ b'0'..=b'9',
                reason @ ..,
            ] => ([*a, *b, *c], reason),
            _ => return Err(HeadError::StatusCode),
        };
        self.status = code.iter().fold(0, |value: u16, digit| {
            value
                .saturating_mul(10)
                .saturating_add(u16::from(digit.wrapping_sub(b'0')))
        });
        // The space before an empty reason may be missing; servers leave it out.
        let text = match reason.split_first() {
            None => reason,
            Some((b' ', text)) => text,
            Some(_) => return Err(HeadError::StatusCode),
        };
        if text
            .iter()
            .any(|byte| !matches!(byte, b'\t' | b' '..=b'~' | 0x80..=0xFF))
        {
            return Err(HeadError::StartLine);
        }
        self.reason = Span::new(content.len().saturating_sub(text.len()), content.len());
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, is_head: bool) -> Result<ResponseHead, HeadError> {
        let mut head = ResponseHead::default();
        let search = &mut HeadSearch::default();
        let whole = head.parse(text.as_bytes(), &HeadLimits::default(), search, is_head)?;
        assert!(whole, "{text}");
        Ok(head)
    }

    #[test]
    fn a_body_ends_where_the_head_says() {
        let framing = |text: &str| parse(text, false).unwrap().framing;
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
            ResponseFraming::Length(5)
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ResponseFraming::None
        );
        assert_eq!(
            framing("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ResponseFraming::Chunked
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\n\r\n"),
            ResponseFraming::UntilClose
        );
        for status in ["100", "103", "204", "304"] {
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\n");
            assert_eq!(framing(&text), ResponseFraming::None, "{status}");
        }
        let head = parse("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true).unwrap();
        assert_eq!(
            (head.framing, head.content_length),
            (ResponseFraming::None, Some(5))
        );
    }

    #[test]
    fn a_connection_is_kept_only_when_the_response_has_an_end() {
        let kept = |text: &str| parse(text, false).unwrap().is_persistent;
        assert!(kept("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"));
        assert!(!kept(
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close\r\n\r\n"
        ));
        assert!(!kept("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!kept("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n"));
        assert!(kept(
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n"
        ));
    }

    #[test]
    fn t02_a_response_with_two_ends_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nx: y\r\n\r\n",
            "HTTP/1.1 200 OK\r\n x: folded\r\n\r\n",
        ] {
            parse(text, false).unwrap_err();
        }
    }
}
