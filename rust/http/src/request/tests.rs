use proptest::prelude::*;

use super::*;

fn parse(text: &[u8]) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::default();
    let whole = head.parse(text, &HeadLimits::default(), &mut HeadSearch::default())?;
    assert!(whole, "the head is not complete");
    Ok(head)
}

fn with(lines: &str) -> Result<RequestHead, HeadError> {
    parse(format!("POST /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n").as_bytes())
}

#[test]
fn a_plain_request_is_read() {
    let text =
        b"GET /path?q=1 HTTP/1.1\r\nHost: example.com:8443\r\nX-A:  b c \t\r\nx-a:\r\n\r\nbody";
    let head = parse(text).unwrap();
    assert_eq!(head.method.of(text), b"GET");
    assert_eq!(head.raw_target.of(text), b"/path?q=1");
    assert!(matches!(head.target, Target::Origin(span) if span.of(text) == b"/path?q=1"));
    assert_eq!(head.framing, RequestFraming::None);
    assert!(head.is_persistent && !head.expects_continue);
    let values: Vec<_> = head
        .fields
        .iter()
        .map(|field| field.value.of(text))
        .collect();
    assert_eq!(values, [&b"example.com:8443"[..], b"b c", b""]);
    assert_eq!(text.get(head.length..), Some(&b"body"[..]));
}

#[test]
fn one_framing_or_none() {
    assert_eq!(
        with("Content-Length: 5\r\n").unwrap().framing,
        RequestFraming::Length(5)
    );
    assert_eq!(
        with("Content-Length: 0\r\n").unwrap().framing,
        RequestFraming::None
    );
    assert_eq!(with("").unwrap().framing, RequestFraming::None);
    assert_eq!(
        with("transfer-encoding: Chunked\r\n").unwrap().framing,
        RequestFraming::Chunked
    );
    let same = with("Content-Length: 5\r\nContent-Length: 5\r\n").unwrap();
    assert_eq!(same.framing, RequestFraming::Length(5));
}

#[test]
fn t01_two_framings_are_refused() {
    for (lines, error) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            HeadError::BothFramings,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            HeadError::BothFramings,
        ),
        (
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            HeadError::ContentLength,
        ),
        ("Content-Length: 5, 5\r\n", HeadError::ContentLength),
        ("Content-Length: +5\r\n", HeadError::ContentLength),
        ("Content-Length: -5\r\n", HeadError::ContentLength),
        ("Content-Length: 0x5\r\n", HeadError::ContentLength),
        ("Content-Length: 5 5\r\n", HeadError::ContentLength),
        ("Content-Length:\r\n", HeadError::ContentLength),
        (
            "Content-Length: 9999999999999999999\r\n",
            HeadError::ContentLength,
        ),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding: chunked, chunked\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding: xchunked\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding: identity\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding: \"chunked\"\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding:\x0bchunked\r\n",
            HeadError::ControlInValue,
        ),
        ("Transfer-Encoding : chunked\r\n", HeadError::HeaderName),
        ("Content-Length\t: 5\r\n", HeadError::HeaderName),
    ] {
        assert_eq!(with(lines).unwrap_err(), error, "{lines:?}");
    }
    let old = parse(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err();
    assert_eq!(old, HeadError::TransferEncoding);
}

#[test]
fn t01_lines_are_lines() {
    for (lines, error) in [
        ("X: a\n", HeadError::BareLineBreak),
        ("X: a\rb\r\n", HeadError::BareLineBreak),
        ("X: a\r\r\n", HeadError::BareLineBreak),
        ("X: a\0b\r\n", HeadError::ControlInValue),
        ("X: a\x7fb\r\n", HeadError::ControlInValue),
        ("X: a\r\n b\r\n", HeadError::Folded),
        ("\tX: a\r\n", HeadError::Folded),
        ("X : a\r\n", HeadError::HeaderName),
        (": a\r\n", HeadError::HeaderName),
        ("X\r\n", HeadError::HeaderName),
        ("X(y): a\r\n", HeadError::HeaderName),
        ("X\0: a\r\n", HeadError::HeaderName),
        ("\u{e9}: a\r\n", HeadError::HeaderName),
    ] {
        assert_eq!(with(lines).unwrap_err(), error, "{lines:?}");
    }
    with("X: \u{e9}\t~\r\n").unwrap();
}

