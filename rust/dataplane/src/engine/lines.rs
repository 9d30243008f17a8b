//! Heads between the two forms they have here: lines of HTTP/1, in which they are judged, and the
//! maps that `h2` takes and gives.

use cloister_http::forward::{may_forward_trailer, write_field};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

/// The header of the context id.
pub(super) const CONTEXT: HeaderName = HeaderName::from_static("x-evervault-ctx");

/// Method, target and headers of a request head that was written here.
pub(super) fn request(head: &[u8]) -> (&[u8], &[u8], HeaderMap) {
    let end = memchr::memmem::find(head, b"\r\n").unwrap_or(head.len());
    let (line, rest) = head.split_at_checked(end).unwrap_or((head, b""));
    let mut parts = line.split(|byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    let target = parts.next().unwrap_or_default();
    (method, target, fields(rest.get(2..).unwrap_or_default()))
}

/// Header lines that were written here. A line that is none is left out.
pub(super) fn fields(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(16);
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// Appends a response head. Without a length, and when more follows, it is chunked: that says where
/// it ends as HTTP/2 does.
pub(super) fn write_response(response: &Response<()>, is_whole: bool, out: &mut Vec<u8>) {
    let status = response.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        write_field(name.as_str().as_bytes(), value.as_bytes(), out);
    }
    if !is_whole
        && !response
            .headers()
            .contains_key(http::header::CONTENT_LENGTH)
    {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the trailer lines that may be forwarded: none that frames, routes or authenticates a
/// message (RFC 9110 §6.5.1).
pub(super) fn write_trailers(trailers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in trailers {
        let name = name.as_str().as_bytes();
        if may_forward_trailer(name) {
            write_field(name, value.as_bytes(), out);
        }
    }
}
