use super::*;
use crate::{HeadLimits, HeadSearch};

/// The example of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn asked(text: &str) -> Result<Option<Vec<u8>>, HandshakeError> {
    let mut head = RequestHead::default();
    let (limits, search) = (HeadLimits::default(), &mut HeadSearch::default());
    let parsed = head.parse(text.as_bytes(), &limits, search);
    assert_eq!(parsed, Ok(true), "{text}");
    key(&head, text.as_bytes()).map(|key| key.map(<[u8]>::to_vec))
}

/// A handshake with `lines` in place of its upgrade.
fn with(lines: &str) -> Result<Option<Vec<u8>>, HandshakeError> {
    asked(&format!(
        "GET /chat HTTP/1.1\r\nHost: a\r\n{lines}Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ))
}

/// A handshake with `lines` in place of key and version.
fn keyed(lines: &str) -> Result<Option<Vec<u8>>, HandshakeError> {
    asked(&format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{lines}\r\n"
    ))
}

#[test]
fn a_handshake_is_known_in_any_letter_case_and_in_lists() {
    for lines in [
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "UPGRADE: WebSocket\r\nCONNECTION: UPGRADE\r\n",
        "upgrade:websocket\r\nconnection:keep-alive, upgrade\r\n",
        "Connection: keep-alive\r\nConnection: ,upgrade ,\r\nUpgrade: , websocket ,\r\n",
        "Upgrade: h2c, websocket\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        "Upgrade: h2c\r\nUpgrade: WEBSOCKET\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n",
    ] {
        assert_eq!(with(lines), Ok(Some(KEY.into())), "{lines:?}");
    }
}

#[test]
fn what_asks_for_something_else_asks_for_nothing() {
    for lines in [
        "",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: close\r\n",
        "Upgrade: websocket\r\nConnection: upgraded\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket/13\r\nConnection: Upgrade\r\n",
        "Upgrade: xwebsocket\r\nConnection: Upgrade\r\n",
        "Upgrade: web socket\r\nConnection: Upgrade\r\n",
        "X-Upgrade: websocket\r\nConnection: Upgrade\r\n",
    ] {
        assert_eq!(with(lines), Ok(None), "{lines:?}");
    }
    let old = format!(
        "GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    assert_eq!(asked(&old), Ok(None));
    assert_eq!(
        asked(&old.replace("1.0\r\n", "1.1\r\nHost: a\r\n")),
        Ok(Some(KEY.into()))
    );
}

/// A head is kept from request to request, and so would be what an earlier one asked for.
#[test]
fn what_one_request_asked_for_the_next_did_not() {
    let mut head = RequestHead::default();
    for (line, expected) in [("Connection: upgrade\r\n", true), ("", false)] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
        let (limits, search) = (HeadLimits::default(), &mut HeadSearch::default());
        assert_eq!(head.parse(text.as_bytes(), &limits, search), Ok(true));
        assert_eq!(head.has_upgrade_option, expected);
    }
}

#[test]
fn a_handshake_that_is_not_whole_is_refused() {
    use HandshakeError::{Body, Key, Method, Repeated, Version};
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    for (lines, error) in [
        ("Upgrade: websocket\r\n", Repeated),
        ("Upgrade: h2c, WebSocket\r\n", Repeated),
        ("Content-Length: 1\r\n", Body),
        ("Transfer-Encoding: chunked\r\n", Body),
        ("Sec-WebSocket-Version: 13\r\n", Version),
        ("Sec-WebSocket-Version: 8\r\n", Version),
        ("Sec-WebSocket-Key: x\r\n", Key),
    ] {
        assert_eq!(with(&format!("{upgrade}{lines}")), Err(error), "{lines:?}");
    }
    for method in ["POST", "HEAD", "OPTIONS", "get"] {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n");
        assert_eq!(asked(&text), Err(Method));
    }
}

#[test]
fn a_key_is_sixteen_bytes_and_the_version_thirteen() {
    for key in [KEY, "AAAAAAAAAAAAAAAAAAAAAA==", "++//++//++//++//++//+w=="] {
        let lines = format!("sec-websocket-key:{key}\r\nSEC-WEBSOCKET-VERSION: 13\r\n");
        assert_eq!(keyed(&lines), Ok(Some(key.into())));
    }
    for key in [
        "",
        "==",
        "SGVsbG8sIHdvcmxkIQ==",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25jZQA=",
        "dGhlIHNhbXBsZSBub25j=Q==",
        "dGhlIHNhbXBsZSBub25_ZQ==",
        "dGhl IHNhbXBsZSBub25jQ==",
    ] {
        let lines = format!("Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n");
        assert_eq!(keyed(&lines), Err(HandshakeError::Key), "{key}");
    }
    assert_eq!(
        keyed("Sec-WebSocket-Version: 13\r\n"),
        Err(HandshakeError::Key)
    );
    for version in ["", "1", "013", "13, 8", "13.0"] {
        let lines = format!("Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: {version}\r\n");
        assert_eq!(keyed(&lines), Err(HandshakeError::Version), "{version}");
    }
    let lines = format!("Sec-WebSocket-Key: {KEY}\r\n");
    assert_eq!(keyed(&lines), Err(HandshakeError::Version));
}

#[test]
fn a_101_belongs_to_its_request() {
    use SwitchError::{Accept, Body, Connection, Upgrade, Version};
    let judged = |text: &str| {
        let mut head = ResponseHead::default();
        let (limits, search) = (HeadLimits::default(), &mut HeadSearch::default());
        let parsed = head.parse(text.as_bytes(), &limits, search, false);
        assert_eq!(parsed, Ok(true), "{text}");
        check_switch(&head, text.as_bytes(), ACCEPT.as_bytes())
    };
    let good = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: x, upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    assert_eq!(judged(&good), Ok(()));
    let sloppy = good.replace("Connection", "Content-Length: 0\r\nConnection");
    assert_eq!(judged(&sloppy), Ok(()));
    for (from, to, error) in [
        ("HTTP/1.1", "HTTP/1.0", Version),
        ("Connection", "Content-Length: 5\r\nConnection", Body),
        ("Upgrade: WebSocket\r\n", "", Upgrade),
        ("Upgrade: WebSocket", "Upgrade: h2c", Upgrade),
        ("Upgrade: WebSocket", "Upgrade: WebSocket, h2c", Upgrade),
        (
            "Upgrade: WebSocket",
            "Upgrade: WebSocket\r\nUpgrade: h2c",
            Upgrade,
        ),
        ("Connection: x, upgrade\r\n", "", Connection),
        ("x, upgrade", "x", Connection),
        ("Sec-WebSocket-Accept", "X-Accept", Accept),
        ("s3pP", "S3pP", Accept),
        ("xOo=", "xOo", Accept),
        (
            "Connection",
            "Sec-WebSocket-Accept: x\r\nConnection",
            Accept,
        ),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert_eq!(judged(&bad), Err(error), "{bad}");
    }
}

proptest::proptest! {
    /// Sixteen bytes, whichever they are, make a key; one character less or more does not.
    #[test]
    fn every_key_of_sixteen_bytes_is_one(text in "[A-Za-z0-9+/]{21}[AQgw]==") {
        let lines = |key: &str| format!("Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n");
        assert_eq!(keyed(&lines(&text)), Ok(Some(text.clone().into())));
        for wrong in [format!("{text}="), format!("A{text}"), text.replacen("==", "=", 1)] {
            assert_eq!(keyed(&lines(&wrong)), Err(HandshakeError::Key));
        }
    }
}
