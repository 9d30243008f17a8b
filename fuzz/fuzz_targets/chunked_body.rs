//! Any bytes as a chunked body: the same result wherever it is cut, and written again it decodes to
//! the same data.

#![no_main]

use cloister_http::chunked::{write_chunk, write_end};
use cloister_http::{ChunkDecoder, ChunkEvent};
use libfuzzer_sys::fuzz_target;

struct Outcome {
    body: Vec<u8>,
    consumed: usize,
    is_done: bool,
    trailers: Vec<u8>,
}

fn decode<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> Result<Outcome, ()> {
    let mut decoder = ChunkDecoder::default();
    let (mut body, mut consumed, mut is_done) = (Vec::new(), 0, false);
    'pieces: for mut piece in pieces {
        loop {
            let (used, event) = decoder.next(piece).map_err(|_| ())?;
            assert!(used <= piece.len());
            consumed += used;
            match event {
                ChunkEvent::Data(data) => {
                    assert!(!data.is_empty() && data.len() <= used);
                    body.extend_from_slice(data);
                }
                ChunkEvent::End => {
                    is_done = true;
                    break 'pieces;
                }
                ChunkEvent::More => {
                    assert_eq!(used, piece.len());
                    break;
                }
            }
            piece = &piece[used..];
        }
    }
    Ok(Outcome { body, consumed, is_done, trailers: decoder.trailers() })
}

fuzz_target!(|data: &[u8]| {
    let (whole, pieces) = (decode([data].into_iter()), decode(data.chunks(1)));
    let (Ok(whole), Ok(pieces)) = (&whole, &pieces) else {
        // An error behind the end of the input of one is behind that of the other.
        assert!(whole.is_err() && pieces.is_err());
        return;
    };
    assert_eq!(whole.body, pieces.body);
    assert_eq!(whole.is_done, pieces.is_done);
    if !whole.is_done {
        return;
    }
    assert_eq!(whole.consumed, pieces.consumed);
    assert_eq!(whole.trailers, pieces.trailers);
    let mut again = Vec::new();
    write_chunk(&whole.body, &mut again);
    write_end(&whole.trailers, &mut again);
    let second = decode([again.as_slice()].into_iter()).expect("what was written is well formed");
    assert!(second.is_done);
    assert_eq!((second.body, second.consumed), (whole.body.clone(), again.len()));
    assert_eq!(second.trailers, whole.trailers);
});
