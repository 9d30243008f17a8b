//! Any bytes as the PROXY v2 header of a stream.

#![no_main]

use cloister_wire::proxy_v2::{Header, MAX_HEADER_BYTES, Parsed, encode, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    for end in 0..data.len().min(MAX_HEADER_BYTES + 1) {
        match parse(&data[..end]) {
            // What is refused stays refused, what is complete stays so: bytes behind it mean nothing.
            Err(error) => assert_eq!(whole, Err(error)),
            Ok(Parsed::Complete { .. }) => assert_eq!(parse(&data[..end]), whole),
            Ok(Parsed::Incomplete) => {}
        }
    }
    if let Ok(Parsed::Complete { header, consumed }) = whole {
        assert!(consumed <= data.len() && consumed <= MAX_HEADER_BYTES);
        let mut again = Vec::new();
        encode(&header, &mut again);
        let consumed = again.len();
        assert_eq!(parse(&again), Ok(Parsed::Complete { header, consumed }));
    }
    // A probe has to be accepted, whatever its family, addresses and TLVs are.
    if matches!(whole, Ok(Parsed::Complete { .. })) {
        let mut local = data.to_vec();
        local[12] = 0x20;
        let Ok(Parsed::Complete { header, .. }) = parse(&local) else {
            panic!("a probe is refused");
        };
        assert_eq!(header, Header::Local);
    }
    if matches!(whole, Ok(Parsed::Incomplete)) {
        assert!(data.len() < MAX_HEADER_BYTES);
    }
});
