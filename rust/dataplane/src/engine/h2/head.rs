//! A request head of HTTP/2, written as one of HTTP/1 to be judged as such.
//!
//! `h2` has refused what RFC 9113 §8.2 and §8.3 call malformed. What could still mean something else
//! once it is written down in lines is refused here: the same thing said twice in different words, and
//! headers that frame a message or belong to one connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_http::Known;
use cloister_http::forward::write_field;
use h2::ext::Protocol;
use http::Method;
use http::header::{COOKIE, HOST, HeaderName};
use http::request::Parts;

use crate::engine::refusal::Refusal;

/// Appends the head.
///
/// `key` stands for the `Sec-WebSocket-Key` that HTTP/2 has none of (RFC 8441 §5.1); it is written
/// when the request asks for a WebSocket.
///
/// # Errors
///
/// 400, and 501 for `:protocol` other than `websocket` (RFC 9220 §3 says so of HTTP/3; RFC 8441 leaves
/// it open).
pub(super) fn write(
    parts: &Parts,
    is_whole: bool,
    key: impl FnOnce() -> [u8; 16],
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let bad = |message| Refusal::new(400, message).kept();
    let protocol = parts.extensions.get::<Protocol>();
    if protocol.is_some_and(|protocol| !protocol.as_str().eq_ignore_ascii_case("websocket")) {
        return Err(Refusal::new(501, "no protocol but websocket is spoken here").kept());
    }
    if protocol.is_some() && parts.method != Method::CONNECT {
        return Err(bad("only CONNECT has a :protocol"));
    }
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(bad("the scheme is neither https nor http"));
    }
    let is_websocket = protocol.is_some();
    let method = if is_websocket {
        "GET"
    } else {
        parts.method.as_str()
    };
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    let target = parts.uri.path_and_query().map_or("", |path| path.as_str());
    // CONNECT has no path; it is refused by its method, behind this.
    let target = if target.is_empty() { "/" } else { target };
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    for host in parts.headers.get_all(HOST) {
        // RFC 9113 §8.3.1: the two must not differ.
        if authority
            .is_some_and(|authority| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()))
        {
            return Err(bad("host is another one than :authority"));
        }
    }
    if let Some(authority) = authority {
        write_field(b"host", authority.as_bytes(), out);
    }
    let mut has_length = false;
    for (name, value) in &parts.headers {
        match Known::of(name.as_str().as_bytes()) {
            Known::Host if authority.is_some() => continue,
            Known::Connection | Known::TransferEncoding | Known::Upgrade => {
                return Err(bad("a header that HTTP/2 does not have"));
            }
            Known::ContentLength => has_length = true,
            Known::Other if name == COOKIE => continue,
            Known::Other if is_websocket && name == WEBSOCKET_KEY => continue,
            _ => {}
        }
        write_field(name.as_str().as_bytes(), value.as_bytes(), out);
    }
    // RFC 9113 §8.2.3: in HTTP/1 they are one.
    let cookies = parts.headers.get_all(COOKIE).iter();
    let cookies: Vec<_> = cookies.map(http::HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        write_field(b"cookie", &cookies.join(&b"; "[..]), out);
    }
    if is_websocket {
        if has_length {
            return Err(bad("a websocket handshake has no body"));
        }
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        write_field(b"sec-websocket-key", STANDARD.encode(key()).as_bytes(), out);
    } else if !is_whole && !has_length {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

const WEBSOCKET_KEY: HeaderName = http::header::SEC_WEBSOCKET_KEY;

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn written(request: http::request::Builder, is_whole: bool) -> Result<String, u16> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = Vec::new();
        write(&parts, is_whole, || [0; 16], &mut out).map_err(|refusal| refusal.status)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_authority_is_the_host_and_cookies_are_one() {
        let request = Request::get("https://a.example:8443/p?q")
            .header("cookie", "a=1")
            .header("host", "A.example:8443")
            .header("cookie", "b=2")
            .header("x-mine", "1");
        assert_eq!(
            written(request, true).unwrap(),
            "GET /p?q HTTP/1.1\r\nhost: a.example:8443\r\nx-mine: 1\r\ncookie: a=1; b=2\r\n\r\n"
        );
    }

    #[test]
    fn a_body_without_a_length_is_in_chunks() {
        let sized = || Request::post("https://a/").header("content-length", "3");
        assert!(
            written(sized(), false)
                .unwrap()
                .ends_with("content-length: 3\r\n\r\n")
        );
        let open = written(Request::post("https://a/"), false).unwrap();
        assert!(
            open.ends_with("transfer-encoding: chunked\r\n\r\n"),
            "{open}"
        );
        let none = written(Request::post("https://a/"), true).unwrap();
        assert!(none.ends_with("host: a\r\n\r\n"), "{none}");
    }

    #[test]
    fn t01_what_would_mean_something_else_in_lines_is_refused() {
        let get = || Request::get("https://a/");
        written(get(), true).unwrap();
        assert_eq!(written(get().header("host", "b"), true), Err(400));
        for name in ["connection", "transfer-encoding", "upgrade"] {
            assert_eq!(written(get().header(name, "x"), true), Err(400), "{name}");
        }
        assert_eq!(written(Request::get("ftp://a/"), true), Err(400));
    }

    #[test]
    fn a_websocket_is_asked_for_as_in_http1() {
        let connect = |protocol: &'static str| {
            let request = Request::builder().method("CONNECT").uri("https://a/chat");
            request
                .header("sec-websocket-version", "13")
                .extension(Protocol::from_static(protocol))
        };
        let text = written(connect("websocket"), false).unwrap();
        assert_eq!(
            text,
            "GET /chat HTTP/1.1\r\nhost: a\r\nsec-websocket-version: 13\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        assert_eq!(written(connect("connect-udp"), false), Err(501));
    }
}
