//! Any bytes as a request to an NSM, as an answer of one, and as a framed message.

#![no_main]

use cloister_nsm::frame;
use cloister_nsm::protocol::{Request, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = Request::decode(data) {
        // What was read can be written and reads the same.
        if let Ok(encoded) = request.encode() {
            assert_eq!(Request::decode(&encoded), Ok(request));
        }
    }
    if let Ok(response) = Response::decode(data) {
        let encoded = response.encode();
        assert_eq!(Response::decode(&encoded).ok(), Some(response));
    }
    if let Ok(Some((message, consumed))) = frame::split(data) {
        assert_eq!(frame::encode(message).as_deref(), data.get(..consumed));
    }
});
