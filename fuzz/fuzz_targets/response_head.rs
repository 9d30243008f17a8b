//! Any bytes as a response head of the user process: what is accepted is accepted alike whole and
//! in pieces, and ends in one place whatever was asked.

#![no_main]

use cloister_http::websocket::check_switch;
use cloister_http::{HeadLimits, HeadSearch, ResponseFraming, ResponseHead};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { head: 2048, headers: 16, target: 512 };

/// Parses what arrives `step` bytes at a time.
fn parse(bytes: &[u8], step: usize, to_head: bool) -> Result<Option<ResponseHead>, ()> {
    let mut head = ResponseHead::default();
    let mut search = HeadSearch::default();
    let mut end = 0;
    loop {
        end = bytes.len().min(end + step);
        match head.parse(&bytes[..end], &LIMITS, &mut search, to_head) {
            Err(_) => return Err(()),
            Ok(true) => return Ok(Some(head)),
            Ok(false) if end == bytes.len() => return Ok(None),
            Ok(false) => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (whole, pieces) = (parse(data, data.len().max(1), false), parse(data, 1, false));
    let (Ok(Some(head)), Ok(Some(same))) = (&whole, &pieces) else {
        assert!(!matches!(whole, Ok(Some(_))) && !matches!(pieces, Ok(Some(_))));
        return;
    };
    assert_eq!((head.length, head.framing), (same.length, same.framing));
    assert!(head.length <= LIMITS.head && head.fields.len() <= LIMITS.headers);
    assert!((100..=599).contains(&head.status));
    if matches!(head.status, 100..=199 | 204 | 304) {
        assert_eq!(head.framing, ResponseFraming::None);
    }
    if head.framing == ResponseFraming::UntilClose {
        assert!(!head.is_persistent);
    }
    let (bytes, accept) = (&data[..head.length], b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(check_switch(head, bytes, accept), check_switch(same, bytes, accept));
    // The same head in answer to HEAD has no body, and is as long.
    let Ok(Some(to_head)) = parse(data, data.len(), true) else {
        panic!("refused in answer to HEAD");
    };
    assert_eq!((to_head.length, to_head.framing), (head.length, ResponseFraming::None));
});