#[test]
fn a_first_line_has_three_words_and_one_space_between() {
    for (text, error) in [
        ("GET  / HTTP/1.1", HeadError::StartLine),
        ("GET /", HeadError::StartLine),
        (" GET / HTTP/1.1", HeadError::StartLine),
        ("GET / HTTP/1.1 ", HeadError::StartLine),
        ("GET\t/ HTTP/1.1", HeadError::StartLine),
        ("G@T / HTTP/1.1", HeadError::Method),
        ("GET / http/1.1", HeadError::StartLine),
        ("GET / HTTP/1.2", HeadError::Version),
        ("GET / HTTP/2.0", HeadError::Version),
        ("GET / HTTP/11", HeadError::StartLine),
        ("GET a HTTP/1.1", HeadError::Target),
        ("GET * HTTP/1.1", HeadError::Target),
        ("GET /a#b HTTP/1.1", HeadError::Target),
        ("GET /\x01 HTTP/1.1", HeadError::Target),
        ("GET ftp://a/ HTTP/1.1", HeadError::Target),
        ("GET http:///x HTTP/1.1", HeadError::Target),
        ("GET http://u@h/x HTTP/1.1", HeadError::Target),
        ("CONNECT a:1 HTTP/1.1", HeadError::MethodNotAllowed),
    ] {
        let head = format!("{text}\r\nHost: h\r\n\r\n");
        assert_eq!(parse(head.as_bytes()).unwrap_err(), error, "{text:?}");
    }
    parse("GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n".as_bytes()).unwrap();
    parse(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
}

#[test]
fn an_absolute_target_is_taken_apart() {
    let text = b"GET HTTP://a.example:80?q HTTP/1.1\r\nHost: other\r\n\r\n";
    let Target::Absolute { authority, path } = parse(text).unwrap().target else {
        panic!("not absolute")
    };
    assert_eq!(
        (authority.of(text), path.of(text)),
        (&b"a.example:80"[..], &b"?q"[..])
    );
}

#[test]
fn exactly_one_host() {
    let host = |lines: &str| parse(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes());
    for good in [
        "Host: a\r\n",
        "Host: [::1]:8443\r\n",
        "Host:\r\n",
        "host: a_b.example:1\r\n",
    ] {
        host(good).unwrap();
    }
    for bad in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a:b\r\n",
        "Host: a:123456\r\n",
        "Host: [::1\r\n",
        "Host: [g::]\r\n",
        "Host: a,b\r\n",
    ] {
        assert_eq!(host(bad).unwrap_err(), HeadError::Host, "{bad:?}");
    }
    parse(b"GET / HTTP/1.0\r\n\r\n").unwrap();
}

#[test]
fn persistence_follows_version_and_connection() {
    let kept = |text: &str| parse(text.as_bytes()).unwrap().is_persistent;
    assert!(kept("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert!(!kept(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: foo , CLOSE\r\n\r\n"
    ));
    assert!(!kept("GET / HTTP/1.0\r\n\r\n"));
    assert!(kept("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn an_expectation_is_100_continue_or_refused() {
    let head = with("Expect: 100-Continue\r\nContent-Length: 3\r\n").unwrap();
    assert!(head.expects_continue);
    assert!(!with("Expect: 100-continue\r\n").unwrap().expects_continue);
    assert_eq!(
        with("Expect: magic\r\n").unwrap_err(),
        HeadError::Expectation
    );
    // A second line is an expectation too: the first must not hide it.
    assert_eq!(
        with("Expect: 100-continue\r\nExpect: magic\r\nContent-Length: 3\r\n").unwrap_err(),
        HeadError::Expectation
    );
}

#[test]
fn t03_limits_have_their_own_statuses_also_while_bytes_arrive() {
    let limits = HeadLimits {
        head: 300,
        headers: 3,
        target: 100,
    };
    let parse = |text: &str| {
        RequestHead::default().parse(text.as_bytes(), &limits, &mut HeadSearch::default())
    };
    let headers =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}", "a: b\r\n".repeat(count));
    assert_eq!(parse(&(headers(2) + "\r\n")), Ok(true));
    assert_eq!(parse(&headers(3)).unwrap_err().status(), 431);
    assert_eq!(
        parse(&format!("{}x: {}", headers(1), "y".repeat(300)))
            .unwrap_err()
            .status(),
        431
    );
    assert_eq!(
        parse(&format!("GET /{}", "a".repeat(180)))
            .unwrap_err()
            .status(),
        414
    );
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(100));
    assert_eq!(parse(&long).unwrap_err().status(), 414);
    let fits = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(99));
    assert_eq!(parse(&fits), Ok(true));
}

fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"\r\n".to_vec()),
        1 => Just(b"\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        3 => Just(b"Host: h".to_vec()),
        3 => Just(b"Content-Length: 3".to_vec()),
        2 => Just(b"Transfer-Encoding: chunked".to_vec()),
        2 => Just(b" ".to_vec()),
        2 => Just(b":".to_vec()),
        2 => Just(b"GET / HTTP/1.1\r\n".to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..5),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// A head that arrives byte by byte is judged as one that arrives whole, at the latest when it
    /// is complete, and never takes bytes from behind its end.
    #[test]
    fn the_verdict_does_not_depend_on_how_a_head_arrives(
        bytes in any_head(),
        is_request in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if is_request {
            bytes.splice(0..0, *b"GET / HTTP/1.1\r\n");
        }
        let limits = HeadLimits::default();
        let mut whole = RequestHead::default();
        let at_once = whole.parse(&bytes, &limits, &mut HeadSearch::default());
        let mut slow = RequestHead::default();
        let mut search = HeadSearch::default();
        let mut verdict = Ok(false);
        for end in 1..=bytes.len() {
            verdict = slow.parse(&bytes[..end], &limits, &mut search);
            if verdict != Ok(false) {
                break;
            }
        }
        prop_assert_eq!(at_once, verdict);
        if at_once == Ok(true) {
            prop_assert_eq!(whole.length, slow.length);
            prop_assert!(bytes[..whole.length].ends_with(b"\r\n\r\n"));
            prop_assert_eq!(whole.framing, slow.framing);
        }
    }
}
