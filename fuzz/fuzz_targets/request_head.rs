//! Any bytes as a request head: what is accepted is accepted alike whole and in pieces, and what
//! would be forwarded of it is a head that says the same.

#![no_main]

use cloister_http::forward::{connection_options, may_forward, write_field};
use cloister_http::websocket::{self, KEY_CHARACTERS};
use cloister_http::{HeadLimits, HeadSearch, HttpVersion, RequestFraming, RequestHead};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { head: 2048, headers: 16, target: 512 };

/// Parses what arrives `step` bytes at a time.
fn parse(bytes: &[u8], step: usize) -> Result<Option<RequestHead>, ()> {
    let mut head = RequestHead::default();
    let mut search = HeadSearch::default();
    let mut end = 0;
    loop {
        end = bytes.len().min(end + step);
        match head.parse(&bytes[..end], &LIMITS, &mut search) {
            Err(_) => return Err(()),
            Ok(true) => return Ok(Some(head)),
            Ok(false) if end == bytes.len() => return Ok(None),
            Ok(false) => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (whole, pieces) = (parse(data, data.len().max(1)), parse(data, 1));
    // A head that cannot be saved may be refused before all of it is there.
    let (Ok(Some(head)), Ok(Some(same))) = (&whole, &pieces) else {
        assert!(!matches!(whole, Ok(Some(_))) && !matches!(pieces, Ok(Some(_))));
        return;
    };
    assert_eq!((head.length, head.framing), (same.length, same.framing));
    assert!(head.length <= LIMITS.head && head.fields.len() <= LIMITS.headers);
    let bytes = &data[..head.length];
    assert!(bytes.ends_with(b"\r\n\r\n"));

    // What would become a tunnel has no body and one key.
    let key = websocket::key(head, bytes);
    assert_eq!(key, websocket::key(same, bytes));
    if let Ok(Some(key)) = key {
        assert_eq!((key.len(), head.framing), (KEY_CHARACTERS, RequestFraming::None));
        assert_eq!((head.method.of(bytes), head.version), (&b"GET"[..], HttpVersion::V1_1));
    }

    // Written again as a proxy does it, it is accepted, ends in one place, and says the same.
    let mut again = head.method.of(bytes).to_vec();
    again.push(b' ');
    again.extend_from_slice(head.raw_target.of(bytes));
    again.extend_from_slice(b" HTTP/1.1\r\n");
    let options = connection_options(&head.fields, bytes);
    let kept: Vec<_> =
        head.fields.iter().filter(|field| may_forward(field, bytes, &options)).collect();
    for field in &kept {
        write_field(field.name.of(bytes), field.value.of(bytes), &mut again);
    }
    if head.fields.first(cloister_http::Known::Host).is_none() {
        again.extend_from_slice(b"host: \r\n");
    }
    match head.framing {
        RequestFraming::Chunked => again.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        RequestFraming::Length(length) => {
            again.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
        }
        RequestFraming::None => {}
    }
    again.extend_from_slice(b"\r\n");
    let wide = HeadLimits { head: 8192, headers: 32, target: 512 };
    let mut second = RequestHead::default();
    let complete = second.parse(&again, &wide, &mut HeadSearch::default());
    assert_eq!(complete, Ok(true), "{:?}", String::from_utf8_lossy(&again));
    assert_eq!((second.length, second.framing), (again.len(), head.framing));
    for (before, after) in kept.iter().zip(second.fields.iter()) {
        assert_eq!(before.name.of(bytes), after.name.of(&again));
        assert_eq!(before.value.of(bytes), after.value.of(&again));
    }
});
